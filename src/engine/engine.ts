/**
 * The engine as users start it: one object for all shards. It is active on the shards that no other
 * engine holds, and is a standby for the rest.
 */
import { type FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { hash64 } from '../../streams/ids.ts'
import { shown } from '../../streams/shown.ts'
import type { Topology } from '../../streams/topology.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { atMost } from '../options/timer.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { Logger } from '../telemetry.ts'
import { answerForEngine } from './answer.ts'
import { type ProofOptions, proofSettings } from './proof/settings.ts'
import { type EngineRetention, parseEngineRetention } from './retention.ts'
import { EngineShard } from './shard/shard.ts'

/** Options of `flow.engine`. */
export interface EngineOptions {
  /**
   * How often the reconciler looks for tasks that got lost, in milliseconds: 10 to 86,400,000.
   * Default 30,000; also once after each start.
   */
  readonly reconcileMs?: number
  /**
   * Runs that ended so long ago are sealed: their facts leave the log for the history, where they
   * take little room and no memory of the server. All that can be asked of a run works as before.
   * 1 s to 365 days, or `'never'`. Default `'1h'`. Less than five minutes is for tests: a process
   * that stood still for longer may then do again what was done once.
   */
  readonly sealAfter?: Duration | 'never'
  /**
   * How many facts are between two snapshots, at least, and between two changes of the last hour:
   * `flow.at` folds as many. 1 to 10,000,000; default 16,000. Fewer make `flow.at` quicker, and the
   * history larger.
   */
  readonly snapshotEvery?: number
  /**
   * Whether the log is proven: a chain of blocks with a hash of each fact, by which `flowstone
   * verify --proof` finds what was changed. Default true. An object says which key signs the
   * blocks: without one, who can write to the server can make another chain.
   */
  readonly proof?: boolean | ProofOptions
  /**
   * How long runs are kept whose pipeline does not say it, such as `{ runs: '90d', failed: '180d'
   * }`, and where runs are archived to before they are pruned: `archive: 's3://BUCKET/PREFIX'`.
   * Give it to all engines of a namespace. Default: for ever. Needs `sealAfter`.
   */
  readonly retention?: EngineRetention
}

/** A running engine, from `flow.engine`. It ends with its connection, or by `stop`. */
export interface Engine {
  readonly id: string
  /**
   * Resolves when this engine is active on every shard. It waits while another engine is active;
   * run several for failover. Rejects when the connection is closed for good. Rejects with
   * FlowStoneError `log_changed` when the state was not made from this log (see `rebuild`). Rejects
   * with `newer_version` when a newer FlowStone wrote the state, and with `history_lost` when state
   * and history are gone.
   */
  readonly active: Promise<void>
  /**
   * Why this engine does not work on a shard, though it could: the error that `active` rejects
   * with. Or `denied`, when its NATS user lacks a permission: `active` waits then. The engine tries
   * again by itself. Undefined when it can work.
   */
  readonly refused: FlowStoneError | undefined
  /**
   * Checkpoints, gives up its claims, and ends: a standby takes over at once. Resolves after 10 s
   * at most. What cannot be stored by then, because the server is away or full, is folded again by
   * the next engine. This one ends when it is stored, or with the connection.
   */
  stop(): Promise<void>
}

const OPTIONS: OptionNames<EngineOptions> = {
  reconcileMs: true,
  sealAfter: true,
  snapshotEvery: true,
  proof: true,
  retention: true,
}
const STOP_MS = 10_000
const SEAL_BOUNDS = { minMs: 1000, maxMs: 365 * 86_400_000 }
const SNAPSHOT_EVERY_MAX = 10_000_000
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
  const { sealAfter = '1h', snapshotEvery = 16_000 } = options
  if (!(Number.isInteger(snapshotEvery) && snapshotEvery >= 1 && snapshotEvery <= SNAPSHOT_EVERY_MAX))
    throw new InvalidError(
      `engine: snapshotEvery must be a whole number from 1 to ${SNAPSHOT_EVERY_MAX}, got ${shown(snapshotEvery)}`,
    )
  const sealAfterMs = sealAfter === 'never' ? undefined : parseDuration('engine: sealAfter', sealAfter, SEAL_BOUNDS)
  const proof = proofSettings(options.proof, sealAfterMs)
  const { retention, archive } = parseEngineRetention('engine: retention', options.retention)
  if (options.retention !== undefined && sealAfterMs === undefined)
    throw new InvalidError("engine: retention needs runs that are sealed: sealAfter must not be 'never'")
  const settings = { ...shared, engine: id, reconcileMs, sealAfterMs, snapshotEvery, proof, retention, archive }
  const shards = Array.from({ length: shared.topology.shards }, (_, shard) => new EngineShard({ ...settings, shard }))
  for (const partition of shards) partition.start()
  const denied = (): FlowStoneError | undefined => shards.find((partition) => partition.denied)?.denied
  const answers = answerForEngine(shared.connection, shared.topology.names, () => {
    const missing = denied()?.message
    return {
      engine: id,
      active: shards.flatMap((partition, shard) => (partition.isActive ? [shard] : [])),
      ...(missing === undefined ? {} : { denied: missing }),
    }
  })
  const active = Promise.withResolvers<void>()
  void Promise.all(shards.map((partition) => partition.active)).then(() => active.resolve(), active.reject)
  void shared.connection.closed.then((reason) => (reason ? active.reject(reason) : undefined))
  // Who does not wait for it hears of the end by `flow.closed`.
  active.promise.catch(() => undefined)
  return {
    id,
    active: active.promise,
    get refused() {
      return shards.find((partition) => partition.refused)?.refused ?? denied()
    },
    stop: async () => {
      if (!shared.connection.isClosed) answers.unsubscribe()
      await atMost(STOP_MS, Promise.all(shards.map((partition) => partition.stop())))
    },
  }
}
