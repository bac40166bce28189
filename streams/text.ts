/**
 * Texts that come from outside: whole characters only, and cut without cutting a character in two.
 */
import { InvalidError } from './errors.ts'

/**
 * Half a surrogate pair has no bytes in UTF-8: two texts that differ only there would become one on
 * the wire. Throws InvalidError that names the field.
 */
export function checkText(field: string, text: string): string {
  if (text.isWellFormed()) return text
  throw new InvalidError(`${field} ${HALF}`)
}

/** What is wrong with such a text, behind its name. */
export const HALF =
  'has half a surrogate pair (an emoji cut in two?), which no UTF-8 can say; send whole characters: see toWellFormed()'

/**
 * At most `max` UTF-16 units of the text, never half of a pair; what was half before becomes
 * U+FFFD. `more` stands behind a text that was cut.
 */
export function cut(text: string, max: number, more = ''): string {
  if (text.length <= max) return text.toWellFormed()
  const last = text.charCodeAt(max - 1)
  const end = last >= 0xd800 && last <= 0xdbff ? max - 1 : max
  return text.slice(0, Math.max(0, end)).toWellFormed() + more
}

/**
 * Control characters (C0 and C1), separators of lines, and marks that change the direction of text,
 * are invisible or make what is read differ from what is there.
 */
const UNSEEN = /[\p{Cc}\u2028\u2029\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu
const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\b': '\\b', '\f': '\\f' }

/**
 * Text of others, for a terminal or a log: what moves a cursor, hides, or turns text around is
 * shown as an escape, as JSON has it. `lines`: line ends and tabs stay.
 */
export function printable(text: string, { lines = false }: { readonly lines?: boolean } = {}): string {
  return text.replaceAll(UNSEEN, (unseen) => {
    if (lines && (unseen === '\n' || unseen === '\t')) return unseen
    const units = Array.from({ length: unseen.length }, (_, i) => unseen.charCodeAt(i))
    return SHORT[unseen] ?? units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
  })
}
