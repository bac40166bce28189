/**
 * The messages of the log as facts, each with the documents that it needs. A document that is not
 * in memory costs a round trip to the bucket. When one fact misses a document, the facts behind it
 * likely do too (a thousand signals for gates that were opened yesterday). So their documents are
 * read in the same request.
 */
import { needs } from '../../../projections/handlers.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { decodeFact, type Fact, isTimer } from '../../../streams/facts.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { StoredMessage } from '../../log/nats.ts'
import type { Store } from './store.ts'

const AHEAD_MAX = 256
const AHEAD_MAX_BYTES = 256 * 1024

/** A fact whose folding throws. The same fact throws for every engine, so it is stepped over. */
export class PoisonError extends FlowStoneError {
  readonly seq: number

  constructor({ name, seq }: Fact, cause: unknown) {
    super('poison', `${name} cannot be folded: ${messageOf(cause)}`, { cause })
    this.seq = seq
  }
}

export class Facts {
  readonly #store: Store
  readonly #names: Names
  readonly #shard: number
  /** Decoded when one before them missed something. */
  readonly #ahead = new Map<number, Fact>()

  constructor(store: Store, names: Names, shard: number) {
    this.#store = store
    this.#names = names
    this.#shard = shard
  }

  /**
   * The fact in a message. Throws for what is none; FlowStoneError `newer_version` for what a newer
   * FlowStone wrote.
   */
  decode({ subject, payload, headers, seq, timeMs }: StoredMessage): Fact {
    const ahead = this.#ahead.get(seq)
    if (ahead) {
      this.#ahead.delete(seq)
      return ahead
    }
    const path = this.#names.factPath(subject) ?? ''
    return decodeFact({ path, payload, contentType: headers.get('Content-Type'), shard: this.#shard, seq, timeMs })
  }

  /** Loads what the fact needs. Of `messages`, those from `next` on are folded after it. */
  async load(fact: Fact, messages: readonly StoredMessage[], next: number): Promise<void> {
    for (let missing = this.#missing(fact); missing.length > 0; missing = this.#missing(fact)) {
      const keys = new Set(missing)
      for (const later of this.#decodeAhead(messages, next))
        for (const key of this.#missingOfLater(later)) keys.add(key)
      await this.#store.load([...keys])
    }
  }

  #missing(fact: Fact): string[] {
    try {
      return needs(this.#store, this.#store.has, fact)
    } catch (error) {
      throw new PoisonError(fact, error)
    }
  }

  #missingOfLater(fact: Fact): string[] {
    try {
      return this.#missing(fact)
    } catch {
      // Reported when this fact is folded.
      return []
    }
  }

  #decodeAhead(messages: readonly StoredMessage[], next: number): Fact[] {
    const facts: Fact[] = []
    let bytes = 0
    for (const message of messages.slice(next, next + AHEAD_MAX)) {
      bytes += message.payload.length
      if (bytes > AHEAD_MAX_BYTES) break
      const path = this.#names.factPath(message.subject)
      if (path === undefined || isTimer(path)) continue
      try {
        const fact = this.#ahead.get(message.seq) ?? this.decode(message)
        this.#ahead.set(message.seq, fact)
        facts.push(fact)
      } catch {
        // Reported when this fact is folded.
      }
    }
    return facts
  }
}
