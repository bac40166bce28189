/** All texts of a value, cut to a length. */
import { cut } from './text.ts'

/** The same value with every text in it cut, however deep, and without stacks. */
export function cutTexts<T>(value: T, max: number): T {
  return cutAny(value, max) as T
}

function cutAny(value: unknown, max: number): unknown {
  if (typeof value === 'string') return cut(value, max)
  if (Array.isArray(value)) return value.map((item) => cutAny(item, max))
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  const members = Object.entries(value).filter(([name]) => name !== 'stack')
  return Object.fromEntries(members.map(([name, inner]) => [name, cutAny(inner, max)]))
}
