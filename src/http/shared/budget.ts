/**
 * Room for bodies that are being read, of all requests of a handler: senders that are slow must not
 * fill the memory, nor one of them the room of all.
 */

/** What one request takes of it. */
export interface BodyRoom {
  /** False when that is more than there is; it is taken all the same, until it is given back. */
  take(bytes: number): boolean
  give(bytes: number): void
}

export class BodyBudget {
  readonly #maxBytes: number
  readonly #shareBytes: number
  /** Only of those that send at this moment. */
  readonly #taken = new Map<string, number>()
  #bytes = 0

  /** `shareBytes`: the most that one sender may have of `maxBytes`. */
  constructor(maxBytes: number, shareBytes: number) {
    this.#maxBytes = maxBytes
    this.#shareBytes = shareBytes
  }

  roomOf(sender: string): BodyRoom {
    const add = (bytes: number): number => {
      const taken = (this.#taken.get(sender) ?? 0) + bytes
      this.#bytes += bytes
      if (taken === 0) this.#taken.delete(sender)
      else this.#taken.set(sender, taken)
      return taken
    }
    return {
      take: (bytes) => add(bytes) <= this.#shareBytes && this.#bytes <= this.#maxBytes,
      give: (bytes) => void add(-bytes),
    }
  }
}
