/** Dates as people write them. */

const DATE = /^(\d{4})-(\d{2})-(\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?$/

/**
 * Milliseconds since 1970 of a date of ISO 8601, such as `2026-11-23` or `2026-11-23T08:00Z`.
 * Undefined for all else: `Date.parse` makes the year 2001 of `1`, and March of February 30.
 */
export function parseDate(text: string): number | undefined {
  const [, year, month, day] = DATE.exec(text.trim()) ?? []
  if (year === undefined) return undefined
  const days = new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate()
  const ms = Date.parse(text.trim().replace(' ', 'T'))
  return Number(day) <= days && Number.isFinite(ms) ? ms : undefined
}
