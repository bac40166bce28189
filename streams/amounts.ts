/** Numbers and lengths of time as people read them. Pure. */

const COUNT = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })
const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** `750,666`: counts are exact. */
export function count(n: number): string {
  return COUNT.format(n)
}

/** `3 runs`, `1 run`. */
export function counted(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`
}

/** `33.3 %`. Never 0 or 100 of what is not. */
export function percent(part: number, whole: number, digits = 1): string {
  if (whole <= 0) return '0 %'
  const step = 10 ** -digits
  const exact = (part / whole) * 100
  const least = exact > 0 ? Math.max(exact, step) : 0
  const value = part < whole ? Math.min(least, 100 - step) : 100
  return `${value.toFixed(digits)} %`
}

/** `0.8`, `12`, `1,204`. */
export function rate(perSecond: number): string {
  return perSecond >= 10 || perSecond === 0 ? count(perSecond) : perSecond.toFixed(1)
}

/** `420 ms`, `48 s`, `62 min`, `5.2 h`, `3 days`. */
export function duration(ms: number): string {
  const of = Math.max(0, ms)
  if (of < SECOND) return `${Math.round(of)} ms`
  if (of < 90 * SECOND) return `${Math.round(of / SECOND)} s`
  if (of < 90 * MINUTE) return `${Math.round(of / MINUTE)} min`
  if (of < 36 * HOUR) return `${trimmed(of / HOUR)} h`
  return `${Math.round(of / DAY)} days`
}

/** One digit behind the point, where the number is small. */
export function trimmed(value: number): string {
  return value >= 10 ? String(Math.round(value)) : value.toFixed(1).replace('.0', '')
}

/** `in 12 min`, `12 min ago`. */
export function relative(time: number | string | Date, now: number): string {
  const ms = new Date(time).getTime() - now
  if (Math.abs(ms) < SECOND) return 'now'
  return ms > 0 ? `in ${duration(ms)}` : `${duration(-ms)} ago`
}
