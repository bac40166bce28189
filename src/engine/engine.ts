/**
 * The engine as users start it: one object for all shards. It is active on the shards that no other
 * engine holds, and is a standby for the rest.
 */
import type { FlowStoneError } from '../../streams/errors.ts'
import { hash64 } from '../../streams/ids.ts'
import type { Topology } from '../../streams/topology.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { Logger } from '../telemetry.ts'
import { EngineShard } from './shard/shard.ts'

/** Options of `flow.engine`. */
export interface EngineOptions {
  /**
   * How often the reconciler looks for tasks that got lost, in milliseconds: 10 to 86,400,000.
   * Default 30,000; also once after each start.
   */
  readonly reconcileMs?: number
}

/** A running engine, from `flow.engine`. It ends with its connection, or by `stop`. */
export interface Engine {
  readonly id: string
  /**
   * Resolves when this engine is active on every shard. It waits while another engine is active;
   * run several for failover. Rejects when the connection is closed for good. Rejects with
   * FlowStoneError `log_changed` when the state was not made from this log (see `rebuild`). Rejects
   * with `newer_version` when a newer FlowStone wrote the state.
   */
  readonly active: Promise<void>
  /**
   * Why this engine refuses to work on a shard: the error that `active` rejects with. Undefined
   * when it refuses none. The engine checks again every two seconds.
   */
  readonly refused: FlowStoneError | undefined
  /** Checkpoints, gives up its claims, and ends: a standby takes over at once. */
  stop(): Promise<void>
}

const OPTIONS: OptionNames<EngineOptions> = { reconcileMs: true }
const RECONCILE_BOUNDS = { minMs: 10, maxMs: 86_400_000 }

export function startEngine(
  shared: {
    connection: Connection
    topology: Topology
    clock: ServerClock
    logger: Logger
    logOf: (shard: number) => Appender
    workOf: (shard: number) => Appender
    io: Io
    random: () => string
  },
  options: EngineOptions = {},
): Engine {
  refuseUnknown('engine', options, OPTIONS)
  const id = `engine-${hash64(shared.random()).slice(0, 10)}`
  const reconcileMs = parseDuration('engine: reconcileMs', options.reconcileMs ?? 30_000, RECONCILE_BOUNDS)
  const shards = Array.from(
    { length: shared.topology.shards },
    (_, shard) => new EngineShard({ ...shared, engine: id, shard, reconcileMs }),
  )
  for (const partition of shards) partition.start()
  const active = Promise.withResolvers<void>()
  void Promise.all(shards.map((partition) => partition.active)).then(() => active.resolve(), active.reject)
  void shared.connection.closed.then((reason) => (reason ? active.reject(reason) : undefined))
  // Who does not wait for it hears of the end by `flow.closed`.
  active.promise.catch(() => undefined)
  return {
    id,
    active: active.promise,
    get refused() {
      return shards.find((partition) => partition.refused)?.refused
    },
    stop: async () => {
      await Promise.all(shards.map((partition) => partition.stop()))
    },
  }
}
