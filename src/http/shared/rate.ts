/**
 * A rate limiter for whoever comes, in memory that is fixed: it protects this process, and how many
 * addresses there are in the world must not matter to it.
 *
 * GCRA: a cell holds the time at which its allowance is whole again; each request moves that on by
 * `period / limit`; beyond `period` ahead of now there is none left. So `limit` requests go through
 * at once, and then one every `period / limit`.
 *
 * A name has two cells, found by a hash with a key that is random for each process. Other names may
 * share a cell. A request is refused when both cells say so. Each cell has seen at least this
 * name's requests, so nobody gets more than the limit. A name is refused for the requests of others
 * only when both of its cells collide (a count-min sketch).
 */
import { createHash, randomBytes } from 'node:crypto'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'

/** How many, in which time: `[500, 'second']`. */
export type Rate = readonly [limit: number, per: 'second' | 'minute' | 'hour']

const PERIOD_MS: Readonly<Record<string, number>> = { second: 1000, minute: 60_000, hour: 3_600_000 }
const CELLS = 65_536

export class FixedLimiter {
  readonly #stepMs: number
  readonly #periodMs: number
  readonly #cells = new Float64Array(2 * CELLS)
  readonly #key = randomBytes(16)
  readonly #now: () => number

  /** `now`: a clock in milliseconds that never goes back. Throws InvalidError naming `field`. */
  constructor(field: string, rate: Rate, now: () => number = () => performance.now()) {
    const [limit, per] = Array.isArray(rate) ? rate : [0, '']
    const periodMs = Object.hasOwn(PERIOD_MS, per) ? PERIOD_MS[per] : undefined
    if (periodMs === undefined || !Number.isFinite(limit) || limit < 1)
      throw new InvalidError(
        `${field} must be [n, 'second' | 'minute' | 'hour'] with n from 1, or false for no limit, got ${shown(rate)}`,
      )
    this.#stepMs = periodMs / limit
    this.#periodMs = periodMs
    this.#now = now
    // An allowance is whole at the beginning, also of a clock that begins at 0.
    this.#cells.fill(Number.NEGATIVE_INFINITY)
  }

  /** 0 when this one may go on; else the milliseconds until it might. */
  take(name: string): number {
    const now = this.#now()
    const [a, b] = this.#cellsOf(name)
    const next = (cell: number): number => Math.max(this.#cells[cell] ?? 0, now) + this.#stepMs
    const waitMs = Math.min(next(a), next(b)) - now - this.#periodMs
    // Sums of fractions: a request must not be refused for what rounding left over.
    if (waitMs > 1e-6) return waitMs
    const moved: readonly [number, number] = [next(a), next(b)]
    this.#cells[a] = moved[0]
    this.#cells[b] = moved[1]
    return 0
  }

  #cellsOf(name: string): readonly [number, number] {
    const hash = createHash('sha256').update(this.#key).update(name).digest()
    return [hash.readUInt16LE(0), CELLS + hash.readUInt16LE(2)]
  }
}
