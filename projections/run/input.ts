/** What a run is given by a message: which inputs it needs, and what stands on the log for them. */
import { encodeMsgpack } from '../../streams/codec.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import type { PipelineSpec, StoredValue } from '../../streams/schemas.ts'
import { isJsonSafe } from '../../streams/value.ts'
import { specOf } from '../state.ts'
import { upstreamOf } from './plan.ts'

/** A value that is to be checked by a JSON Schema. The engine does it: it may take long. */
export interface GivenValue {
  readonly name: string
  readonly schema: Readonly<Record<string, unknown>>
  readonly value: unknown
}

/** What a run is given, by name; or why that cannot be. */
export function inputOf(
  pipeline: PipelineSpec,
  target: string,
  input: Readonly<Record<string, unknown>>,
): { readonly reason: string } | { readonly stored?: Record<string, StoredValue>; readonly checks: GivenValue[] } {
  if (specOf(pipeline, target)?.input) return { reason: `${target} is an input; name an asset that depends on it` }
  const wanted = upstreamOf(pipeline, target).flatMap((name) => {
    const spec = specOf(pipeline, name)
    return spec?.input ? [{ name, ...spec.input }] : []
  })
  const names = wanted.map(({ name }) => name)
  const unknown = Object.keys(input).find((name) => !names.includes(name))
  if (unknown !== undefined) {
    const why = names.length === 0 ? `; ${target} goes back to no input` : nearest(unknown, names)
    return { reason: `input: there is no input ${unknown}${why}` }
  }
  const stored: Record<string, StoredValue> = {}
  const checks: GivenValue[] = []
  for (const { name, schema, absent } of wanted) {
    const value = input[name]
    const has = Object.hasOwn(input, name)
    if (!has && !absent) return { reason: `input: ${name} is missing, and ${target} needs it` }
    stored[name] = !has && absent ? absent : inlineValue(value)
    if (has) checks.push({ name, schema, value })
  }
  return { checks, ...(wanted.length === 0 ? {} : { stored }) }
}

/** A value that was decoded from a small message. */
function inlineValue(value: unknown): StoredValue {
  return isJsonSafe(value) ? { json: value } : { msgpack: Buffer.from(encodeMsgpack(value)).toString('base64') }
}
