/**
 * Room for user code: at most `size` pieces at a time in this process, first come, first served.
 */
import { onAbort } from '../../options/abort.ts'

export interface Turn {
  /** True when there is a slot for who waits, false after `leave`. */
  readonly granted: Promise<boolean>
  /** Waits no longer. A slot that was granted before stays granted. */
  cancelWait(): void
}

export class Slots {
  #size: number
  #used = 0
  /** Who gave up a place that is still in use. */
  #retiring: (() => void)[] = []
  #waiting: ((granted: boolean) => void)[] = []
  #onFree: (() => void) | undefined
  #givenMs = Number.NEGATIVE_INFINITY

  constructor(size: number) {
    this.#size = size
  }

  get size(): number {
    return this.#size
  }

  /**
   * One place more, for who waits or comes next. Who retires keeps the place that it waits for:
   * this one is another.
   */
  grow(): void {
    this.#size += 1
    if (this.#used >= this.#places) return
    const next = this.#waiting.shift()
    if (!next) return
    this.#used += 1
    next(true)
  }

  /** One place less: resolves when no more are in use than then may be. */
  shrink(): Promise<void> {
    this.#size -= 1
    return new Promise((resolve) => {
      this.#retiring.push(resolve)
      this.#retire()
    })
  }

  #retire(): void {
    while (this.#retiring.length > 0 && this.#used < this.#places) this.#retiring.shift()?.()
  }

  get free(): number {
    return this.#size - this.#used
  }

  /** Places that there are, those of who retires included. */
  get #places(): number {
    return this.#size + this.#retiring.length
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** Whether a slot became free within the last `ms`. */
  turnedOverWithin(ms: number): boolean {
    return performance.now() - this.#givenMs < ms
  }

  onFree(listener: () => void): void {
    this.#onFree = listener
  }

  /** True when taken at once; else await a `turn()`. */
  tryTake(): boolean {
    if (this.#used >= this.#places) return false
    this.#used += 1
    return true
  }

  turn(): Turn {
    const { promise: granted, resolve } = Promise.withResolvers<boolean>()
    this.#waiting.push(resolve)
    const leave = (): void => {
      const at = this.#waiting.indexOf(resolve)
      if (at < 0) return
      this.#waiting.splice(at, 1)
      resolve(false)
    }
    return { granted, cancelWait: leave }
  }

  give(): void {
    this.#givenMs = performance.now()
    const next = this.#used > this.#size ? undefined : this.#waiting.shift()
    // The slot goes from hand to hand, so nobody new overtakes who waits.
    if (next) next(true)
    else {
      this.#used -= 1
      this.#retire()
      this.#onFree?.()
    }
  }
}

/**
 * Waits for a slot. Rejects with the signal's reason when that is aborted first: what is not wanted
 * any more must not wait for the end of other code.
 */
export async function takeTurn(slots: Slots, signal?: AbortSignal): Promise<void> {
  const { granted, cancelWait } = slots.turn()
  const off = signal && onAbort(signal, cancelWait)
  try {
    if (!(await granted)) throw signal?.reason
  } finally {
    off?.()
  }
}

/**
 * A task's slot. It is for its code: whoever stores an outcome has left it to others. So the
 * outcomes of many tasks share a batch.
 */
export class Seat {
  readonly #slots: Slots
  #taken: boolean
  #takenMs = performance.now()
  #usedMs = 0

  /** `taken`: a slot that is in hand already. */
  constructor(slots: Slots, taken = false) {
    this.#slots = slots
    this.#taken = taken
  }

  /** How long the code has had it, all together. */
  get usedMs(): number {
    return this.#usedMs + (this.#taken ? performance.now() - this.#takenMs : 0)
  }

  /** Rejects with the signal's reason when that is aborted first. */
  async take(signal?: AbortSignal): Promise<void> {
    if (this.#taken) return
    if (!this.#slots.tryTake()) await takeTurn(this.#slots, signal)
    this.#taken = true
    this.#takenMs = performance.now()
  }

  /** Harmless twice. */
  give(): void {
    if (!this.#taken) return
    this.#usedMs = this.usedMs
    this.#taken = false
    this.#slots.give()
  }
}
