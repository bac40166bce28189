/** Watches for keys that a scatter gave before: refused with the duplicates listed, or dropped. */

import { counted } from '../../../streams/amounts.ts'
import { TerminalError } from '../../../streams/errors.ts'
import { hashBytes } from '../../../streams/ids.ts'
import { canonicalKey, HashSet } from '../../../streams/keys.ts'
import { ListWriter } from '../../../streams/list.ts'
import { cut } from '../../../streams/text.ts'

const LISTED_MAX = 10

export class DuplicateKeys {
  readonly #hashes = new HashSet()
  readonly #mode: 'error' | 'drop'
  readonly #twice: string[] = []
  #count = 0
  #position = 0

  constructor(mode: 'error' | 'drop') {
    this.#mode = mode
  }

  /** How many keys were looked at: the place of the next one. */
  get position(): number {
    return this.#position
  }

  isNew(key: unknown): boolean {
    const writer = new ListWriter()
    try {
      writer.add(key, 'key', this.#position)
      return this.isNewIn(writer, key)
    } finally {
      writer.end()
    }
  }

  /** As `isNew`, of a key whose bytes the writer has as its last. */
  isNewIn(writer: ListWriter, key: unknown): boolean {
    const position = this.#position++
    if (this.#hashes.add(writer.isCanonical ? hashBytes(writer.last) : hashOf(key, `key[${position}]`))) return true
    this.#count += 1
    if (this.#twice.length < LISTED_MAX) this.#twice.push(`${cut(canonicalKey(key), 100)} (again at ${position})`)
    return false
  }

  /** Throws, with the duplicates listed, where those are an error. */
  check(): void {
    if (this.#mode === 'drop' || this.#count === 0) return
    const more = this.#count > LISTED_MAX ? ` and ${this.#count - LISTED_MAX} more` : ''
    throw new TerminalError(
      `the scatter function gave ${counted(this.#count, 'duplicate key')}: ${this.#twice.join(', ')}${more}; set scatterOptions.duplicates to 'drop' or 'allow'`,
    )
  }
}

/**
 * Bytes of equal canonical keys are equal. Any other key is brought to that form: a date to its
 * text, members into their order.
 */
function hashOf(key: unknown, at: string): bigint {
  const text = canonicalKey(key, at)
  const writer = new ListWriter()
  try {
    writer.add(JSON.parse(text))
    return hashBytes(writer.last)
  } finally {
    writer.end()
  }
}
