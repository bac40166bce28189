/**
 * Checks a value against a JSON Schema, within bounds of work and time. Who sends the value chooses
 * it, and the schema's author may not have thought of the worst one.
 */
import { createContext, Script } from 'node:vm'
import { z } from 'zod'
import { encodeMsgpack } from '../../streams/codec.ts'
import { measure } from '../../streams/value.ts'

export type JsonSchema = Readonly<Record<string, unknown>>

/**
 * How many bytes a value takes on the wire, of at most `maxBytes`. Throws InvalidError with the
 * place of what cannot be stored. More than `maxBytes`: it takes more.
 */
export function wireBytes(at: string, value: unknown, maxBytes: number): number {
  const bytes = measure(value, at)
  // Text that is not ASCII takes more than was measured: up to three times as much.
  return bytes <= maxBytes && 3 * bytes > maxBytes ? encodeMsgpack(value).length : bytes
}

/**
 * Why a value does not fit a schema; undefined: it does. `whose` names the schema, such as `the
 * gate's schema`. `bytes`: about how many the value takes.
 */
export function mismatchOf(schema: JsonSchema, value: unknown, bytes: number, whose: string): string | undefined {
  const checker = checkerOf(schema)
  const most = Math.floor(WORK_MAX / checker.parts)
  const values = valuesIn(value, most + 1)
  if (values > most)
    return `it has more than ${most} values, which is the most that can be checked against ${whose}; send a reference to it`
  const check = () => checker.schema.safeParse(value).error?.issues.slice(0, ISSUES_MAX)
  const isQuick = checker.isPlain && values * checker.parts <= QUICK_WORK && bytes <= QUICK_BYTES
  try {
    const issues = isQuick ? check() : withinTime(check)
    return issues ? oneLine(z.prettifyError(new z.ZodError(issues))) : undefined
  } catch (error) {
    if (isOutOfTime(error)) return `it could not be checked against ${whose} within ${TIME_MAX_MS} ms`
    throw error
  }
}

/**
 * Whoever holds one token chooses the payload, and the schema's author may not have thought of the
 * worst one. Of each value that a schema refuses zod keeps what is wrong, for each branch of a
 * union: 624 KB of `{}` took more than 1 GiB. So values times parts of the schema are bounded.
 */
const WORK_MAX = 4_000_000
/**
 * A pattern can take for ever on a short text, and a schema that contains itself grows with depth.
 * What is bounded by `WORK_MAX` takes a tenth of it.
 */
const TIME_MAX_MS = 1000
const ISSUES_MAX = 8
/** So little is checked without a time limit, which costs more than the check. */
const QUICK_WORK = 20_000
const QUICK_BYTES = 16 * 1024

interface Checker {
  readonly schema: z.ZodType
  /** Values that the schema is made of. */
  readonly parts: number
  /** Whether it has no pattern, and does not contain itself. */
  readonly isPlain: boolean
}

/** Thousands of gates have the same one, and to make it takes ten times as long as to use it. */
const checkers = new Map<string, Checker>()
const CHECKERS_MAX = 200

function checkerOf(json: JsonSchema): Checker {
  const text = JSON.stringify(json)
  let found = checkers.get(text)
  if (!found) {
    const isPlain = !/"(pattern|patternProperties|\$ref)":/.test(text)
    found = { schema: z.fromJSONSchema({ ...json }), parts: valuesIn(json, WORK_MAX), isPlain }
    const [oldest] = checkers.keys()
    if (checkers.size >= CHECKERS_MAX && oldest !== undefined) checkers.delete(oldest)
    checkers.set(text, found)
  }
  return found
}

const context = createContext({ check: undefined })
const script = new Script('check()')

/**
 * Runs it here, and breaks it off when it takes too long: the time limit of a script holds for all
 * that it calls.
 */
function withinTime<T>(check: () => T): T {
  context.check = check
  try {
    return script.runInContext(context, { timeout: TIME_MAX_MS })
  } finally {
    context.check = undefined
  }
}

/** How many values it is made of, counted up to `most`. */
function valuesIn(value: unknown, most: number): number {
  let count = 0
  const left: unknown[] = [value]
  while (left.length > 0 && count < most) {
    count += 1
    const next = left.pop()
    if (typeof next !== 'object' || next === null || ArrayBuffer.isView(next)) continue
    for (const inner of next instanceof Map ? next.values() : Object.values(next)) {
      if (left.length > most) break
      left.push(inner)
    }
  }
  return count
}

/** Of another realm, so it is no Error of this one. */
function isOutOfTime(error: unknown): boolean {
  return typeof error === 'object' && error !== null && Reflect.get(error, 'code') === 'ERR_SCRIPT_EXECUTION_TIMEOUT'
}

/** Where it is shown (terminals, logs, `detail` of a problem) is one line. */
function oneLine(pretty: string): string {
  return pretty
    .replaceAll(/\n\s*→ /g, ' ')
    .replaceAll('\n', '; ')
    .replaceAll('✖ ', '')
}
