/**
 * Schemas of any library that follows Standard Schema (standardschema.dev), such as zod, valibot
 * and ArkType. They must be able to say themselves as JSON Schema, because engines and other
 * languages check by that.
 */
import { z } from 'zod'
import { InvalidError, messageOf } from '../../streams/errors.ts'

/** The part of Standard Schema 1 that is used here. */
export interface StandardSchema<I = unknown, O = I> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    /** Gives the value as it is from here on, or what is wrong with it. */
    readonly validate: (value: unknown) => StandardResult<O> | Promise<StandardResult<O>>
    readonly types?: { readonly input: I; readonly output: O } | undefined
  }
}

/** What a Standard Schema says of a value: what it makes of it, or what is wrong. */
export type StandardResult<O> =
  | { readonly value: O; readonly issues?: undefined }
  | { readonly issues: readonly StandardIssue[] }

/** One thing that is wrong with a value, and where. */
export interface StandardIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** JSON Schema of what such a schema takes, at most this long. */
export const SCHEMA_MAX_BYTES = 64 * 1024
const ISSUES_MAX = 8

export function isStandardSchema(value: unknown): value is StandardSchema {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false
  const standard: unknown = Reflect.get(value, '~standard')
  return typeof standard === 'object' && standard !== null && typeof Reflect.get(standard, 'validate') === 'function'
}

/** Throws InvalidError for a schema that cannot say itself as JSON Schema. */
export function jsonSchemaOf(at: string, schema: StandardSchema): Record<string, unknown> {
  let json: Record<string, unknown>
  try {
    json = saidBy(schema)
    delete json['~standard']
    z.fromJSONSchema(json)
  } catch (cause) {
    throw new InvalidError(`${at}: its schema must be one that JSON Schema can say: ${messageOf(cause)}`, { cause })
  }
  if (Buffer.byteLength(JSON.stringify(json)) > SCHEMA_MAX_BYTES)
    throw new InvalidError(`${at}: its schema, as JSON Schema, must take at most ${SCHEMA_MAX_BYTES} bytes`)
  return json
}

/** Also of another copy of zod. */
function isZod(schema: object): schema is z.ZodType {
  return '_zod' in schema
}

function saidBy(schema: StandardSchema): Record<string, unknown> {
  if (isZod(schema)) return { ...z.toJSONSchema(schema, { io: 'input' }) }
  const said: unknown = Reflect.get(schema['~standard'], 'jsonSchema')
  const make: unknown = typeof said === 'object' && said !== null ? Reflect.get(said, 'input') : undefined
  if (typeof make !== 'function')
    throw new Error(
      `${schema['~standard'].vendor} does not offer ~standard.jsonSchema; see its page on Standard Schema`,
    )
  return { ...make.call(said, { target: 'draft-2020-12' }) }
}

/** What the schema makes of a value. Throws InvalidError that names the place: `order.total: …`. */
export async function parseWith<O>(at: string, schema: StandardSchema<unknown, O>, value: unknown): Promise<O> {
  const result = await schema['~standard'].validate(value)
  if (!result.issues) return result.value
  throw new InvalidError(issuesIn(at, result.issues))
}

export function issuesIn(at: string, issues: readonly StandardIssue[]): string {
  const shown = issues.slice(0, ISSUES_MAX).map(({ message, path }) => `${placeOf(at, path)}: ${message}`)
  const more = issues.length - shown.length
  return `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`
}

function placeOf(at: string, path: StandardIssue['path']): string {
  return (path ?? []).reduce<string>((place, part) => {
    const key = typeof part === 'object' ? part.key : part
    return typeof key === 'number' ? `${place}[${key}]` : `${place}.${String(key)}`
  }, at)
}
