/**
 * What commands say: results to standard output (a table for people, JSON with `--json`),
 * everything else to standard error.
 */

import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { printable } from '../../streams/text.ts'
import { infoOf, reasonOf } from '../../streams/thrown.ts'
import { forStream, inColour } from './colour.ts'
import { above } from './screen.ts'

export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const

export interface Output {
  readonly json: boolean
  /** The result: `value` as JSON, or lines for people. */
  result(value: unknown, lines: () => readonly string[]): void
  /** One of many things that happen while a command runs: a line of JSON, or a line for people. */
  event(event: string, fields: Readonly<Record<string, unknown>>, line: string): void
  /** A remark, to standard error. Nothing with `--json`. */
  note(line: string): void
}

export function outputOf(json: boolean): Output {
  return {
    json,
    result: (value, lines) => {
      above(() => {
        for (const line of json ? [jsonOf(value, 2)] : lines()) console.log(safe(line, 'stdout'))
      })
    },
    event: (event, fields, line) =>
      above(() => console.log(safe(json ? jsonOf({ event, ...fields }) : line, 'stdout'))),
    note: (line) => {
      if (!json) above(() => console.error(safe(line, 'stderr')))
    },
  }
}

/**
 * The last thing that happens to what is printed: no text of others moves a cursor or turns a line
 * around. JSON means the same with escapes.
 */
function safe(text: string, stream: 'stdout' | 'stderr'): string {
  return forStream(text, stream, { lines: true })
}

/** A file that is not there, or may not be read: its message says which. */
function isSystemError(error: unknown): error is Error {
  return error instanceof Error && 'syscall' in error
}

/**
 * Says what went wrong, in one line, and returns the exit code. A fault of FlowStone itself comes
 * with its stack: nobody could find it else.
 */
export function failure(error: unknown, json: boolean): number {
  const code = error instanceof FlowStoneError ? error.code : 'internal'
  const reason: unknown = error instanceof FlowStoneError ? Reflect.get(error, 'reason') : undefined
  const { code: _, message, stack: __, ...causes } = infoOf(error)
  if (json)
    console.error(
      safe(
        jsonOf({ error: { code, ...(typeof reason === 'string' ? { reason } : {}), message, ...causes } }),
        'stderr',
      ),
    )
  else if (error instanceof FlowStoneError || isSystemError(error))
    console.error(safe(`${inColour('red', 'flowstone:')} ${printable(messageOf(error))}`, 'stderr'))
  else
    console.error(
      safe(
        `${inColour('red', 'flowstone:')} this should not happen: ${[error instanceof Error ? (error.stack ?? error.message) : message, ...(causes.cause || causes.errors ? [`${reasonOf(error)}`] : [])].join('\n')}`,
        'stderr',
      ),
    )
  return error instanceof InvalidError ? EXIT.usage : EXIT.failed
}
