/**
 * Who caused a fact from outside: the field `by`. A short text of one or more parts `kind:name`
 * with spaces between, such as `cli:ana@laptop nats:ops`. The first part is the closest to the
 * cause. What the engine decides has none.
 *
 *   cli:<user>@<host>       a command, and who ran it there
 *   process:<user>@<host>   a program that does not say who it is
 *   app:<name>              what a program says of itself: `connect({ by })`, `flow.as(by)`
 *   http:<id>               the API key of a request; webhook:<path> for a webhook
 *   trigger:<name>          the header `Fs-By` of a trigger
 *   nats:<user>             whom the server took the process for
 */
import { z } from 'zod'
import { cut } from './text.ts'

export const BY_MAX = 256
/** Of one part: two of them fit. */
const NAME_MAX = 120
/** The header by which a trigger says who sent it. */
export const BY_HEADER = 'Fs-By'

export const by = z.string().min(1).max(BY_MAX)

export type ByKind = 'cli' | 'process' | 'app' | 'http' | 'webhook' | 'trigger' | 'nats'

/** One part. What is no part of a word becomes `_`. */
export function byPart(kind: ByKind, name: string): string {
  return cut(`${kind}:${wordOf(name)}`, NAME_MAX)
}

function wordOf(name: string): string {
  return name.toWellFormed().replace(/[\s\p{C}]+/gu, '_')
}

/** Whether somebody may call himself so: `checkout`, or with a kind: `job:nightly`. */
export function isByName(text: unknown): text is string {
  return typeof text === 'string' && text.length <= NAME_MAX && /^[^\s\p{C}]+$/u.test(text)
}

/** As a program names itself: without a kind it is an `app`. */
export function ownPart(text: string): string {
  return /^[a-z]+:./.test(text) ? text : byPart('app', text)
}

export function joinBy(...parts: readonly (string | undefined)[]): string | undefined {
  const all = parts.filter((part) => part !== undefined)
  return all.length === 0 ? undefined : cut(all.join(' '), BY_MAX)
}

/**
 * Whether `by` is who is looked for: the whole of it, one of its parts, the name of a part, or the
 * user of a name. `*` stands for any text.
 */
export function isBy(text: string, wanted: string): boolean {
  const literal = (piece: string): string => piece.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
  const pattern = new RegExp(`^${wanted.split('*').map(literal).join('.*')}$`, 'u')
  const names = text.split(' ').flatMap((part) => {
    const name = part.slice(part.indexOf(':') + 1)
    return [part, name, name.split('@')[0] ?? name]
  })
  return [text, ...names].some((one) => pattern.test(one))
}
