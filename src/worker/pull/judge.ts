/**
 * What is to be done with a task that was delivered before. A delivery count above 1 proves
 * nothing: it may have been handed back, or delivered to a request whose answer nobody received. So
 * the state is asked whether the task is still waited for, the workers who has it, and their names
 * whether one is gone that may have begun it.
 *
 * Many come at once (a worker that dies leaves all it held), so what comes together is asked
 * together.
 */

import type { BarrierState } from '../../../projections/scatter/state.ts'
import { type AssetStatus, type Key, type RunState, stateKey } from '../../../projections/state.ts'
import { readDoc } from '../../log/documents.ts'
import { storedGate } from '../../log/gate-doc.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { type Liveness, messageName, type WorkerSeen } from '../control/liveness.ts'
import type { InFlightTask } from './in-flight-task.ts'

/**
 * `over`: nobody waits for it. `elsewhere`: another worker runs it. `lost`: a worker that may have
 * begun it is gone. `fresh`: nobody has begun it, or who did gave it back.
 */
export type Verdict = 'over' | 'elsewhere' | 'lost' | 'fresh'

const TOGETHER_MS = 5
/** A sign of life may be so much late. */
const SLACK_MS = 2000

interface Asked {
  readonly held: InFlightTask
  readonly resolve: (verdict: Verdict) => void
  readonly reject: (error: unknown) => void
}

export class Judge {
  readonly #shared: WorkerShared
  readonly #liveness: Liveness
  #waiting: Asked[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(shared: WorkerShared, liveness: Liveness) {
    this.#shared = shared
    this.#liveness = liveness
  }

  async verdict(held: InFlightTask): Promise<Verdict> {
    return await new Promise<Verdict>((resolve, reject) => {
      this.#waiting.push({ held, resolve, reject })
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined
        const asked = this.#waiting.splice(0)
        this.#judge(asked).catch((error: unknown) => {
          for (const one of asked) one.reject(error)
        })
      }, TOGETHER_MS)
    })
  }

  async #judge(asked: readonly Asked[]): Promise<void> {
    const docs = new Map<string, Promise<unknown>>()
    const read = (shard: number, key: string): Promise<unknown> => {
      const { connection, names } = this.#shared
      const at = `${shard} ${key}`
      const reading = docs.get(at) ?? readDoc(connection, names, names.stateBucket(shard), key)
      docs.set(at, reading)
      return reading
    }
    const open: Asked[] = []
    await Promise.all(
      asked.map(async (one) => {
        if (await isWaitedFor(one.held, read)) open.push(one)
        else one.resolve('over')
      }),
    )
    if (open.length === 0) return
    const byPipeline = Map.groupBy(open, ({ held }) => held.task.pipeline)
    const workers = (await this.#liveness.seen()).filter(({ id }) => id !== this.#shared.id)
    const nowMs = this.#shared.clock.now()
    for (const [pipeline, some] of byPipeline) {
      const others = workers.filter((worker) => worker.pipelines.includes(pipeline))
      const oldestMs = Math.min(...some.map(({ held }) => held.delivery.timeMs))
      const mayAnswer = (one: WorkerSeen): boolean =>
        mayHaveBegun(one, oldestMs) || nowMs - one.seenMs < 2 * one.beatMs + SLACK_MS
      const expected = new Set(others.filter(mayAnswer).map(({ id }) => id))
      const names = some.map(({ held }) => messageName(held.shard, held.streamSeq))
      const { alive, held: elsewhere, ended } = await this.#liveness.ask(pipeline, names, expected)
      const gone = others.filter(({ id }) => !alive.has(id))
      for (const { held, resolve } of some) {
        const name = messageName(held.shard, held.streamSeq)
        if (ended.has(name)) resolve('over')
        else if (elsewhere.has(name)) resolve('elsewhere')
        else {
          const suspect = gone.some((one) => mayHaveBegun(one, held.delivery.timeMs))
          resolve(suspect ? 'lost' : 'fresh')
        }
      }
    }
  }
}

/**
 * Whether the worker lived when the message was there, as far as its signs of life say. They are
 * old of a worker that lives, too, after the server was away.
 */
function mayHaveBegun({ seenMs, beatMs }: WorkerSeen, messageMs: number): boolean {
  return seenMs + beatMs + SLACK_MS >= messageMs
}

/**
 * Whether the state still waits for this very execution. What it does not know yet is waited for.
 */
async function isWaitedFor(
  { shard, task }: InFlightTask,
  read: (shard: number, key: string) => Promise<unknown>,
): Promise<boolean> {
  // The bucket's type of document follows from its key.
  const run = (await read(shard, stateKey.run(task.run))) as RunState | undefined
  if (!run) return true
  if (run.finishedMs !== undefined) return false
  const asset = run.assets[task.asset]
  switch (task.kind) {
    case 'reminder':
      return true
    case 'lease': {
      const barrier = (await read(shard, stateKey.barrier(task.run, task.asset))) as BarrierState | undefined
      return !barrier || (barrier.status === 'open' && (isAhead(barrier, task.to) || task.lease in barrier.leases))
    }
    case 'resume': {
      const at = { run: task.run, asset: task.asset, gate: task.from.gate }
      // As above.
      const gate = await storedGate(async <D>(key: Key<D>) => (await read(shard, key)) as D | undefined, at)
      return !gate?.resume || (!gate.closed && gate.resume.attempt <= task.ordinal)
    }
    default:
      return !asset || (asset.attempt <= task.attempt && isOpen(asset.status))
  }
}

/** Instances that a state which lags behind has not leased yet. */
function isAhead(barrier: BarrierState, to: number): boolean {
  return to > barrier.fedTo
}

function isOpen(status: AssetStatus): boolean {
  return status === 'waiting' || status === 'queued' || status === 'running'
}
