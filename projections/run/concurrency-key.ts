/** Groups of runs, and the key of one where its pipeline says what makes it. */
import { decode } from '../../streams/codec.ts'
import { hash64 } from '../../streams/ids.ts'
import { canonicalKey } from '../../streams/keys.ts'
import type { ConcurrencySpec, PipelineSpec, RunConcurrency, StoredValue } from '../../streams/schemas.ts'
import { type ConcurrencyState, type Key, stateKey } from '../state.ts'

const KEY_MAX = 512

/** The name of a group, as it stands in keys. The shard of its runs follows from it. */
export function groupOf(pipeline: string, { key }: Pick<RunConcurrency, 'key'>): string {
  const text = `${pipeline} ${key}`
  return `${hash64(text)}${hash64(`${text}#`)}`
}

export function groupKey(pipeline: string, concurrency: RunConcurrency | undefined): Key<ConcurrencyState> | undefined {
  return concurrency && stateKey.concurrency(pipeline, groupOf(pipeline, concurrency))
}

/** What the key may follow from. `input`: the value that was given under a name. */
export interface KeySource {
  readonly partition?: string | undefined
  readonly tags?: Readonly<Record<string, string>> | undefined
  readonly input: (name: string) => unknown
}

/** Undefined when the pipeline sets no limit. */
export function concurrencyOf({ concurrency }: PipelineSpec, source: KeySource): RunConcurrency | undefined {
  if (!concurrency) return undefined
  const { limit, onConflict } = concurrency
  return { key: shortKey(keyOf(concurrency.key, source)), limit, onConflict }
}

/** Runs without the partition, tag or member that makes the key share one key, which is empty. */
function keyOf(key: ConcurrencySpec['key'], { partition, tags, input }: KeySource): string {
  if (key === undefined) return ''
  if (key === 'partition') return partition ?? ''
  if ('tag' in key) return tags?.[key.tag] ?? ''
  const [name = '', ...members] = key.input.split('.')
  let value: unknown = input(name)
  for (const member of members)
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, member)
        ? Reflect.get(value, member)
        : undefined
  if (value === undefined || value === null) return ''
  if (typeof value === 'string') return value
  try {
    return canonicalKey(value)
  } catch {
    return ''
  }
}

/** A long text stands for itself by its hash. */
export function shortKey(text: string): string {
  return text.length <= KEY_MAX ? text : `#${hash64(text)}${hash64(`${text}#`)}`
}

/** A given value, where it stands in the fact; one that is kept elsewhere counts as none. */
export function givenValue(stored: StoredValue | undefined): unknown {
  if (!stored || 'manager' in stored) return undefined
  if ('json' in stored) return stored.json
  try {
    return decode(Buffer.from(stored.msgpack, 'base64'), undefined)
  } catch {
    return undefined
  }
}
