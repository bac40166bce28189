/**
 * One rate limit, as a process sees it. Callers are combined. While one update of the cell is in
 * flight, further callers queue. The next update serves all of them, in the order they came. So a
 * process has one update in flight, however many callers it has.
 *
 * If the answer to an update is lost, the process looks for the update's id in the cell. If it is
 * there, the update counts. If it is not, the process sends it again under the same expectation:
 * the server accepts only one. If later writes have removed the id, the callers ask again. What the
 * update may have taken then stays taken, which is safe.
 *
 * When several processes want a bucket at the same time, the refused ones send their callers to
 * the process whose update was stored (relay.ts). If it does not answer, the processes take turns:
 * a refused one reads and writes, and the one that wrote lets the others go first. Otherwise the
 * last writer would always win, because it need not read the cell.
 */
import {
  counted,
  decodeRateCell,
  emptyCell,
  encodeRateCell,
  lifeMs,
  type Rate,
  type RateCell,
  settled,
} from '../../projections/limits/rate-cell.ts'
import { type Answer, type Ask, round } from '../../projections/limits/rate-round.ts'
import { ConflictError, FlowStoneError } from '../../streams/errors.ts'
import { sleep } from '../options/timer.ts'
import type { Cells, StoredCell } from './cells.ts'
import type { Relay } from './relay.ts'

const BATCH_MAX = 2000
const CONTENDED_MS = 200
const PAUSE_MAX_MS = 20
/** A process that wrote within this time is active. */
const FRESH_MS = 100
/** After its last answer a leader is asked for so long. Then the process looks again who leads. */
const LEADER_MS = 500
/** How late a grant may be used. */
const LATE_MIN_MS = 100
const LATE_MAX_MS = 1000

/**
 * A grant is not used at all when its process was stalled and missed its time. Many of them would
 * make a burst.
 */
export function lateMs(rate: Rate): number {
  return Math.min(LATE_MAX_MS, Math.max(LATE_MIN_MS, rate.periodMs / 20))
}

export interface Caller {
  readonly rate: Rate
  readonly ask: Ask
  readonly queuedMs: number
  /** It asks for another process. */
  readonly remote: boolean
  /** The caller does not wait any more. */
  gone: boolean
  /** Whether a grant of it came too late once. */
  lapsed: boolean
  readonly settle: (answer: Answer | Error) => void
}

interface Known {
  readonly cell: RateCell
  readonly seq: number
  /** At this monotonic time the cell had this content, or a newer one. */
  readonly asOfMs: number
}

export class RateBucket {
  readonly name: string
  readonly #cells: Cells
  readonly #key: string
  readonly #writer: () => string
  readonly #relay: Relay
  #leader: { readonly process: string; untilMs: number } | undefined
  #servedMs = Number.NEGATIVE_INFINITY
  #queue: Caller[] = []
  #known: Known | undefined
  #running = false
  #contendedMs = 0
  #conflicts = 0
  #rttMs = 1

  /** `writer` gives an id of its own for each update: `<process>-<n>`. */
  constructor(name: string, cells: Cells, writer: () => string, relay: Relay) {
    this.name = name
    this.#cells = cells
    this.#key = cells.key('rate', name)
    this.#writer = writer
    this.#relay = relay
  }

  get idle(): boolean {
    return !this.#running
  }

  ask(caller: Caller): void {
    if (caller.remote) {
      // This process leads now, also for its own callers.
      this.#servedMs = performance.now()
      this.#leader = undefined
    }
    this.#queue.push(caller)
    if (this.#running) return
    this.#running = true
    void this.#run()
  }

  async #run(): Promise<void> {
    // Callers of the same tick share an update.
    await Promise.resolve()
    try {
      while (this.#next()) await this.#round()
    } catch (error) {
      this.#known = undefined
      const failure = error instanceof Error ? error : new FlowStoneError('internal', String(error))
      for (const caller of this.#queue.splice(0)) caller.settle(failure)
    }
    this.#running = false
  }

  #next(): boolean {
    if (this.#queue.some(({ gone }) => gone)) this.#queue = this.#queue.filter(({ gone }) => !gone)
    return this.#queue.length > 0
  }

  async #round(): Promise<void> {
    if (this.#leader) return await this.#handOver(this.#leader)
    const known = this.#known ?? (await this.#read())
    if (!known) {
      await this.#cells.retry()
      return
    }
    if (this.#leader) return
    const batch = this.#batch()
    const rate = batch[0]?.rate
    if (!rate) return
    const nowMs = this.#cells.clock.atLeast()
    const cell = fitting(known.cell, rate, nowMs)
    if (!cell) {
      // The bucket may have been reset since the others asked.
      const sure = batch.filter(({ queuedMs }) => queuedMs <= known.asOfMs)
      if (sure.length === 0) this.#known = undefined
      this.#settleAll(sure, conflicting(this.name, known.cell.rate))
      return
    }
    const write = this.#writer()
    const result = round(
      cell,
      rate,
      batch.map(({ ask }) => ask),
      nowMs,
      write,
    )
    const answered = batch.flatMap((caller, i) => {
      const answer = result.answers[i]
      return answer && answer.is !== 'next round' ? [{ caller, answer }] : []
    })
    if (!result.changed) {
      // A refusal must rest on a content that is newer than the question.
      const sure = answered.filter(({ caller, answer }) => answer.is === 'done' || caller.queuedMs <= known.asOfMs)
      if (sure.length === 0) this.#known = undefined
      this.#deliver(sure, undefined)
      return
    }
    const sentMs = performance.now()
    const stored = await this.#store(result.cell, known.seq, write, nowMs)
    if (!stored) return
    this.#known = { cell: stored.cell, seq: stored.seq, asOfMs: sentMs }
    this.#deliver(answered, stored.sentMs ?? sentMs)
    await this.#letOthersGo()
  }

  /** The callers at the front of the queue that have the same rate. */
  #batch(): Caller[] {
    const [first] = this.#queue
    if (!first) return []
    let end = 1
    while (end < Math.min(this.#queue.length, BATCH_MAX) && sameRate(this.#queue[end]?.rate, first.rate)) end += 1
    return this.#queue.slice(0, end)
  }

  async #read(): Promise<Known | undefined> {
    const askedMs = performance.now()
    const { clock } = this.#cells
    const [found] = await Promise.all([this.#cells.read(this.#key), clock.ready()])
    if (!found) return undefined
    this.#known = { ...this.#decoded(found), asOfMs: askedMs }
    this.#findLeader(this.#known.cell, found.timeMs)
    return this.#known
  }

  /** After a conflict: the last writer, if it is another process that wrote just now. */
  #findLeader({ writes }: RateCell, timeMs: number): void {
    const nowMs = performance.now()
    if (this.#conflicts === 0 || this.#leads(nowMs) || this.#cells.clock.now() - timeMs > FRESH_MS) return
    const process = processOf(writes.at(-1) ?? '')
    if (process !== '' && process !== this.#relay.id) this.#leader = { process, untilMs: nowMs + LEADER_MS }
  }

  #leads(nowMs: number): boolean {
    return nowMs - this.#servedMs < CONTENDED_MS
  }

  /** Lets another process answer, together with its own callers. */
  async #handOver(leader: { readonly process: string; untilMs: number }): Promise<void> {
    const batch = this.#batch().filter(({ remote }) => !remote)
    const rate = batch[0]?.rate
    const sentMs = performance.now()
    this.#known = undefined
    const asks = batch.map(({ ask }) => ask)
    const answers =
      rate && sentMs < leader.untilMs
        ? await this.#relay.ask(leader.process, this.name, rate, asks, this.#cells.clock.now())
        : undefined
    if (!answers) {
      this.#leader = undefined
      this.#conflicts = 0
      return
    }
    leader.untilMs = performance.now() + LEADER_MS
    const answered = batch.flatMap((caller, i) => {
      const answer = answers[i]
      return answer ? [{ caller, answer }] : []
    })
    this.#deliver(answered, sentMs)
  }

  #decoded({ payload, seq, timeMs }: StoredCell): Omit<Known, 'asOfMs'> {
    const [first] = this.#queue
    if (!payload) {
      const none: Rate = { shape: 'window', limit: 1, periodMs: 1, burst: 1 }
      return { cell: emptyCell(first?.rate ?? none), seq }
    }
    const cell = decodeRateCell(payload)
    if (!cell)
      throw new FlowStoneError(
        'newer_version',
        `limit ${this.name} was written by a newer FlowStone; upgrade this one, or reset the limit`,
      )
    return { cell: settled(cell, timeMs), seq }
  }

  /** Undefined if the update was not stored. Then the round begins again. */
  async #store(
    cell: RateCell,
    expectSeq: number,
    write: string,
    nowMs: number,
  ): Promise<(Omit<Known, 'asOfMs'> & { readonly sentMs?: number | undefined }) | undefined> {
    const wish = { key: this.#key, payload: encodeRateCell(cell), expectSeq, lifeMs: lifeMs(cell, nowMs) }
    const stored = await this.#cells.store(
      wish,
      (payload) => decodeRateCell(payload)?.writes.includes(write) ?? false,
      () => this.#next(),
    )
    if (stored === 'conflict') return await this.#conflicted()
    if (stored === 'lost') {
      this.#known = undefined
      return undefined
    }
    this.#conflicts = 0
    if (stored.sentMs === undefined) return this.#decoded(stored.found)
    this.#rttMs = this.#rttMs * 0.8 + (performance.now() - stored.sentMs) * 0.2
    return { cell: settled(cell, this.#cells.clock.atMost()), seq: stored.seq, sentMs: stored.sentMs }
  }

  async #conflicted(): Promise<undefined> {
    this.#known = undefined
    this.#conflicts += 1
    this.#contendedMs = performance.now()
    // The first time at once: whoever was first lets this one go next.
    if (this.#conflicts > 1) await sleep(Math.random() * Math.min(PAUSE_MAX_MS, this.#rttMs * this.#conflicts))
    return undefined
  }

  /**
   * After an update, where others want the same cell: as many updates' time as there are others.
   */
  async #letOthersGo(): Promise<void> {
    const nowMs = performance.now()
    if (nowMs - this.#contendedMs > CONTENDED_MS || this.#leads(nowMs) || !this.#known) return
    const writers = new Set(this.#known.cell.writes.map(processOf))
    if (writers.size > 1) this.#contendedMs = performance.now()
    this.#known = undefined
    await sleep(Math.min(PAUSE_MAX_MS, this.#rttMs * (writers.size - 1) * (0.75 + Math.random() / 2)))
  }

  #deliver(answered: readonly { caller: Caller; answer: Answer }[], sentMs: number | undefined): void {
    const done = new Set<Caller>()
    const tookMs = sentMs === undefined ? 0 : performance.now() - sentMs
    for (const { caller, answer } of answered) {
      const late = answer.is === 'granted' && caller.ask.kind !== 'peek' && tookMs > lateMs(caller.rate)
      if (late && !caller.lapsed) {
        // Granted when it was stored, which is long ago by now. Once: a slow server must not starve
        // anybody.
        caller.lapsed = true
        continue
      }
      done.add(caller)
      caller.settle(answer)
    }
    this.#queue = this.#queue.filter((caller) => !done.has(caller))
  }

  #settleAll(batch: readonly Caller[], error: Error): void {
    const failed = new Set(batch)
    this.#queue = this.#queue.filter((caller) => !failed.has(caller))
    for (const caller of batch) caller.settle(error)
  }
}

function processOf(write: string): string {
  return write.slice(0, Math.max(0, write.lastIndexOf('-')))
}

/**
 * The cell as this rate can continue it. Undefined while grants of the other shape count, because
 * neither shape can be expressed in the other.
 */
function fitting(cell: RateCell, rate: Rate, nowMs: number): RateCell | undefined {
  if (cell.rate.shape === rate.shape) return cell
  const { count, waiting } = counted(cell, nowMs)
  return count + waiting > 0 ? undefined : { ...emptyCell(rate), writes: cell.writes }
}

function conflicting(bucket: string, { shape, limit, periodMs }: Rate): ConflictError {
  return new ConflictError(
    `limit ${bucket} is in use as a ${shape} rate of ${limit} in ${periodMs} ms; say shape: '${shape}', use another bucket, or reset it`,
  )
}

function sameRate(a: Rate | undefined, b: Rate): boolean {
  return (
    a === b ||
    (a !== undefined && a.shape === b.shape && a.limit === b.limit && a.periodMs === b.periodMs && a.burst === b.burst)
  )
}
