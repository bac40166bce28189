/**
 * What is to be done with a task that was delivered before. A delivery count above 1 proves
 * nothing: it may have been handed back, or delivered to a request whose answer nobody received. So
 * the state is asked whether the task is still waited for, the workers who has it, and their names
 * whether one is gone that may have begun it.
 *
 * Many come at once (a worker that dies leaves all it held), so what comes together is asked
 * together.
 */

import { isEnded } from '../../../projections/run/end.ts'
import type { BarrierState } from '../../../projections/scatter/state.ts'
import { type AssetStatus, type Key, type RunState, stateKey } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Task } from '../../../streams/tasks.ts'
import { untilFolded } from '../../engine/shard/until-folded.ts'
import type { Connection } from '../../log/connection.ts'
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
    const folding = new Map<number, Promise<void>>()
    const readFolded = async (shard: number, key: string): Promise<unknown> => {
      const { connection, names } = this.#shared
      const folded = folding.get(shard) ?? mustBeFolded(connection, names, shard)
      folding.set(shard, folded)
      await folded
      return await readDoc(connection, names, names.stateBucket(shard), key)
    }
    const open: Asked[] = []
    await Promise.all(
      asked.map(async (one) => {
        try {
          if (await isWaitedFor(one.held, { read, readFolded })) open.push(one)
          else one.resolve('over')
        } catch (error) {
          one.reject(error)
        }
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

async function mustBeFolded(connection: Connection, names: Names, shard: number): Promise<void> {
  const { isFolded } = await untilFolded({ connection, names }, shard)
  if (!isFolded) throw new FlowStoneError('state_behind', `the state of shard ${shard} is behind its log`)
}

/** Documents of the state, by their keys. The bucket's type of document follows from its key. */
interface StateReader {
  read(shard: number, key: string): Promise<unknown>
  /** Once the state has what is on the log now. Throws `state_behind` when it does not get that. */
  readFolded(shard: number, key: string): Promise<unknown>
}

/**
 * Whether the state still waits for this very execution. What it does not know yet is waited for.
 */
export async function isWaitedFor(
  { shard, task }: Pick<InFlightTask, 'shard' | 'task'>,
  { read, readFolded }: StateReader,
): Promise<boolean> {
  const run = (await read(shard, stateKey.run(task.run))) as RunState | undefined
  if (!run) return true
  if (run.finishedMs !== undefined) return false
  const asset = run.assets[task.asset]
  switch (task.kind) {
    case 'reminder':
      return true
    case 'lease': {
      const key = stateKey.barrier(task.run, task.asset)
      const barrier = (await read(shard, key)) as BarrierState | undefined
      if (barrier?.status !== 'open' || isOut(barrier, task)) return barrier === undefined || barrier.status === 'open'
      // It may be leased again by a fact that the state does not have. Where that cannot be known,
      // the task is left to a later delivery.
      const newer = (await readFolded(shard, key)) as BarrierState | undefined
      return !newer || (newer.status === 'open' && isOut(newer, task))
    }
    case 'resume': {
      const at = { run: task.run, asset: task.asset, gate: task.from.gate }
      // As above.
      const gate = await storedGate(async <D>(key: Key<D>) => (await read(shard, key)) as D | undefined, at)
      return !gate?.resume || (!gate.closed && gate.resume.attempt <= task.ordinal)
    }
    default:
      if (!asset) return true
      // A state that has not met the attempt may show what was before it: a gate, or a scatter.
      if (asset.attempt < task.attempt) return !isEnded(asset)
      return asset.attempt === task.attempt && isOpen(asset.status)
  }
}

/** Whether it is one of the leases, or of instances that a state which is behind has not leased. */
function isOut(barrier: BarrierState, { lease, to }: Extract<Task, { kind: 'lease' }>): boolean {
  return to > barrier.fedTo || lease in barrier.leases
}

function isOpen(status: AssetStatus): boolean {
  return status === 'waiting' || status === 'queued' || status === 'running'
}
