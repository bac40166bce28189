/**
 * How long a run is kept. An asset's own `retention` counts before that of its pipeline, and that
 * before the one of the namespace, each of its fields by itself.
 */
import type { RetentionSpec } from '../../streams/retention.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'

/** What was asked for by a person: it counts in place of ages. */
export interface PruneOrder {
  /** Runs that ended before this time. Undefined: by their retention. */
  readonly beforeMs?: number
  /** Only runs of this pipeline. */
  readonly pipeline?: string
}

export class Policies {
  readonly #namespace: RetentionSpec
  readonly #newest: (pipeline: string) => Pick<PipelineSpec, 'assets' | 'retention'> | undefined
  readonly #order: PruneOrder

  /** `newest`: the version of a pipeline that was registered last. */
  constructor(
    namespace: RetentionSpec,
    newest: (pipeline: string) => Pick<PipelineSpec, 'assets' | 'retention'> | undefined,
    order: PruneOrder = {},
  ) {
    this.#namespace = namespace
    this.#newest = newest
    this.#order = order
  }

  /**
   * Runs that ended before this time are not kept for their age. Undefined: all are kept. `failed`:
   * how the run ended.
   */
  keptFromMs(pipeline: string, target: string, failed: boolean, nowMs: number): number | undefined {
    const { beforeMs, pipeline: only } = this.#order
    if (only !== undefined && only !== pipeline) return undefined
    if (beforeMs !== undefined) return beforeMs
    const ms = this.ageMs(pipeline, target, failed)
    return ms === undefined || ms === 0 ? undefined : nowMs - ms
  }

  /** How long it is kept after its end; 0: for ever; undefined: nobody has said. */
  ageMs(pipeline: string, target: string, failed: boolean): number | undefined {
    const levels = this.#levels(pipeline, target)
    const runs = firstOf(levels.map(({ runsMs }) => runsMs))
    return failed ? (firstOf(levels.map(({ failedMs }) => failedMs)) ?? runs) : runs
  }

  /** Runs that made one of so many newest values of the asset are kept. Undefined: not for that. */
  keepLast(pipeline: string, asset: string): number | undefined {
    return firstOf(this.#levels(pipeline, asset).map(({ keepLast }) => keepLast))
  }

  /** Whether a person asked for runs by their age. */
  get isByAge(): boolean {
    return this.#order.beforeMs !== undefined
  }

  /** Facts of no run stay as long as any run of the namespace would. */
  looseKeptFromMs(nowMs: number): number | undefined {
    const { beforeMs, pipeline } = this.#order
    if (pipeline !== undefined) return undefined
    const { runsMs, failedMs = runsMs } = this.#namespace
    if (beforeMs !== undefined) return beforeMs
    if (!runsMs || !failedMs) return undefined
    return nowMs - Math.max(runsMs, failedMs)
  }

  #levels(pipeline: string, asset: string): RetentionSpec[] {
    const spec = this.#newest(pipeline)
    const own = spec?.assets.find(({ name }) => name === asset)?.retention
    return [own ?? {}, spec?.retention ?? {}, this.#namespace]
  }
}

/** The shortest age that a spec has, for how often there is something to do. */
export function shortestMs(specs: readonly (RetentionSpec | undefined)[]): number | undefined {
  const ages = specs.flatMap((spec) => [spec?.runsMs, spec?.failedMs]).filter((ms) => ms !== undefined && ms > 0)
  return ages.length === 0 ? undefined : Math.min(...(ages as number[]))
}

function firstOf<T>(values: readonly (T | undefined)[]): T | undefined {
  return values.find((value) => value !== undefined)
}
