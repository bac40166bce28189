/**
 * One bucket of slots, as a process sees it. One update of the cell does all that the process
 * wants: it releases slots, renews leases, takes slots for callers and queues the process. Between
 * updates the process sleeps. It wakes when the cell changes (a watch), when a lease ends or its
 * turn comes (a timer), and after `LOOK_MS` at the latest.
 */
import {
  decodeSlotCell,
  emptySlots,
  encodeSlotCell,
  lookAgainMs,
  queueUp,
  readiedSlots,
  releaseSlot,
  renewSlot,
  SAID_CHARS,
  SAID_WAITING,
  type SlotCell,
  settledSlots,
  slotsLifeMs,
  takeSlots,
} from '../../projections/limits/slot-cell.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { cut } from '../../streams/text.ts'
import { after, sleep, type Timer } from '../options/timer.ts'
import { emit } from '../telemetry.ts'
import { type Cells, closed, type StoredCell } from './cells.ts'
import { deadlineMs, Slot } from './slot.ts'

const LOOK_MS = 5000
/** A watch costs a consumer, so it is kept for callers that come soon. */
const UNWATCH_MS = 5000
const PAUSE_MAX_MS = 20

export interface SlotWish {
  readonly bucket: string
  readonly max: number
  readonly weight: number
  readonly leaseMs: number
  /** What it is for. */
  readonly by?: string
  /** Whether it waits for a slot. If not, it wants one now or not at all. */
  readonly waits: boolean
}

export interface SlotCaller {
  readonly wish: SlotWish
  /** The id of its slot. Each time it has to ask again, it gets a new one. */
  id: string
  readonly queuedMs: number
  gone: boolean
  readonly settle: (answer: Slot | 'at_capacity' | Error) => void
}

interface Known {
  readonly cell: SlotCell
  readonly seq: number
  readonly asOfMs: number
}

interface Leaving {
  readonly id: string
  readonly done: () => void
}

export class SlotBucket {
  readonly name: string
  readonly #cells: Cells
  readonly #key: string
  readonly #process: string
  readonly #writer: () => string
  readonly #held = new Map<string, Slot>()
  #callers: SlotCaller[] = []
  #leaving: Leaving[] = []
  #known: Known | undefined
  #queued = false
  #running = false
  /** Whether something happened that may let a waiter go. */
  #stirred = false
  /** The cell may have a newer content. */
  #doubted = false
  #conflicts = 0
  #contactMs = 0
  #timer: Timer | undefined
  #unwatch: (() => void) | undefined
  #unwatchTimer: NodeJS.Timeout | undefined

  constructor(name: string, cells: Cells, process: string, writer: () => string) {
    this.name = name
    this.#cells = cells
    this.#key = cells.key('slots', name)
    this.#process = process
    this.#writer = writer
  }

  get idle(): boolean {
    return !this.#running && this.#held.size + this.#callers.length + this.#leaving.length === 0
  }

  /** When the server last answered for this bucket; monotonic. */
  get contactMs(): number {
    return this.#contactMs
  }

  get held(): Slot[] {
    return [...this.#held.values()]
  }

  ask(caller: SlotCaller): void {
    this.#callers.push(caller)
    this.#stir()
  }

  /** A caller that does not wait any more leaves the queue. */
  left(caller: SlotCaller): void {
    caller.gone = true
    this.#stir()
  }

  /** Whoever waits hears that it is closed. A slot that is on its way there is given back. */
  close(): void {
    this.#timer?.cancel()
    this.#endWatch()
    for (const caller of this.#callers) {
      caller.gone = true
      caller.settle(closed())
    }
  }

  #release(id: string): Promise<void> {
    return new Promise((done) => {
      this.#leaving.push({ id, done })
      this.#stir()
    })
  }

  #stir(): void {
    this.#stirred = true
    if (this.#running) return
    this.#running = true
    void this.#run()
  }

  async #run(): Promise<void> {
    await Promise.resolve()
    try {
      while (this.#hasWork()) await this.#round()
    } catch (error) {
      this.#known = undefined
      const failure = error instanceof Error ? error : new FlowStoneError('internal', String(error))
      for (const caller of this.#callers.splice(0)) caller.settle(failure)
      for (const { done } of this.#leaving.splice(0)) done()
    }
    this.#running = false
    this.#rest()
  }

  #hasWork(): boolean {
    if (this.#callers.some(({ gone }) => gone)) this.#callers = this.#callers.filter(({ gone }) => !gone)
    return this.#stirred || this.#leaving.length > 0 || this.#due().length > 0
  }

  #due(): Slot[] {
    const nowMs = performance.now()
    return [...this.#held.values()].filter(({ dueMs }) => dueMs <= nowMs)
  }

  async #round(): Promise<void> {
    this.#stirred = false
    if (this.#doubted) this.#known = undefined
    this.#doubted = false
    const known = this.#known ?? (await this.#read())
    if (!known) {
      this.#stirred = true
      await this.#cells.retry()
      return
    }
    const nowMs = this.#cells.clock.atLeast()
    const cell: SlotCell = { ...known.cell }
    const { leaving, renewed, missing, taken, full, changed } = this.#plan(cell, nowMs)
    for (const slot of missing) slot.lost()
    // A refusal must rest on a content that is newer than the question.
    const sure = full.filter(({ queuedMs }) => queuedMs <= known.asOfMs)
    if (!changed) {
      this.#answerFull(sure)
      this.#left(leaving)
      if (full.length > sure.length) {
        this.#known = undefined
        this.#stirred = true
      }
      return
    }
    const sentMs = performance.now()
    const write = this.#writer()
    const ready = readiedSlots(cell, known.cell, nowMs, write)
    const seq = await this.#store(ready, known.seq, write, nowMs, sentMs)
    if (seq === undefined) {
      this.#stirred = true
      return
    }
    this.#left(leaving)
    for (const slot of renewed) slot.renewed(sentMs)
    for (const caller of taken) this.#give(caller, sentMs)
    this.#answerFull(full)
  }

  /**
   * Changes the draft to what this process wants, in this order: release, renew, take, queue.
   */
  #plan(cell: SlotCell, nowMs: number) {
    const leaving = [...this.#leaving]
    const taken: SlotCaller[] = []
    const full: SlotCaller[] = []
    let changed = false
    for (const { id } of leaving) changed = releaseSlot(cell, id) || changed
    const renewed = this.#due().filter(({ id }) => renewSlot(cell, id))
    const missing = this.#due().filter((slot) => !renewed.includes(slot))
    let waiting: SlotCaller[] = []
    for (const caller of this.#callers) {
      const { id, wish } = caller
      if (waiting.length === 0 && takeSlots(cell, { ...wish, id, process: this.#process }, nowMs)) taken.push(caller)
      else if (wish.waits) waiting = [...waiting, caller]
      else full.push(caller)
    }
    const [first] = waiting
    const place = first && {
      weight: first.wish.weight,
      max: first.wish.max,
      waiting: waiting.length,
      by: saidOf(waiting),
    }
    const moved = queueUp(cell, this.#process, place, nowMs)
    this.#queued = first !== undefined
    changed = changed || renewed.length > 0 || taken.length > 0 || moved
    return { leaving, renewed, missing, taken, full, changed }
  }

  async #store(
    cell: SlotCell,
    expectSeq: number,
    write: string,
    nowMs: number,
    sentMs: number,
  ): Promise<number | undefined> {
    const wish = { key: this.#key, payload: encodeSlotCell(cell), expectSeq, lifeMs: slotsLifeMs(cell, nowMs) }
    const stored = await this.#cells.store(
      wish,
      (payload) => decodeSlotCell(payload)?.writes.includes(write) ?? false,
      () => this.#held.size + this.#leaving.length + this.#callers.filter(({ gone }) => !gone).length > 0,
    )
    this.#known = undefined
    if (stored === 'conflict' || stored === 'lost') {
      this.#conflicts += 1
      if (this.#conflicts > 1) await sleep(Math.random() * Math.min(PAUSE_MAX_MS, this.#conflicts), undefined)
      return undefined
    }
    this.#conflicts = 0
    this.#contactMs = performance.now()
    if (stored.sentMs === undefined) this.#known = { ...this.#decoded(stored.found), asOfMs: sentMs }
    else
      this.#known = {
        cell: settledSlots(cell, this.#cells.clock.atMost(), stored.seq),
        seq: stored.seq,
        asOfMs: sentMs,
      }
    return stored.seq
  }

  #give(caller: SlotCaller, sentMs: number): void {
    const { id, wish } = caller
    this.#callers = this.#callers.filter((other) => other !== caller)
    const fence = this.#known?.cell.holders.find((holder) => holder.id === id)?.fence
    if (fence === undefined || performance.now() >= deadlineMs(sentMs, wish.leaseMs)) {
      this.#askAgain(caller)
      return
    }
    const slot = new Slot(
      { ...wish, id },
      (slot) => this.#end(slot, false),
      // Releases it if it is still there, so that nobody waits for its end.
      (slot) => void this.#end(slot, true),
    )
    this.#held.set(id, slot)
    slot.renewed(sentMs, fence)
    if (caller.gone) void slot.release()
    else caller.settle(slot)
  }

  /**
   * The answer came so late that the lease has expired, or nearly. Others may have the slot by now.
   * The slot is released if it is still there. The caller asks for another one, before all other
   * callers of this process.
   */
  #askAgain(caller: SlotCaller): void {
    this.#leaving.push({ id: caller.id, done: () => undefined })
    if (caller.gone) return
    caller.id = `${caller.id}+`
    this.#callers.unshift(caller)
    this.#stirred = true
  }

  #end(slot: Slot, lost: boolean): Promise<void> {
    const { bucket, id, weight, fence } = slot
    const durationMs = performance.now() - slot.takenMs
    emit('flowstone:rate_limit.slot_released', { bucket, slot: id, weight, fence, durationMs, lost })
    this.#held.delete(id)
    return this.#release(id)
  }

  #answerFull(callers: readonly SlotCaller[]): void {
    const done = new Set(callers)
    this.#callers = this.#callers.filter((caller) => !done.has(caller))
    for (const caller of callers) caller.settle('at_capacity')
  }

  #left(leaving: readonly Leaving[]): void {
    const done = new Set(leaving)
    this.#leaving = this.#leaving.filter((each) => !done.has(each))
    for (const each of leaving) each.done()
  }

  async #read(): Promise<Known | undefined> {
    const asOfMs = performance.now()
    const [found] = await Promise.all([this.#cells.read(this.#key), this.#cells.clock.ready()])
    if (!found) return undefined
    this.#contactMs = performance.now()
    this.#known = { ...this.#decoded(found), asOfMs }
    return this.#known
  }

  #decoded({ payload, seq, timeMs }: StoredCell): Omit<Known, 'asOfMs'> {
    if (!payload) return { cell: emptySlots(), seq }
    const cell = decodeSlotCell(payload)
    if (cell) return { cell: settledSlots(cell, timeMs, seq), seq }
    throw new FlowStoneError(
      'newer_version',
      `slots ${this.name} were written by a newer FlowStone; upgrade this one, or reset the bucket`,
    )
  }

  /** Sleeps until there is something to do. */
  #rest(): void {
    this.#timer?.cancel()
    const dues = [...this.#held.values()].map(({ dueMs }) => dueMs)
    let untilMs = Math.min(...dues)
    if (this.#queued) {
      this.#watch()
      untilMs = Math.min(untilMs, performance.now() + this.#lookIn())
    } else if (this.#unwatch && !this.#unwatchTimer) {
      this.#unwatchTimer = setTimeout(() => this.#endWatch(), UNWATCH_MS)
    }
    if (untilMs === Number.POSITIVE_INFINITY) return
    this.#timer = after(Math.max(1, Math.ceil(untilMs - performance.now())), () => this.#stir())
  }

  #lookIn(): number {
    const [first] = this.#callers
    if (!this.#known || !first) return LOOK_MS
    const nowMs = this.#cells.clock.atLeast()
    const inMs = lookAgainMs(this.#known.cell, this.#process, first.wish.max, nowMs) - nowMs
    if (inMs < LOOK_MS) return inMs
    // Otherwise it wakes for changes that the watch missed.
    this.#known = undefined
    return LOOK_MS
  }

  #watch(): void {
    clearTimeout(this.#unwatchTimer)
    this.#unwatchTimer = undefined
    this.#unwatch ??= this.#cells.watch(this.#key, (found) => {
      if (!this.#queued) return
      // An older content than the known one is ignored.
      if (found && this.#known && found.seq <= this.#known.seq) return
      // During an update nobody knows which is newer. The cell is read after it.
      if (this.#running) this.#doubted = true
      else this.#known = found && { ...this.#decoded(found), asOfMs: 0 }
      this.#stir()
    })
  }

  #endWatch(): void {
    clearTimeout(this.#unwatchTimer)
    this.#unwatchTimer = undefined
    this.#unwatch?.()
    this.#unwatch = undefined
  }
}

/** What the first callers want it for, for whoever looks at the bucket. */
function saidOf(waiting: readonly SlotCaller[]): string[] {
  return waiting.slice(0, SAID_WAITING).flatMap(({ wish: { by } }) => (by ? [cut(by, SAID_CHARS)] : []))
}
