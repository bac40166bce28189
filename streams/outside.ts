/**
 * An error as outsiders may see it: without stacks, and without paths of the machine it was thrown
 * on.
 */
import type { ErrorInfo } from './schemas.ts'

/** A line of a stack trace, in a message that quotes one. */
const FRAME = /^[ \t]{1,40}at .*(?:\n|$)/gm
const ROOT = String.raw`(?:file:\/\/)?(?:\/?[A-Za-z]:)?`
/** In quotes a path may have blanks. */
const QUOTED = new RegExp(String.raw`(['"\x60])${ROOT}[\\/]([^'"\x60\n]{1,1000})\1`, 'g')
/**
 * At the start of a word, so that no address (`https://host/a/b`) is taken for one. Two names at
 * least.
 */
const BARE = new RegExp(
  String.raw`(?<![\w./\\…-])(?!(?<=:)\/\/)${ROOT}(?:[\\/]+[^\s\\/'"\x60<>()[\]{},;:|*?]+){2,}[\\/]*`,
  'g',
)

/** At every depth. Of a path the last name stays: `open '…/orders.csv'`. */
export function forOutsiders({ code, message, cause, errors }: ErrorInfo): ErrorInfo {
  return {
    code,
    message: withoutPaths(message),
    ...(cause ? { cause: forOutsiders(cause) } : {}),
    ...(errors ? { errors: errors.map(forOutsiders) } : {}),
  }
}

function withoutPaths(text: string): string {
  return text
    .replace(FRAME, '')
    .replace(QUOTED, (whole, quote: string, path: string) =>
      /[\\/]/.test(path) ? `${quote}…/${lastOf(path)}${quote}` : whole,
    )
    .replace(BARE, (path) => `…/${lastOf(path)}`)
}

function lastOf(path: string): string {
  return path.split(/[\\/]+/).findLast((name) => name !== '') ?? ''
}
