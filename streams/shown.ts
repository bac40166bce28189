/** Values in error messages. */
import { cut } from './text.ts'

const LENGTH_MAX = 140

/** A value that somebody gave, as an error shows it. Never throws, whatever it is. */
export function shown(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'string' && (typeof value !== 'object' || value === null)) return String(value)
  try {
    return cut(JSON.stringify(value) ?? 'an object', LENGTH_MAX)
  } catch {
    return 'an object that cannot be shown' // a circle, a bigint within it, or a getter that throws
  }
}
