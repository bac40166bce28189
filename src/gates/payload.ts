/** What a gate takes. */
import { createContext, Script } from 'node:vm'
import { z } from 'zod'
import { encodeMsgpack } from '../../streams/codec.ts'
import { messageOf, SignalRejectedError } from '../../streams/errors.ts'
import type { GateCreated } from '../../streams/schemas.ts'
import { measure } from '../../streams/value.ts'

export const PAYLOAD_MAX_BYTES = 1024 * 1024
/** Of a signal that is kept for a gate that is not there yet. */
export const EARLY_MAX_BYTES = 64 * 1024

/** Throws SignalRejectedError `invalid_payload`, which says what is wrong: the gate waits on. */
export function checkPayload(schema: GateCreated['payload'], payload: unknown, maxBytes = PAYLOAD_MAX_BYTES): void {
  let bytes: number
  try {
    bytes = measure(payload, 'payload')
    // Text that is not ASCII takes more than was measured: up to three times as much.
    if (bytes <= maxBytes && 3 * bytes > maxBytes) bytes = encodeMsgpack(payload).length
  } catch (cause) {
    throw new SignalRejectedError('invalid_payload', messageOf(cause), { cause })
  }
  if (bytes > maxBytes)
    throw new SignalRejectedError(
      'invalid_payload',
      `payload takes more than ${maxBytes} bytes; send a reference to it`,
    )
  if (!schema) return
  const checker = checkerOf(schema)
  const most = Math.floor(WORK_MAX / checker.parts)
  const values = valuesIn(payload, most + 1)
  if (values > most)
    throw new SignalRejectedError(
      'invalid_payload',
      `the payload has more than ${most} values, which is the most that can be checked against this gate's schema; send a reference to it`,
    )
  const check = () => checker.schema.safeParse(payload).error?.issues.slice(0, ISSUES_MAX)
  const isQuick = checker.isPlain && values * checker.parts <= QUICK_WORK && bytes <= QUICK_BYTES
  const issues = isQuick ? check() : withinTime(check)
  if (issues) throw refusal(oneLine(z.prettifyError(new z.ZodError(issues))))
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

function checkerOf(json: NonNullable<GateCreated['payload']>): Checker {
  const text = JSON.stringify(json)
  let found = checkers.get(text)
  if (!found) {
    const isPlain = !/"(pattern|patternProperties|\$ref)":/.test(text)
    found = { schema: z.fromJSONSchema(json), parts: valuesIn(json, WORK_MAX), isPlain }
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
  } catch (error) {
    // Of another realm, so it is no Error of this one.
    if (typeof error === 'object' && error !== null && Reflect.get(error, 'code') === 'ERR_SCRIPT_EXECUTION_TIMEOUT')
      throw refusal(`it could not be checked against the gate's schema within ${TIME_MAX_MS} ms`)
    throw error
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

function refusal(why: string): SignalRejectedError {
  return new SignalRejectedError('invalid_payload', `the gate does not take this payload: ${why}`)
}

/** Where it is shown (terminals, logs, `detail` of a problem) is one line. */
function oneLine(pretty: string): string {
  return pretty
    .replaceAll(/\n\s*→ /g, ' ')
    .replaceAll('\n', '; ')
    .replaceAll('✖ ', '')
}
