/** Room for user code: at most `size` pieces at a time in this process, first come, first served. */
export class Slots {
  readonly size: number
  #used = 0
  #waiting: (() => void)[] = []
  #onFree: (() => void) | undefined

  constructor(size: number) {
    this.size = size
  }

  get free(): number {
    return this.size - this.#used
  }

  get waiting(): number {
    return this.#waiting.length
  }

  onFree(listener: () => void): void {
    this.#onFree = listener
  }

  /** True when taken at once; else await `turn()`. */
  tryTake(): boolean {
    if (this.#used >= this.size) return false
    this.#used += 1
    return true
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  give(): void {
    const next = this.#waiting.shift()
    // The slot goes from hand to hand, so nobody new overtakes who waits.
    if (next) next()
    else {
      this.#used -= 1
      this.#onFree?.()
    }
  }
}
