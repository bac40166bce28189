/** Watches for keys that a scatter gave before: refused with the duplicates listed, or dropped. */

import { TerminalError } from '../../../streams/errors.ts'
import { canonicalKey, HashSet, scatterKeyNumber } from '../../../streams/keys.ts'
import { cut } from '../../../streams/text.ts'
import { measure } from '../../../streams/value.ts'

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

  isNew(key: unknown): boolean {
    const position = this.#position++
    // Names the place of what no key can be, before the canonical form stumbles over it.
    measure(key, `key[${position}]`)
    if (this.#hashes.add(scatterKeyNumber(key, `key[${position}]`))) return true
    this.#count += 1
    if (this.#twice.length < LISTED_MAX) this.#twice.push(`${cut(canonicalKey(key), 100)} (again at ${position})`)
    return false
  }

  /** Throws, with the duplicates listed, where those are an error. */
  check(): void {
    if (this.#mode === 'drop' || this.#count === 0) return
    const more = this.#count > LISTED_MAX ? ` and ${this.#count - LISTED_MAX} more` : ''
    throw new TerminalError(
      `the scatter function gave ${this.#count} duplicate key(s): ${this.#twice.join(', ')}${more}; set scatterOptions.duplicates to 'drop' or 'allow'`,
    )
  }
}
