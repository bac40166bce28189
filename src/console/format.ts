/** Numbers and times as people read them. Pure; times are of the zone of whoever looks. */
import { trimmed } from '../../streams/amounts.ts'

export { count, counted, duration, percent, rate, relative } from '../../streams/amounts.ts'

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
