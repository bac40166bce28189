/**
 * One by one what comes in lists: what is there already costs its reader one turn, and not the
 * several of a generator.
 */
export function flat<T>(batches: AsyncGenerator<T[]>): AsyncGenerator<T> {
  return new Flat(batches)
}

class Flat<T> implements AsyncGenerator<T, undefined> {
  readonly #batches: AsyncGenerator<T[]>
  #batch: readonly T[] = []
  #at = 0
  /** How many ask for what is not there yet. Whoever comes after them gets what is behind it. */
  #asking = 0
  #asked: Promise<unknown> = Promise.resolve()

  constructor(batches: AsyncGenerator<T[]>) {
    this.#batches = batches
  }

  // No async function, and no closures: there is a call for each result.
  next(): Promise<IteratorResult<T, undefined>> {
    const value = this.#asking > 0 ? undefined : this.#batch[this.#at]
    if (value === undefined) return this.#ask()
    this.#at += 1
    return Promise.resolve({ done: false, value })
  }

  #ask(): Promise<IteratorResult<T, undefined>> {
    const before = this.#asking > 0 ? this.#asked : undefined
    const asked = this.#nextAfter(before)
    this.#asked = asked.catch(() => undefined)
    return asked
  }

  async #nextAfter(before: Promise<unknown> | undefined): Promise<IteratorResult<T, undefined>> {
    this.#asking += 1
    try {
      await before
      while (this.#at >= this.#batch.length) {
        const next = await this.#batches.next()
        if (next.done) return { done: true, value: undefined }
        this.#batch = next.value
        this.#at = 0
      }
      return { done: false, value: this.#batch[this.#at++] as T }
    } finally {
      this.#asking -= 1
    }
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#batch = []
    await this.#batches.return(undefined)
    return { done: true, value: undefined }
  }

  async throw(error: unknown): Promise<IteratorResult<T, undefined>> {
    this.#batch = []
    await this.#batches.throw(error)
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }
}
