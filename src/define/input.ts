/** `input`: an asset whose value is given to a run, and not made by it. */
import { encodeMsgpack } from '../../streams/codec.ts'
import { InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { AssetSpec, StoredValue } from '../../streams/schemas.ts'
import { shapeOf } from '../../streams/shape.ts'
import type { AnyAsset, Asset, Definition } from './asset-type.ts'
import { isStandardSchema, jsonSchemaOf, type StandardSchema } from './standard-schema.ts'

/** `N`: its name. `V`: what assets that depend on it get. `G`: what a run is given. */
export type Input<N extends string = string, V = unknown, G = V> = Asset<
  N,
  V,
  undefined extends G ? { readonly [K in N]?: G } : { readonly [K in N]: G }
>

/**
 * Declares an input of a pipeline: `input('order', z.object({ id: z.string() }))`. A run is given
 * its value: `materialize(invoice, { input: { order: { id: 'o-1' } } })`.
 *
 * `schema`: of zod, or of any library that follows Standard Schema and can say itself as JSON
 * Schema. What is given is checked before the run exists, and stands on the log as it was given.
 * Assets get what the schema makes of it: with its defaults and transforms. A schema that takes
 * undefined makes the input optional.
 *
 * Throws InvalidError for a schema that JSON Schema cannot say.
 */
export function input<const N extends string, G, V>(name: N, schema: StandardSchema<G, V>): Input<N, V, G> {
  checkName('input name', name)
  const at = `input ${name}`
  if (!isStandardSchema(schema))
    throw new InvalidError(`${at}: give it a schema, such as z.object({ … }); any that follows Standard Schema`)
  const json = jsonSchemaOf(at, schema)
  const absent = absentOf(schema, json)
  const spec: Omit<AssetSpec, 'shape'> = {
    name,
    dependsOn: [],
    input: { schema: json, ...(absent ? { absent } : {}) },
    queue: 'default',
    priority: 1,
    retry: { maxAttempts: 1, backoffMinMs: 0, backoffMaxMs: 0 },
  }
  const definition: Definition = {
    dependsOn: [],
    spec: { ...spec, shape: shapeOf(spec) },
    io: 'nats',
    inputSchema: schema,
    execute: () => {
      throw new InvalidError(`${at}: it is given to a run, and has no code`)
    },
  }
  return { name, definition }
}

/** What stands for an input that a run is not given; undefined: it must be given. */
function absentOf(schema: StandardSchema<unknown, unknown>, json: Record<string, unknown>): StoredValue | undefined {
  if ('default' in json) return { json: json.default }
  const result = schema['~standard'].validate(undefined)
  if (result instanceof Promise) {
    result.catch(() => undefined)
    return undefined
  }
  return result.issues ? undefined : { msgpack: Buffer.from(encodeMsgpack(undefined)).toString('base64') }
}

/** Inputs by name: those of the pipeline that an asset goes back to. */
export function inputsUpstream(asset: AnyAsset): Map<string, AnyAsset> {
  const found = new Map<string, AnyAsset>()
  const seen = new Set<AnyAsset>()
  const visit = (one: AnyAsset): void => {
    if (seen.has(one)) return
    seen.add(one)
    if (one.definition.inputSchema) found.set(one.name, one)
    for (const dependency of one.definition.dependsOn) visit(dependency)
  }
  visit(asset)
  return found
}

/** What each of them takes, by its name. */
export function schemasUpstream(asset: AnyAsset): Map<string, StandardSchema<unknown, unknown>> {
  const schemas = new Map<string, StandardSchema<unknown, unknown>>()
  for (const [name, { definition }] of inputsUpstream(asset))
    if (definition.inputSchema) schemas.set(name, definition.inputSchema)
  return schemas
}
