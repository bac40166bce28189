/** Things under way, of which one can wait for all that were begun before now. */
export class InFlight {
  readonly #open = new Set<Promise<void>>()

  get size(): number {
    return this.#open.size
  }

  add(work: Promise<void>): void {
    this.#open.add(work)
    void work.finally(() => this.#open.delete(work))
  }

  /** Resolves when all that is open now has ended; what is added meanwhile is not waited for. */
  async drain(): Promise<void> {
    await Promise.all([...this.#open])
  }
}
