/** Numbers and times as people read them. Pure; times are of the zone of whoever looks. */

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

function trimmed(value: number): string {
  return value >= 10 ? String(Math.round(value)) : value.toFixed(1).replace('.0', '')
}

const pad = (n: number): string => String(n).padStart(2, '0')

/** `14:32:08`. */
export function clock(time: number | string | Date, withSeconds = true): string {
  const date = new Date(time)
  const minutes = `${pad(date.getHours())}:${pad(date.getMinutes())}`
  return withSeconds ? `${minutes}:${pad(date.getSeconds())}` : minutes
}

/** `14:32`, with the date when it is another day: `28 Nov 14:32`. */
export function moment(time: number | string | Date, now: number, withSeconds = false): string {
  const date = new Date(time)
  const today = new Date(now)
  const text = clock(date, withSeconds)
  if (date.toDateString() === today.toDateString()) return text
  const day = `${date.getDate()} ${date.toLocaleString('en-GB', { month: 'short' })}`
  return date.getFullYear() === today.getFullYear() ? `${day} ${text}` : `${day} ${date.getFullYear()} ${text}`
}

/** `2026-11-28 14:32:08.120 UTC`: on hover. */
export function utc(time: number | string | Date): string {
  return `${new Date(time).toISOString().replace('T', ' ').replace('Z', '')} UTC`
}

/** `in 12 min`, `12 min ago`. */
export function relative(time: number | string | Date, now: number): string {
  const ms = new Date(time).getTime() - now
  if (Math.abs(ms) < SECOND) return 'now'
  return ms > 0 ? `in ${duration(ms)}` : `${duration(-ms)} ago`
}

/** An id that fits into a line: `0-01KB4R7M…`. The whole one is in the address. */
export function shortId(id: string, length = 10): string {
  return id.length <= length + 1 ? id : `${id.slice(0, 2)}…${id.slice(-(length - 3))}`
}

/** Any value as text, whatever users put there. */
export function valueText(value: unknown): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return value
  return JSON.stringify(value)
}

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`
  const [value, unit] =
    n < 1024 ** 2 ? [n / 1024, 'KiB'] : n < 1024 ** 3 ? [n / 1024 ** 2, 'MiB'] : [n / 1024 ** 3, 'GiB']
  return `${trimmed(value)} ${unit}`
}
