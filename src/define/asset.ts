/** `asset`: a named piece of data, what it depends on, and the function that makes it. */
import type { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import { shapeOf } from '../../streams/shape.ts'
import { parseDuration } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { checkParts, parseInstanceOptions, parsePriority, parseRetry, parseVolatile, positive } from './asset-checks.ts'
import type {
  AfterRun,
  CommonOptions,
  GatherOptions,
  InstanceOptions,
  PlainOptions,
  ScatterOptions,
} from './asset-options.ts'
import { type AnyAsset, type Asset, type Definition, type FailureMode, type InputsOf, isAsset } from './asset-type.ts'
import { parseCodeVersion, schemaHash } from './code-version.ts'
import { parseRateLimit, parseSlots } from './limits.ts'
import { parseAssetRetention } from './retention.ts'

const ALLOWED = [
  'dependsOn',
  'queue',
  'priority',
  'timeout',
  'retry',
  'io',
  'slots',
  'codeVersion',
  'volatile',
  'retention',
  'payloadSchema',
  'execute',
  'onSignal',
  'onTimeout',
  'onRun',
  'scatter',
  'scatterOptions',
  'gather',
]

/**
 * Declares an asset. Three forms: plain (`execute`), scatter (`scatter` and `execute`; the value is
 * the list of `{ key, value }`), and scatter with `gather`. Throws InvalidError that names the
 * option at fault.
 */
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  K = never,
  I = unknown,
  V = never,
  const F extends FailureMode = 'all_or_nothing',
  P = unknown,
  R = never,
>(name: N, options: GatherOptions<D, K, I, V, F, P, R>): Asset<N, V, InputsOf<D>>
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  K = never,
  I = unknown,
  P = unknown,
  R = never,
>(
  name: N,
  options: ScatterOptions<D, K, I, FailureMode, P, R>,
): Asset<N, { key: K; value: AfterRun<I, R> }[], InputsOf<D>>
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  V = unknown,
  P = unknown,
  R = never,
>(name: N, options: PlainOptions<D, V, P, R>): Asset<N, AfterRun<V, R>, InputsOf<D>>
export function asset(
  name: string,
  options: CommonOptions<readonly AnyAsset[]> &
    Pick<Definition, 'execute' | 'onSignal' | 'onTimeout' | 'onRun'> & {
      scatter?: Definition['scatter'] | undefined
      gather?: Definition['gather'] | undefined
      scatterOptions?: InstanceOptions<FailureMode, never> | undefined
      payloadSchema?: z.ZodType | undefined
    },
): AnyAsset {
  checkName('asset name', name)
  const at = `asset ${name}`
  if (typeof options !== 'object' || options === null)
    throw new InvalidError(`${at}: options must be an object with execute`)
  refuseUnknown(at, options, ALLOWED)
  checkParts(at, options)
  const dependsOn = options.dependsOn ?? []
  if (!Array.isArray(dependsOn)) throw new InvalidError(`${at}: dependsOn must be an array of assets`)
  for (const [i, dependency] of dependsOn.entries()) {
    if (!isAsset(dependency)) {
      throw new InvalidError(
        `${at}: dependsOn[${i}] is no asset (${dependency === undefined ? 'undefined: is it declared further down, or imported in a circle?' : typeof dependency})`,
      )
    }
  }
  const names = dependsOn.map((dependency) => dependency.name)
  const twice = names.find((dependency, i) => names.indexOf(dependency) !== i)
  if (twice !== undefined) throw new InvalidError(`${at}: dependsOn names ${twice} twice`)
  const rate = options.scatterOptions?.rateLimit
  const paced = rate === undefined ? undefined : parseRateLimit(`${at}: scatterOptions: rateLimit`, rate)
  const slots = options.slots === undefined ? undefined : parseSlots(`${at}: slots`, options.slots)
  const own = options.scatterOptions?.slots
  const ownSlots = own === undefined ? undefined : parseSlots(`${at}: scatterOptions: slots`, own)
  const held = ownSlots ?? slots
  const scatterSpec = options.scatter && {
    ...parseInstanceOptions(at, options.scatterOptions ?? {}),
    ...(paced ? { rateLimit: paced.spec } : {}),
    ...(held ? { slots: held.spec } : {}),
    ...(options.gather ? { gather: true } : {}),
  }
  const graph: Omit<AssetSpec, 'shape'> = {
    name,
    dependsOn: names,
    ...(scatterSpec ? { scatter: scatterSpec } : {}),
    ...(slots ? { slots: slots.spec } : {}),
    ...(!scatterSpec && (paced || held) ? { limited: true } : {}),
    queue: checkName(`${at}: queue`, options.queue ?? 'default'),
    priority: parsePriority(`${at}: priority`, options.priority),
    ...(options.timeout === undefined
      ? {}
      : { timeoutMs: positive(`${at}: timeout`, parseDuration(`${at}: timeout`, options.timeout)) }),
    retry: parseRetry(`${at}: retry`, options.retry),
    ...(options.onTimeout ? { onTimeout: true } : {}),
    ...(options.onSignal ? { onSignal: true } : {}),
    ...(options.onRun ? { onRun: true } : {}),
    ...(options.payloadSchema === undefined ? {} : { payloadSchema: schemaHash(at, options.payloadSchema) }),
    ...(parseVolatile(at, options.volatile) ? { volatile: true } : {}),
    ...(options.codeVersion === undefined ? {} : { codeVersion: parseCodeVersion(at, options.codeVersion) }),
  }
  const retention = options.retention && { retention: parseAssetRetention(`${at}: retention`, options.retention) }
  // How long something is kept changes nothing of what the code expects.
  const spec: AssetSpec = { ...graph, ...retention, shape: shapeOf(graph) }
  const { execute, onSignal, onTimeout, onRun, scatter, gather, payloadSchema } = options
  const definition: Definition = {
    dependsOn,
    spec,
    io: options.io ?? 'nats',
    ...(paced || held
      ? { limits: { ...(paced ? { rate: paced.limit } : {}), ...(held ? { slots: held.limit } : {}) } }
      : {}),
    execute,
    ...(onSignal ? { onSignal } : {}),
    ...(onTimeout ? { onTimeout } : {}),
    ...(onRun ? { onRun } : {}),
    ...(scatter ? { scatter } : {}),
    ...(gather ? { gather } : {}),
    ...(payloadSchema ? { payloadSchema } : {}),
  }
  return { name, definition }
}
