/** How things are said in an explanation. */
import type { Fact } from '../../streams/facts.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'
import { cut } from '../../streams/text.ts'
import { describe } from '../../streams/thrown.ts'
import type { WhyAbout, WhyFact, WhyLink } from './types.ts'

const ERROR_MAX = 500
const NAMES_MAX = 5

export function refOf({ shard, seq, name, timeMs, ids }: Fact): WhyFact {
  return { shard, seq, kind: name, at: new Date(timeMs), ids }
}

export function linkOf(fact: Fact, about: WhyAbout, text: string): WhyLink {
  return { text, fact: refOf(fact), about }
}

/** `boom: no such table`; without the code where the message says as much. */
export function errorWords(error: ErrorInfo): string {
  const text = describe(error)
  const plain = error.code === 'error' || error.code === 'thrown_non_error' || text.includes(error.code)
  return cut(plain ? text : `${error.code}: ${text}`, ERROR_MAX, '…')
}

export function timeWords(ms: number): string {
  const date = new Date(ms)
  // A deadline of another clock may be beyond all calendars.
  return Number.isFinite(date.getTime()) ? date.toISOString() : 'the end of time'
}

const UNITS = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
] as const

/** `1.5 s`, `2 h`: to a tenth of the largest unit. */
export function spanWords(ms: number): string {
  for (const [size, unit] of UNITS) if (ms >= size) return `${Math.round((ms / size) * 10) / 10} ${unit}`
  return `${Math.round(ms)} ms`
}

/** `a, b and c`; of many the first ones, and how many more. */
export function listWords(names: readonly string[], max = NAMES_MAX): string {
  const shown = names.slice(0, max)
  if (names.length > max) return `${shown.join(', ')} and ${names.length - max} more`
  const last = shown.pop() ?? ''
  return shown.length === 0 ? last : `${shown.join(', ')} and ${last}`
}

export function countWords(count: number, one: string): string {
  return `${numberWords(count)} ${one}${count === 1 ? '' : 's'}`
}

/** `240,000` */
export function numberWords(count: number): string {
  return count.toLocaleString('en-US')
}

/** `: text`, or nothing. */
export function because(reason: string | undefined): string {
  return reason === undefined || reason === '' ? '' : `: ${cut(reason, ERROR_MAX, '…')}`
}

/** `, by alice`: who caused a fact, where it says so. */
export function byWords(fact: Fact): string {
  const by: unknown = Reflect.get(fact.data, 'by')
  return typeof by === 'string' && by !== '' ? `, by ${by}` : ''
}
