/**
 * Requests that wait for the end of a run. Each holds a connection and listens for its run, so
 * there are only so many at a time, of all clients and of one.
 */

const WAITS_MAX = 1000
const WAITS_OF_KEY_MAX = 100

export class Waits {
  readonly #ofKey = new Map<string, number>()
  #all = 0

  /** What ends a place that was taken; undefined: there is none free. */
  take(key: string): Disposable | undefined {
    const taken = this.#ofKey.get(key) ?? 0
    if (this.#all >= WAITS_MAX || taken >= WAITS_OF_KEY_MAX) return undefined
    this.#add(key, 1)
    return { [Symbol.dispose]: () => this.#add(key, -1) }
  }

  #add(key: string, count: 1 | -1): void {
    const taken = (this.#ofKey.get(key) ?? 0) + count
    this.#all += count
    if (taken === 0) this.#ofKey.delete(key)
    else this.#ofKey.set(key, taken)
  }
}
