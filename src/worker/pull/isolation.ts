/**
 * The last attempt of what has lost a worker before runs alone: the process finishes what it runs,
 * takes nothing new, runs that one, and goes on. So what kills its process kills nobody else, and
 * nobody's last attempt is used up by standing beside it.
 *
 * That it begins is put on the log first. A worker that dies while such a task still waits for its
 * turn has not begun it, and it costs no attempt.
 */

import { FlowStoneError } from '../../../streams/errors.ts'
import { type FactDraft, factPath } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { Task } from '../../../streams/tasks.ts'
import { factEntry } from '../../log/entries.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { type Disposition, DONE, HandBack, NOT_BEGUN } from './disposition.ts'
import type { InFlightTask } from './in-flight-task.ts'

/** `not_begun`: the worker stops first. `over`: the task was aborted first. */
type Turn = 'granted' | 'not_begun' | 'over'

interface Waiting {
  readonly turn: () => void
  readonly giveUp: (reason: unknown) => void
}

export interface IsolationOptions {
  /**
   * How long the worker takes nothing new for the sake of one task: while it waits for what runs to
   * end, and again while it runs. After that it is run beside what hangs, and other work beside it:
   * code without a time limit must not stop a worker for ever.
   */
  readonly limitMs: number
  /**
   * `soon`: it waits already for a while. `late`: it waits no longer. `long`: it runs for so long
   * that others are begun beside it.
   */
  readonly say: (what: 'soon' | 'late' | 'long') => void
}

export class Isolation {
  readonly #options: IsolationOptions
  /** What runs, and is waited for. What hung longer than the limit is waited for no more. */
  readonly #beside = new Set<object>()
  #running: object | undefined
  #waiting: Waiting[] = []
  #over = false
  #timers: NodeJS.Timeout[] = []

  constructor(options: IsolationOptions) {
    this.#options = options
  }

  /** Whether something runs alone, or waits to: nothing else may be begun. */
  get isWanted(): boolean {
    return this.#running !== undefined || this.#waiting.length > 0
  }

  /** What may have others beside it, from the moment it is in this worker's hands. */
  async beside<T>(work: () => Promise<T>): Promise<T> {
    const one = {}
    this.#beside.add(one)
    try {
      return await work()
    } finally {
      this.#beside.delete(one)
      this.#next()
    }
  }

  /**
   * Waits until nothing else runs, then runs `work`. It is not run when the worker stops first, or
   * when it is aborted first: then nobody waits for it.
   */
  async run(signal: AbortSignal, work: () => Promise<Disposition>): Promise<Disposition> {
    const turn = await this.#turn(signal)
    if (turn !== 'granted') return turn === 'over' ? DONE : NOT_BEGUN
    const one = {}
    this.#running = one
    const long = setTimeout(() => {
      this.#running = undefined
      this.#options.say('long')
      this.#next()
    }, this.#options.limitMs)
    try {
      return await work()
    } finally {
      clearTimeout(long)
      if (this.#running === one) this.#running = undefined
      this.#next()
    }
  }

  /** The worker stops: what waits is not begun any more. */
  giveUp(): void {
    this.#over = true
    this.#disarm()
    for (const { giveUp } of this.#waiting.splice(0)) giveUp(new HandBack())
  }

  async #turn(signal: AbortSignal): Promise<Turn> {
    const { promise, resolve } = Promise.withResolvers<Turn>()
    const one: Waiting = {
      turn: () => resolve('granted'),
      giveUp: (reason) => resolve(reason instanceof HandBack ? 'not_begun' : 'over'),
    }
    const onAbort = (): void => {
      this.#waiting = this.#waiting.filter((other) => other !== one)
      one.giveUp(signal.reason)
    }
    if (this.#over) return 'not_begun'
    if (signal.aborted) return 'over'
    signal.addEventListener('abort', onAbort, { once: true })
    this.#waiting.push(one)
    this.#next()
    try {
      return await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #next(): void {
    if (this.#waiting.length === 0 || this.#over) this.#disarm()
    else if (!this.#running && this.#beside.size > 0) this.#arm()
    if (this.#running || this.#beside.size > 0) return
    const one = this.#waiting.shift()
    if (!one) return
    this.#disarm()
    // Until `run` goes on.
    this.#running = one
    one.turn()
  }

  #arm(): void {
    if (this.#timers.length > 0) return
    const { limitMs, say } = this.#options
    const late = (): void => {
      say('late')
      this.#disarm()
      this.#beside.clear()
      this.#next()
    }
    this.#timers = [setTimeout(() => say('soon'), limitMs / 4), setTimeout(late, limitMs)]
  }

  #disarm(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer)
  }
}

/**
 * Puts on the log that a task begins that runs alone. `lost`: another message of this task was
 * begun before, and its worker is gone.
 */
export async function sayBegun(
  shared: WorkerShared,
  held: InFlightTask,
  task: Task,
): Promise<'begun' | 'lost' | 'not ours'> {
  const fact = begunFact(shared.id, held, task)
  const appended = await shared.logOf(held.shard).appendOnce(factEntry(shared.names, held.shard, fact))
  if (appended === 'stored') return 'begun'
  const there = await readBegun(shared, held, task)
  return there?.message === held.streamSeq ? 'not ours' : 'lost'
}

/** Whether a task that runs alone was begun by the worker that had it before. */
export async function wasBegun(shared: WorkerShared, held: InFlightTask, task: Task): Promise<boolean> {
  return (await readBegun(shared, held, task)) !== undefined
}

function begunFact(worker: string, held: InFlightTask, task: Task): FactDraft {
  const ids = { run: parseRunId(task.run).id, asset: assetName(task.asset) }
  const message = held.streamSeq
  if (task.kind === 'lease')
    return { name: 'scatter.begun', ids: { ...ids, lease: task.lease }, data: { worker, message } }
  // One instance, whose executions from its gate on are counted by themselves.
  if (task.kind === 'resume')
    return {
      name: 'scatter.begun',
      ids: { ...ids, lease: `${task.from.gate}-${task.ordinal}` },
      data: { worker, message },
    }
  if (task.kind === 'reminder') throw new FlowStoneError('internal', 'a reminder does not run alone')
  const data = { phase: task.kind, worker, delivery: held.count, message }
  return { name: 'asset.started', ids: { ...ids, pipeline: task.pipeline, attempt: String(task.attempt) }, data }
}

async function readBegun(
  shared: WorkerShared,
  held: InFlightTask,
  task: Task,
): Promise<{ message?: number } | undefined> {
  const { names, connection } = shared
  const { name, ids } = begunFact(shared.id, held, task)
  const path = factPath(name, ids)
  const found = await connection.read((nc) =>
    leaderGet(nc, names.log(held.shard), { last_by_subj: names.fact(held.shard, path) }),
  )
  const fact = found && factOf(names, held.shard, found)
  if (fact?.name !== 'scatter.begun' && fact?.name !== 'asset.started') return undefined
  return fact.data.message === undefined ? {} : { message: fact.data.message }
}

/** What a worker says of a task that is to run alone. `held`: all tasks that it holds. */
export function isolationText(
  what: 'soon' | 'late' | 'long',
  limitMs: number,
  held: Iterable<{ readonly task: Task }>,
): string {
  const tasks = [...held].map(({ task }) => task)
  const texts = (alone: boolean): string =>
    tasks
      .filter((task) => (task.alone ?? false) === alone)
      .map(({ asset, run }) => `${asset} (run ${run})`)
      .slice(0, 5)
      .join(', ')
  const [lone, others] = [texts(true), texts(false)]
  if (what === 'soon')
    return `this worker takes no new work: ${lone} has lost a worker before and is to run alone; it waits for ${others} to end, ${limitMs} ms at the most`
  if (what === 'late')
    return `${lone} was to run alone, but ${others} did not end within ${limitMs} ms; it runs beside that. Give the asset a timeout`
  return `${lone} runs alone for ${limitMs} ms now; this worker takes other work beside it. Give the asset a timeout`
}
