/** A slot in this process's hands. */
import { FlowStoneError } from '../../streams/errors.ts'

/** A lease is over for its holder this much before it is for the others: time to stop. Also covers what the two clocks may drift apart. */
const EARLY = 0.1

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
  #timer: NodeJS.Timeout | undefined
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
   * Grows with every slot that is taken in the bucket. Hand it to what the slot protects, and have that refuse whoever comes with a lower one than it has seen: a process
   * that stood still may believe for a moment that it still holds what others have by then.
   */
  get fence(): number {
    return this.#fence
  }

  /** Aborted when the lease was lost: it could not be renewed in time, or the bucket was reset. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Whether it is held as far as can be told here: not released, not lost, and its lease renewed lately enough. */
  get isHeld(): boolean {
    return this.#ended === undefined && performance.now() < this.#deadlineMs
  }

  /** Gives it back. Others may have it from then on. Safe to call twice. */
  async release(): Promise<void> {
    if (this.#ended) return
    this.#end('released')
    await this.#release(this)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  get dueMs(): number {
    return this.#ended ? Number.POSITIVE_INFINITY : this.#sinceMs + this.leaseMs / 3
  }

  /** Its lease was taken or renewed by a message sent at `sentMs`, so the server counts from then or later. */
  renewed(sentMs: number, fence?: number): void {
    this.#sinceMs = sentMs
    if (fence !== undefined) this.#fence = fence
    clearTimeout(this.#timer)
    if (!this.#ended) this.#timer = setTimeout(() => this.#check(), Math.max(0, this.#deadlineMs - performance.now()))
  }

  lost(): void {
    if (this.#ended) return
    this.#end('lost')
    const how = `slot ${this.id} of ${this.bucket} was lost: its lease of ${this.leaseMs} ms could not be renewed in time, or the bucket was reset`
    this.#abort.abort(new FlowStoneError('slot_lost', how))
    this.#onLost(this)
  }

  get #deadlineMs(): number {
    return this.#sinceMs + this.leaseMs * (1 - EARLY)
  }

  #check(): void {
    if (performance.now() >= this.#deadlineMs) this.lost()
    else this.renewed(this.#sinceMs)
  }

  #end(how: 'released' | 'lost'): void {
    this.#ended = how
    clearTimeout(this.#timer)
  }
}
