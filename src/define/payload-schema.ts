/**
 * What a gate's payload must look like: a zod schema, kept on the log as JSON Schema, and made a
 * zod schema again by whoever takes the signal. What would get lost on that way is refused here,
 * while the asset's author looks, and not by a gate that takes what it should not, or nothing.
 */
import { z } from 'zod'
import { InvalidError, messageOf } from '../../streams/errors.ts'

export const MAX_BYTES = 16 * 1024
/** Most schemas stand at the top of a module, and thousands of gates are opened with one. */
const made = new WeakMap<z.ZodType, Record<string, unknown>>()

/** Throws InvalidError for a schema that JSON Schema cannot say. */
export function payloadSchema(at: string, schema: z.ZodType, field = 'payloadSchema'): Record<string, unknown> {
  const before = typeof schema === 'object' && schema !== null ? made.get(schema) : undefined
  if (before) return before
  const json = toJson(`${at}: ${field}`, schema)
  if (Buffer.byteLength(JSON.stringify(json)) > MAX_BYTES)
    throw new InvalidError(`${at}: ${field}, as JSON Schema, must take at most ${MAX_BYTES} bytes`)
  made.set(schema, json)
  return json
}

function toJson(field: string, schema: z.ZodType): Record<string, unknown> {
  if (!(typeof schema === 'object' && schema !== null && '_zod' in schema))
    throw new InvalidError(`${field} must be a schema of zod 4`)
  try {
    const json: Record<string, unknown> = {
      ...z.toJSONSchema(schema, {
        io: 'input',
        override: ({ zodSchema, jsonSchema }) => keepAll(zodSchema._zod.def, jsonSchema),
      }),
    }
    delete json['~standard']
    z.fromJSONSchema(json)
    return json
  } catch (cause) {
    throw new InvalidError(`${field} must be a zod schema that JSON Schema can say: ${messageOf(cause)}`, {
      cause,
    })
  }
}

/**
 * What JSON Schema says nothing of, by the type of a part or of a check, and what to do in its
 * place. The payload comes as it was sent.
 */
const LOST: Readonly<Record<string, string>> = {
  pipe: 'a transform (or pipe, preprocess, codec) cannot be kept; say what is sent, and change it in onSignal',
  overwrite: 'what changes a value (trim, toLowerCase, …) cannot be kept; change it in onSignal',
  default: 'a default cannot be kept; use optional(), and put it in in onSignal',
  prefault: 'a default cannot be kept; use optional(), and put it in in onSignal',
  catch: 'a value for what is wrong cannot be kept; say all that is taken, and put it right in onSignal',
  custom: 'a refinement cannot be kept; look at the payload in onSignal',
}
const COERCION = 'coercion cannot be kept; say what is sent, such as z.string(), and change it in onSignal'

function lost(part: object): string | undefined {
  if (Reflect.get(part, 'coerce') === true) return COERCION
  if (Reflect.get(part, 'normalize') === true) return LOST.overwrite
  // A format of one's own that is a function, and no pattern.
  if (typeof Reflect.get(part, 'fn') === 'function' && Reflect.get(part, 'pattern') === undefined) return LOST.custom
  // A check has no type; a string's format is both.
  for (const kind of [Reflect.get(part, 'type'), Reflect.get(part, 'check')])
    if (typeof kind === 'string' && Object.hasOwn(LOST, kind)) return LOST[kind]
  return undefined
}

/** Puts right what zod writes and does not read, and throws for what it does not even write. */
function keepAll(def: object, json: Record<string, unknown>): void {
  const checks: unknown = Reflect.get(def, 'checks')
  const all = [def, ...(Array.isArray(checks) ? checks.map((check) => check._zod.def) : [])]
  for (const one of all) {
    const why = lost(one)
    if (why !== undefined) throw new Error(why)
    const pattern: unknown = Reflect.get(one, 'pattern')
    if (pattern instanceof RegExp && /[imsuv]/.test(pattern.flags))
      throw new Error(`the flags of ${pattern} cannot be kept; write it without them, such as [Aa] for /a/i`)
    if (Reflect.get(one, 'protocol') instanceof RegExp || Reflect.get(one, 'hostname') instanceof RegExp)
      throw new Error('what a URL may hold cannot be kept; use z.url(), and look at it in onSignal')
    // The names of these stand for less than they take; their patterns say it all.
    if (Reflect.get(one, 'local') === true || Reflect.get(one, 'format') === 'guid') delete json.format
  }
  // Several patterns: read only where a type stands beside each.
  if (json.type === 'string' && Array.isArray(json.allOf))
    json.allOf = json.allOf.map((part: object) => ({ type: 'string', ...part }))
  // All names of an enum: read only where they are properties.
  const { propertyNames, additionalProperties, required, ...rest } = json
  if (Array.isArray(required) && json.properties === undefined && propertyNames !== undefined) {
    for (const key of Object.keys(json)) delete json[key]
    const properties = Object.fromEntries(required.map((name: string) => [name, additionalProperties ?? {}]))
    Object.assign(json, rest, { properties, required, additionalProperties: false })
  }
}
