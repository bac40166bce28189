/**
 * One lease in this worker's hands. It begins the instances as there is room for them, and hands
 * back what waits too long. It ends when the report holds all that it began.
 */
import { setImmediate } from 'node:timers/promises'
import type { LeaseTask } from '../../../streams/tasks.ts'
import type { Limits } from '../../define/limits.ts'
import { emit, type LeaseCounts } from '../../telemetry.ts'
import type { LimitedStart } from '../attempt/limits.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { HandBack } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import type { Slots, Turn } from '../pull/slots.ts'
import { type Ahead, aheadOf, askersOf, quickTurnMs } from './ahead.ts'
import { InstanceRunner, type LeaseParts } from './instances.ts'
import { returnLease } from './lease-facts.ts'
import type { Report } from './report.ts'

/**
 * A lease is cut to last some 80 ms, of a limited queue twice that. After this long, what it has
 * not begun is handed back.
 */
const LONG_MS = 150
/**
 * … and after this long already where all slots of this process are taken, and none became free
 * lately.
 */
const BLOCKED_MS = 40
const TURN_MS = 20
const LOOK_MS = 20
const LIMITED_LOOK_MS = 50
const YIELD_MS = 20
/**
 * So long an instance of a quick rate is not begun while as many as may wait here for limits. An
 * instance that is sent away comes back in a message of its own; the rest of a lease goes back in
 * one.
 */
const CROWDED_MS = 100
/** A lease counts as at most so many times what its instances took. */
const OVERHEAD_MAX = 8

export class LeaseRun {
  readonly #shared: WorkerShared
  readonly #held: InFlightTask
  readonly #task: LeaseTask
  readonly #limits: Limits | undefined
  /** Of a quick rate that all instances share: milliseconds from one turn to the next. */
  readonly #turnMs: number | undefined
  readonly #ahead: Ahead
  readonly #report: Report
  readonly #instances: InstanceRunner
  readonly #signal: AbortSignal
  readonly #slots: Slots
  /** Of a limited queue: what its leases hold of it. */
  readonly #places: Slots | undefined
  readonly #startedMs: number
  #yieldedMs: number
  /** The instance to begin next, and the one behind the last: closer when some are handed back. */
  #next: number
  #end: number
  /** Instances that were begun and have not ended. */
  readonly #running = new Set<Promise<void>>()
  #broken: { readonly error: unknown } | undefined
  /** What is in hand for the next instance. */
  #hasSlot = false
  #hasPlace = false
  #turn: Turn | undefined
  #handingBack: Promise<void> | undefined
  /** How long it lasted says nothing: it was ended, or has run nothing. */
  #cut = false
  /** Instances that wait for their turn at the rate. */
  #asking = 0
  /** Nothing but such instances is here since then, and was here for so long before. */
  #idleSinceMs: number | undefined
  #idleMs = 0

  constructor(parts: LeaseParts, places: Slots | undefined) {
    const { shared, held, task, asset, report, startedMs } = parts
    this.#shared = shared
    this.#held = held
    this.#task = task
    this.#limits = asset.definition.limits
    this.#turnMs = places ? undefined : quickTurnMs(asset.definition.limits)
    this.#ahead = aheadOf(asset)
    this.#report = report
    this.#instances = new InstanceRunner(parts)
    this.#signal = held.abort.signal
    this.#slots = shared.slots
    this.#places = places
    this.#startedMs = startedMs
    this.#yieldedMs = startedMs
    this.#next = task.from
    this.#end = task.to
  }

  /** Returns when all of it is stored. */
  async run(): Promise<void> {
    const look = (): void => {
      void this.#report.flushIfDue(performance.now())
      this.#handBackIfLong()
      // Nobody waits for it: it must not wait for the end of other code.
      if (this.#signal.aborted) this.#turn?.cancelWait()
    }
    const looking = setInterval(look, this.#task.serial ? LIMITED_LOOK_MS : LOOK_MS)
    try {
      await this.#beginAll()
      this.#giveRoom()
      await Promise.all(this.#running)
      if (this.#broken) throw this.#broken.error
    } finally {
      this.#giveRoom()
      clearInterval(looking)
    }
    await this.#finish()
  }

  /** `error`: the first of those that failed. */
  get counts(): LeaseCounts & { readonly error?: unknown } {
    return { instances: this.#end - this.#task.from, ...this.#instances.counts }
  }

  /** Code that never waits is begun and ended here, without a promise. */
  async #beginAll(): Promise<void> {
    const instances = this.#instances
    while (this.#next < this.#end) {
      const most = this.#turnMs === undefined ? 0 : askersOf(this.#ahead, this.#slots)
      if (this.#turnMs !== undefined && this.#shared.waiters.isFull(most)) {
        this.#giveRoom()
        await this.#shared.waiters.room(CROWDED_MS, most)
        if (this.#next >= this.#end) return
      }
      const ahead = this.#turnMs !== undefined && !this.#hasSlot && this.#asking < most ? { most } : undefined
      const mayBegin = ahead !== undefined || this.#takeRoom() || (await this.#waitForRoom())
      if (this.#signal.aborted) {
        this.#cut = true
        return
      }
      if (!mayBegin) return
      if (this.#held.paused) this.#handBackIfLong()
      // Handed back, perhaps while a slot was on its way here.
      if (this.#next >= this.#end) return
      const index = this.#next++
      const pending = this.#limits ? this.#runLimited(this.#limits, index, ahead) : instances.run(index)
      if (pending) this.#follow(index, pending)
      else this.#letOthersIn()
      if (this.#report.isDue(instances.nowMs)) {
        await this.#report.flushIfDue(instances.nowMs)
        instances.nowMs = performance.now()
      }
      if (instances.nowMs - this.#yieldedMs > YIELD_MS) {
        // Code that never waits must not keep signs of life, cancels and other tasks from their
        // turn.
        await setImmediate()
        instances.nowMs = performance.now()
        this.#yieldedMs = instances.nowMs
      }
    }
  }

  #runLimited(limits: Limits, index: number, ahead: LimitedStart['ahead']): Promise<void> {
    const instances = this.#instances
    if (this.#turnMs === undefined) return instances.runLimited(limits, index)
    let asks = true
    this.#asking += 1
    const onTurn = (): void => {
      if (!asks) return
      asks = false
      this.#asking -= 1
      this.#noteIdle()
    }
    return instances.runLimited(limits, index, { ...(ahead ? { ahead } : {}), onTurn }).finally(onTurn)
  }

  /** Keeps the time in which nothing but turns was waited for. */
  #noteIdle(): void {
    if (this.#turnMs === undefined) return
    const nowMs = performance.now()
    if (this.#idleSinceMs !== undefined) this.#idleMs += nowMs - this.#idleSinceMs
    this.#idleSinceMs = this.#asking > 0 && this.#asking === this.#running.size ? nowMs : undefined
  }

  /**
   * How long the lease lasted, for its size. Where it only waited for turns, a smaller one would
   * have waited as long. What counts then is how long the rate takes to let so many begin. On a
   * busy machine a lease lasts long, whatever its size: so much more than its instances took does
   * not count.
   */
  #heldFor(heldMs: number): number {
    if (!this.#limits) return Math.min(heldMs, OVERHEAD_MAX * this.#ownMs())
    if (this.#turnMs === undefined) return heldMs
    this.#noteIdle()
    return Math.max(heldMs - this.#idleMs, (this.#next - this.#task.from) * this.#turnMs)
  }

  /** How long its instances took so far, added up. */
  #ownMs(): number {
    let ms = this.#report.instancesMs
    if (this.#held.running.size === 0) return ms
    const nowMs = performance.now()
    for (const begunMs of this.#held.running.values()) ms += nowMs - begunMs
    return ms
  }

  /** False: there is none now. What it got of it is in hand. */
  #takeRoom(): boolean {
    if (this.#places && !this.#hasPlace) {
      if (!this.#places.tryTake()) return false
      this.#hasPlace = true
    }
    if (!this.#hasSlot) this.#hasSlot = this.#slots.tryTake()
    return this.#hasSlot
  }

  /** False: it waits no longer, as what was to be begun is handed back, or is not wanted. */
  async #waitForRoom(): Promise<boolean> {
    if (this.#places && !this.#hasPlace) {
      this.#hasPlace = await this.#turnOf(this.#places)
      if (!this.#hasPlace) return false
    }
    if (!this.#hasSlot) this.#hasSlot = this.#slots.tryTake() || (await this.#turnOf(this.#slots))
    return this.#hasSlot
  }

  async #turnOf(room: Slots): Promise<boolean> {
    this.#turn = room.turn()
    const granted = await this.#turn.granted
    this.#instances.nowMs = performance.now()
    return granted
  }

  /** An instance that ended at once leaves its room to the next one, unless others wait for it. */
  #letOthersIn(): void {
    if (this.#slots.waiting > 0) {
      this.#slots.give()
      this.#hasSlot = false
    }
    if (this.#places && this.#places.waiting > 0) {
      this.#places.give()
      this.#hasPlace = false
    }
  }

  #giveRoom(): void {
    if (this.#hasSlot) this.#slots.give()
    if (this.#hasPlace) this.#places?.give()
    this.#hasSlot = false
    this.#hasPlace = false
  }

  /** An instance that lasts keeps the room that was in hand. */
  #follow(index: number, pending: Promise<void>): void {
    this.#hasSlot = false
    this.#hasPlace = false
    const one = pending.finally(() => {
      if (!this.#limits) this.#slots.give()
      this.#places?.give()
      this.#held.running.delete(index)
      this.#running.delete(one)
      this.#noteIdle()
    })
    // Awaited in `run` with the others; by then one that was broken may be gone.
    one.catch((error: unknown) => {
      this.#broken ??= { error }
    })
    this.#running.add(one)
    this.#noteIdle()
    this.#instances.nowMs = performance.now()
  }

  /**
   * Instances that wait behind long ones go to whoever has room: a lease is meant to be short, and
   * this one is not. Also said when none is left to hand back, so that the engine has others work
   * on what comes next (a lease of one says nothing by it). And a paused scatter gets back what is
   * not begun; how long that took says nothing.
   */
  #handBackIfLong(): void {
    const { paused } = this.#held
    const { from, to } = this.#task
    const heldMs = performance.now() - this.#startedMs
    if (this.#handingBack || this.#signal.aborted || !(paused || this.#isLong(heldMs))) return
    if (this.#next >= this.#end && (paused || to - from === 1)) return
    if (this.#next === from) this.#cut = true
    this.#end = this.#next
    const rest = { from: this.#next, ...(paused ? {} : { heldMs: this.#heldFor(heldMs) }) }
    this.#handingBack = returnLease(this.#shared, this.#held, this.#task, rest)
    this.#handingBack.catch(() => undefined)
    this.#turn?.cancelWait()
  }

  #isLong(heldMs: number): boolean {
    if (heldMs >= (this.#task.serial ? 2 * LONG_MS : LONG_MS)) return true
    return heldMs >= BLOCKED_MS && this.#slots.free === 0 && !this.#slots.turnedOverWithin(TURN_MS)
  }

  async #finish(): Promise<void> {
    const cut = this.#cut || this.#instances.wasCut
    const heldMs = performance.now() - this.#startedMs
    await this.#report.end(cut ? undefined : this.#heldFor(heldMs))
    // If this was not stored, the lease is delivered again, and its next worker finds what is left.
    await this.#handingBack
    const { error: _, ...counts } = this.counts
    const { run, pipeline, asset } = this.#task
    emit('flowstone:lease.stop', { worker: this.#shared.id, run, pipeline, asset, ...counts, durationMs: heldMs })
    if (cut && this.#signal.reason instanceof HandBack) await returnLease(this.#shared, this.#held, this.#task)
  }
}
