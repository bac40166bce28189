/** `concurrency` of a pipeline, and of a run: how many runs are active at a time. */
import { shortKey } from '../../projections/run/concurrency-key.ts'
import { InvalidError } from '../../streams/errors.ts'
import { type ConcurrencySpec, type OnConflict, onConflict, type RunConcurrency } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import { checkText } from '../../streams/text.ts'
import { refuseUnknown } from '../options/unknown.ts'

interface Common {
  /** How many runs of the key are active at a time, 1 to 1,000. */
  readonly limit: number
  /**
   * What becomes of a run while there is no room. `queue` (default): it waits, first come first
   * served. `skip`: it ends at once, as cancelled, and `result()` rejects with `run_skipped`.
   * `cancel_running`: it takes the place of the oldest, which is cancelled, before all that wait
   * with `queue`.
   */
  readonly onConflict?: OnConflict
}

/** How many runs of a key are active at a time, for `materialize` and the like. */
export interface RunConcurrencyOptions extends Common {
  /** Any text, such as a customer. Default: one key for the whole pipeline. */
  readonly key?: string
}

/** How many runs of a pipeline are active at a time. */
export interface PipelineConcurrency extends Common {
  /**
   * What makes the key of a run: its partition, one of its tags, or a member of its input, such as
   * `{ input: 'order.customer' }`. Runs that lack it share one key. Default: one key for all.
   */
  readonly key?: 'partition' | { readonly tag: string } | { readonly input: string }
}

const LIMIT_MAX = 1000

/** Throws InvalidError that names the field. None: undefined. */
export function parseRunConcurrency(at: string, given: unknown): RunConcurrency | undefined {
  if (given === undefined) return undefined
  const { key = '', ...common } = parseCommon(at, given)
  if (typeof key !== 'string') throw new InvalidError(`${at}.key must be text, got ${typeof key}`)
  checkText(`${at}.key`, key)
  return { key: shortKey(key), ...common }
}

/** `inputs`: the names of the pipeline's inputs. Throws InvalidError that names the field. */
export function parsePipelineConcurrency(
  at: string,
  given: unknown,
  inputs: readonly string[],
): ConcurrencySpec | undefined {
  if (given === undefined) return undefined
  const { key, ...common } = parseCommon(at, given)
  if (key === undefined) return common
  if (key === 'partition') return { key, ...common }
  const [[kind, name] = [], ...more] = typeof key === 'object' && key !== null ? Object.entries(key) : []
  if (more.length === 0 && typeof name === 'string' && name !== '') {
    if (kind === 'tag') return { key: { tag: name }, ...common }
    if (kind === 'input') {
      const [input = ''] = name.split('.')
      if (!inputs.includes(input))
        throw new InvalidError(
          `${at}.key: there is no input ${input}; name an input of the pipeline, and a member of it`,
        )
      return { key: { input: name }, ...common }
    }
  }
  throw new InvalidError(`${at}.key must be 'partition', { tag: 'name' } or { input: 'order.customer' }`)
}

function parseCommon(at: string, given: unknown): { key?: unknown; limit: number; onConflict: OnConflict } {
  if (typeof given !== 'object' || given === null) throw new InvalidError(`${at} must be an object: { limit: 1 }`)
  refuseUnknown(at, given, ['key', 'limit', 'onConflict'])
  const { key, limit, onConflict: what = 'queue' }: { key?: unknown; limit?: unknown; onConflict?: unknown } = given
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > LIMIT_MAX)
    throw new InvalidError(`${at}.limit must be a whole number from 1 to ${LIMIT_MAX}, got ${shown(limit)}`)
  const checked = onConflict.safeParse(what)
  if (!checked.success)
    throw new InvalidError(`${at}.onConflict must be queue, skip or cancel_running, got ${shown(what)}`)
  return { ...(key === undefined ? {} : { key }), limit, onConflict: checked.data }
}
