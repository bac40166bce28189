/** A slot that this process holds. */
import { FlowStoneError } from '../../streams/errors.ts'
import { after, atMost, type Timer } from '../options/timer.ts'

/**
 * The holder treats a lease as expired this much earlier than other processes do. So it has time
 * to stop. This also covers the drift between the two clocks.
 */
const EARLY = 0.1

/** How long a finished caller waits until its slot is free for others. */
const RELEASE_WAIT_MS = 250

/**
 * The monotonic time until which a holder may rely on a lease. The message that took or renewed it
 * was sent at `sentMs`.
 */
export function deadlineMs(sentMs: number, leaseMs: number): number {
  return sentMs + leaseMs * (1 - EARLY)
}

/** A slot that is held until `release`. It is renewed while its process lives. */
export class Slot {
  readonly bucket: string
  readonly id: string
  readonly weight: number
  readonly leaseMs: number
  readonly #release: (slot: Slot) => Promise<void>
  readonly #onLost: (slot: Slot) => void
  readonly #abort = new AbortController()
  readonly takenMs = performance.now()
  #fence = 0
  #sinceMs = 0
  #timer: Timer | undefined
  #ended: 'released' | 'lost' | undefined

  constructor(
    wish: { readonly bucket: string; readonly id: string; readonly weight: number; readonly leaseMs: number },
    release: (slot: Slot) => Promise<void>,
    onLost: (slot: Slot) => void,
  ) {
    this.bucket = wish.bucket
    this.id = wish.id
    this.weight = wish.weight
    this.leaseMs = wish.leaseMs
    this.#release = release
    this.#onLost = onLost
  }

  /**
   * Grows with every slot that is taken in the bucket. Pass it to the protected resource, and let
   * that refuse a fence lower than one it has seen. A process that was stalled may believe for a
   * moment that it still holds a slot that others have by then.
   */
  get fence(): number {
    return this.#fence
  }

  /** Aborted when the lease was lost: it could not be renewed in time, or the bucket was reset. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /**
   * Whether it is held, as far as this process knows: not released, not lost, and its lease renewed
   * recently enough.
   */
  get isHeld(): boolean {
    return this.#ended === undefined && performance.now() < this.#deadlineMs
  }

  /**
   * Throws FlowStoneError `slot_lost` unless it is held: to be called right before what the slot
   * protects.
   */
  throwIfLost(): void {
    if (!this.#ended && performance.now() >= this.#deadlineMs) this.lost()
    this.#abort.signal.throwIfAborted()
  }

  /**
   * Gives it back. Others may have it from then on. Resolves when that is stored, which may take as
   * long as NATS is away. Safe to call twice.
   */
  async release(): Promise<void> {
    if (this.#ended) return
    this.#end('released')
    await this.#release(this)
  }

  /** As `release`, and waits for it a moment only: whoever has a result does not wait for NATS. */
  async releaseSoon(): Promise<void> {
    await atMost(RELEASE_WAIT_MS, this.release())
  }

  /** The same as `release`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  get dueMs(): number {
    return this.#ended ? Number.POSITIVE_INFINITY : this.#sinceMs + this.leaseMs / 3
  }

  /**
   * Its lease was taken or renewed by a message sent at `sentMs`, so the server counts from then or
   * later.
   */
  renewed(sentMs: number, fence?: number): void {
    this.#sinceMs = sentMs
    if (fence !== undefined) this.#fence = fence
    this.#timer?.cancel()
    if (!this.#ended) this.#timer = after(Math.max(0, this.#deadlineMs - performance.now()), () => this.#check())
  }

  /** For FlowStone itself: the slot is not held any more, so `signal` is aborted. */
  lost(): void {
    if (this.#ended) return
    this.#end('lost')
    const how = `slot ${this.id} of ${this.bucket} was lost: its lease of ${this.leaseMs} ms could not be renewed in time, or the bucket was reset`
    this.#abort.abort(new FlowStoneError('slot_lost', how))
    this.#onLost(this)
  }

  get #deadlineMs(): number {
    return deadlineMs(this.#sinceMs, this.leaseMs)
  }

  #check(): void {
    if (performance.now() >= this.#deadlineMs) this.lost()
    else this.renewed(this.#sinceMs)
  }

  #end(how: 'released' | 'lost'): void {
    this.#ended = how
    this.#timer?.cancel()
  }
}
