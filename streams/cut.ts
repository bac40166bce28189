/** Texts that are cut to a length. Half of a character that takes two units is no Unicode, and goes too. */

/** The first `max` UTF-16 units of a text. */
export function cutText(text: string, max: number): string {
  if (text.length <= max) return text
  const end = /[\uD800-\uDBFF]/.test(text.charAt(max - 1)) ? max - 1 : max
  return text.slice(0, end)
}

/** The same value with every text in it cut, however deep, and without stacks. */
export function cutTexts<T>(value: T, max: number): T {
  return cutAny(value, max) as T
}

function cutAny(value: unknown, max: number): unknown {
  if (typeof value === 'string') return cutText(value, max)
  if (Array.isArray(value)) return value.map((item) => cutAny(item, max))
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  const members = Object.entries(value).filter(([name]) => name !== 'stack')
  return Object.fromEntries(members.map(([name, inner]) => [name, cutAny(inner, max)]))
}
