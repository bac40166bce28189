/**
 * The cell of a rate limit: what was granted lately, and nothing else. One KV message, under 1 KiB,
 * updated by compare-and-set.
 *
 *   window   grants as [server time, how many], newest last. A grant at time g is allowed when all that is in the cell and later than g - period, what is
 *            reserved ahead included, and the grant itself come to no more than the limit. So in ANY stretch of one period (its end left out) there are
 *            never more than `limit`. Exact to the millisecond for limits up to EXACT_MAX; above that times are rounded up to 1/100 of the period, so a
 *            token comes back a little late and never early.
 *   smooth   GCRA (ITU-T I.371): one number, the theoretical arrival time of the next grant at the pace of the limit. A grant may be ahead of it by
 *            `burst` tokens. In any stretch of one period there are at most `limit + burst - 1`.
 *
 * When is a grant made? The writer cannot know: the server stamps the message when it stores it. So
 * what is granted *now* stands in the cell as `made`, "at the time of this message", and whoever
 * has the message, or a later time, settles it. That it may be granted is decided by a lower bound
 * of the server's time, when it was granted by the server's stamp or a later time. Neither asks a
 * caller's clock, so no clock can let too much through.
 *
 * What is granted for later (a reservation) is fixed when it is asked for: that is what makes
 * waiting fair. Every answer follows all earlier ones, and nobody needs to be woken.
 */
import { decodeMsgpack, encodeMsgpack } from '../../streams/codec.ts'

export interface Rate {
  readonly shape: 'window' | 'smooth'
  readonly limit: number
  readonly periodMs: number
  /** Tokens that may be granted at once. Of a window: its limit. */
  readonly burst: number
}

export interface RateCell {
  /**
   * The rate of whoever wrote last. Callers may differ (a deploy changes a limit): each keeps its
   * own, counting all grants.
   */
  rate: Rate
  /**
   * The longest period and the largest limit that were asked about: what is kept is enough for
   * both.
   */
  keepMs: number
  keepLimit: number
  /** Time of the newest grant that is not in the cell any more; 0: none was dropped. */
  sinceMs: number
  grants: [timeMs: number, count: number][]
  /** Of smooth: when the next grant would be due at the pace of the limit, in microseconds. */
  tatUs: number
  /** Granted at the time of the message that carries the cell. */
  made: number
  /**
   * Ids of the latest writes, the last one last: a writer whose answer got lost finds out whether
   * it was stored.
   */
  writes: string[]
}

/**
 * Limits up to this are exact to the millisecond; the cell then holds so many grants, some 4 bytes
 * each.
 */
export const EXACT_MAX = 160
const SUB_WINDOWS = 100
/**
 * Rates of different periods on one bucket could make more; then neighbours are joined, at the
 * later time.
 */
const GRANTS_MAX = 164
const WRITES_KEPT = 8
const SHOWN_MAX = 100

export function emptyCell(rate: Rate): RateCell {
  return { rate, keepMs: rate.periodMs, keepLimit: rate.limit, sinceMs: 0, grants: [], tatUs: 0, made: 0, writes: [] }
}

/** The cell once the time of its message is known. `storedMs`: that time, or any later one. */
export function settled(cell: RateCell, storedMs: number): RateCell {
  if (cell.made === 0) return cell
  const next = { ...cell, grants: [...cell.grants], made: 0 }
  add(next, cell.rate, storedMs, cell.made)
  return next
}

/**
 * The earliest server time, in milliseconds and `nowMs` at the least, for a grant of `n`.
 * Undefined: that depends on when what is `made` now is stored. More than is `made` may be granted
 * now exactly when the answer is `nowMs`, which must be a lower bound of the server's time.
 */
export function earliest(cell: RateCell, rate: Rate, n: number, nowMs: number): number | undefined {
  if (rate.shape === 'smooth') {
    const aheadUs = costUs(rate, n + cell.made) - costUs(rate, rate.burst)
    const atMs = (cell.tatUs + aheadUs) / 1000
    if (Math.max(cell.tatUs, nowMs * 1000) + aheadUs <= nowMs * 1000) return nowMs
    return cell.made > 0 ? undefined : Math.max(nowMs, atMs)
  }
  const { periodMs } = rate
  const knownMs = cell.sinceMs === 0 ? nowMs : Math.max(nowMs, cell.sinceMs + periodMs)
  let over = cell.made + n - rate.limit
  for (const [, count] of cell.grants) over += count
  if (over <= 0) return knownMs
  for (const [timeMs, count] of cell.grants) {
    over -= count
    if (over <= 0) return Math.max(knownMs, timeMs + periodMs)
  }
  return undefined
}

/** Grants `n` now: `earliest` must have said so. */
export function make(cell: RateCell, n: number): void {
  cell.made += n
}

/** Grants `n` at a later time, which `earliest` has given. */
export function reserve(cell: RateCell, rate: Rate, n: number, atMs: number): void {
  add(cell, rate, atMs, n)
}

/**
 * Takes a reservation back that is not going to be used; what is not in the cell any more stays
 * counted. Of smooth only the latest can be taken back: others are paced by it.
 */
export function giveBack(cell: RateCell, rate: Rate, n: number, atMs: number): boolean {
  if (rate.shape === 'smooth') {
    const cost = costUs(rate, n)
    // It was the last one exactly if the time that it left is still there.
    if (Math.abs(cell.tatUs - cost - tatBefore(rate, n, atMs)) > 1) return false
    cell.tatUs -= cost
    return true
  }
  const time = roundUp(rate, atMs)
  const at = cell.grants.findIndex(([timeMs, count]) => timeMs === time && count >= n)
  const found = cell.grants[at]
  if (!found) return false
  if (found[1] === n) cell.grants.splice(at, 1)
  else cell.grants[at] = [time, found[1] - n]
  return true
}

/**
 * Readies a draft for being written: forgets what can matter to nobody, given a lower bound of the
 * server's time.
 */
export function readied(cell: RateCell, rate: Rate, nowMs: number, write: string): RateCell {
  const keepMs = Math.max(cell.keepMs, rate.periodMs)
  const keepLimit = Math.max(cell.keepLimit, rate.limit)
  const next = { ...cell, rate, keepMs, keepLimit, writes: [...cell.writes, write].slice(-WRITES_KEPT) }
  if (rate.shape === 'smooth') return next
  let sum = cell.made
  for (const [, count] of cell.grants) sum += count
  let drop = 0
  for (const [timeMs, count] of cell.grants) {
    // Too old; or so deep in a queue of reservations that all to come are more than a period later
    // anyhow.
    if (timeMs > nowMs - keepMs && sum - count < keepLimit) break
    sum -= count
    drop += 1
  }
  next.grants = joined(cell.grants.slice(drop))
  const dropped = cell.grants[drop - 1]
  if (dropped) next.sinceMs = Math.max(cell.sinceMs, dropped[0])
  return next
}

/** How long, from a lower bound of the server's time, the cell must be kept. */
export function lifeMs(cell: RateCell, nowMs: number): number {
  const newestMs = cell.grants.at(-1)?.[0] ?? 0
  return Math.max(cell.keepMs, newestMs + cell.keepMs - nowMs, cell.tatUs / 1000 - nowMs + cell.keepMs)
}

/**
 * Tokens that count against a limit at a time: those of the window that ends then, and what is
 * reserved for later.
 */
export function counted(cell: RateCell, nowMs: number): { count: number; waiting: number } {
  const { rate } = cell
  if (rate.shape === 'smooth') {
    const aheadUs = Math.max(0, cell.tatUs - nowMs * 1000)
    const tokens = Math.ceil((aheadUs * rate.limit) / (rate.periodMs * 1000) - 1e-6)
    return { count: Math.min(rate.burst, tokens), waiting: Math.max(0, tokens - rate.burst) }
  }
  let count = 0
  let waiting = 0
  for (const [timeMs, n] of cell.grants) {
    // A time that was rounded up is not later than now for that.
    if (timeMs > nowMs + grainMs(rate)) waiting += n
    else if (timeMs > nowMs - rate.periodMs) count += n
  }
  return { count: Math.min(count, rate.limit), waiting }
}

/** Turns that are promised for later, the next one first: time and tokens. */
export function reserved(cell: RateCell, nowMs: number): [atMs: number, tokens: number][] {
  const { rate } = cell
  if (rate.shape === 'window') return cell.grants.filter(([timeMs]) => timeMs > nowMs + grainMs(rate))
  const { waiting } = counted(cell, nowMs)
  const { periodMs, limit, burst } = rate
  // The last one is due when all but the burst before it is paid for; the others at the pace before
  // that.
  const lastMs = cell.tatUs / 1000 - (burst * periodMs) / limit
  const shown = Math.min(waiting, SHOWN_MAX)
  return Array.from({ length: shown }, (_, i) => [lastMs - ((waiting - 1 - i) * periodMs) / limit, 1])
}

function add(cell: RateCell, rate: Rate, atMs: number, n: number): void {
  if (rate.shape === 'smooth') {
    cell.tatUs = Math.max(cell.tatUs, Math.ceil(atMs * 1000)) + costUs(rate, n)
    return
  }
  const time = roundUp(rate, atMs)
  let at = cell.grants.length
  while (at > 0 && (cell.grants[at - 1]?.[0] ?? 0) > time) at -= 1
  const before = cell.grants[at - 1]
  if (before?.[0] === time) cell.grants[at - 1] = [time, before[1] + n]
  else cell.grants.splice(at, 0, [time, n])
}

function costUs(rate: Rate, n: number): number {
  return Math.ceil((n * rate.periodMs * 1000) / rate.limit)
}

/** What `tatUs` was before a reservation of `n` at this time. */
function tatBefore(rate: Rate, n: number, atMs: number): number {
  return Math.round(atMs * 1000) + costUs(rate, rate.burst) - costUs(rate, n)
}

function grainMs(rate: Rate): number {
  return rate.limit <= EXACT_MAX ? 1 : Math.max(1, Math.ceil(rate.periodMs / SUB_WINDOWS))
}

function roundUp(rate: Rate, atMs: number): number {
  const grain = grainMs(rate)
  return Math.ceil(atMs / grain) * grain
}

function joined(grants: [number, number][]): [number, number][] {
  const list = [...grants]
  while (list.length > GRANTS_MAX) {
    let best = 1
    let gap = Number.POSITIVE_INFINITY
    for (let i = 1; i < list.length; i++) {
      const apart = (list[i]?.[0] ?? 0) - (list[i - 1]?.[0] ?? 0)
      if (apart < gap) {
        gap = apart
        best = i
      }
    }
    const [early, late] = [list[best - 1], list[best]]
    if (early && late) list.splice(best - 1, 2, [late[0], early[1] + late[1]])
  }
  return list
}

const VERSION = 1

/**
 * MessagePack of a plain list; grants as base-128 numbers, each time as the distance to the one
 * before.
 */
export function encodeRateCell(cell: RateCell): Uint8Array {
  const { shape, limit, periodMs, burst } = cell.rate
  const head = [VERSION, shape === 'window' ? 0 : 1, limit, periodMs, burst, cell.keepMs, cell.keepLimit, cell.sinceMs]
  return encodeMsgpack([...head, cell.tatUs, cell.made, cell.writes.join(' '), packed(cell.grants)])
}

/** Undefined for what is no cell of this version. */
export function decodeRateCell(payload: Uint8Array): RateCell | undefined {
  const list = decodeMsgpack(payload)
  if (!Array.isArray(list) || list[0] !== VERSION) return undefined
  const [, shape, limit, periodMs, burst, keepMs, keepLimit, sinceMs, tatUs, made] = list.map(Number)
  const writes: unknown = list[10]
  const grants: unknown = list[11]
  if (typeof writes !== 'string' || !(grants instanceof Uint8Array)) return undefined
  return {
    rate: {
      shape: shape === 0 ? 'window' : 'smooth',
      limit: limit ?? 0,
      periodMs: periodMs ?? 0,
      burst: burst ?? 0,
    },
    keepMs: keepMs ?? 0,
    keepLimit: keepLimit ?? 0,
    sinceMs: sinceMs ?? 0,
    grants: unpacked(grants),
    tatUs: tatUs ?? 0,
    made: made ?? 0,
    writes: writes === '' ? [] : writes.split(' '),
  }
}

function packed(grants: readonly [number, number][]): Uint8Array {
  const bytes: number[] = []
  const put = (value: number): void => {
    let rest = value
    while (rest >= 128) {
      bytes.push((rest % 128) + 128)
      rest = Math.floor(rest / 128)
    }
    bytes.push(rest)
  }
  let last = 0
  for (const [timeMs, count] of grants) {
    put(timeMs - last)
    put(count)
    last = timeMs
  }
  return Uint8Array.from(bytes)
}

function unpacked(bytes: Uint8Array): [number, number][] {
  const numbers: number[] = []
  let value = 0
  let unit = 1
  for (const byte of bytes) {
    value += (byte % 128) * unit
    unit *= 128
    if (byte < 128) {
      numbers.push(value)
      value = 0
      unit = 1
    }
  }
  const grants: [number, number][] = []
  let last = 0
  for (let i = 0; i + 1 < numbers.length; i += 2) {
    last += numbers[i] ?? 0
    grants.push([last, numbers[i + 1] ?? 0])
  }
  return grants
}
