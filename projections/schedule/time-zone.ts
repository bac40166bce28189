/** What a clock on the wall shows: the offset of a time zone, by the time zone data of Node. */

const QUARTER_MS = 900_000
const CACHE_MAX = 50_000
const DAY_MS = 86_400_000

/** Whether this process knows the time zone. */
export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en-US', { timeZone: name })
    return true
  } catch {
    return false
  }
}

const zones = new Map<string, Zone>()

export function zoneOf(name: string): Zone {
  let zone = zones.get(name)
  if (!zone) {
    zone = new Zone(name)
    zones.set(name, zone)
  }
  return zone
}

/**
 * Times on the wall are written as if they were UTC: 02:30 on a wall in Zurich is the number of
 * 02:30Z.
 */
export class Zone {
  readonly #format: Intl.DateTimeFormat
  readonly #offsets = new Map<number, number>()

  constructor(name: string) {
    this.#format = new Intl.DateTimeFormat('en-US', {
      timeZone: name,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
  }

  /** Milliseconds by which its wall is ahead of UTC. Clocks change at whole quarters of hours. */
  offset(ms: number): number {
    const quarter = Math.floor(ms / QUARTER_MS) * QUARTER_MS
    const known = this.#offsets.get(quarter)
    if (known !== undefined) return known
    if (this.#offsets.size >= CACHE_MAX) this.#offsets.clear()
    const offset = this.#read(quarter)
    this.#offsets.set(quarter, offset)
    return offset
  }

  /**
   * The moments at which the wall shows this: one, two where clocks are set back, or none where
   * they are set forward. Then `gapEnd` is the moment at which they are.
   */
  momentsOf(wall: number): { readonly at: readonly number[]; readonly gapEnd?: number } {
    const [before, after] = [this.offset(wall - DAY_MS), this.offset(wall + DAY_MS)]
    const early = wall - Math.max(before, after)
    const late = wall - Math.min(before, after)
    const at = (early === late ? [early] : [early, late]).filter((ms) => ms + this.offset(ms) === wall)
    return at.length > 0 ? { at } : { at, gapEnd: this.#changeIn(early, late) }
  }

  /** The moment in (from, to] at which the offset changes. */
  #changeIn(from: number, to: number): number {
    const old = this.offset(from)
    let [low, high] = [from, to]
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      if (this.offset(middle) === old) low = middle
      else high = middle
    }
    return high
  }

  #read(ms: number): number {
    const parts = new Map(this.#format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]))
    const part = (name: Intl.DateTimeFormatPartTypes): number => parts.get(name) ?? 0
    const wall = Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), part('minute'), part('second'))
    return wall - ms
  }
}
