/** `flow.inspect`: looks at a namespace as people do, who want to see much at a glance. */
import { InvalidError } from '../../../streams/errors.ts'
import { parseRunId } from '../../../streams/ids.ts'
import { type LogFilter, type LogsPage, logsPage } from '../logs.ts'
import type { RunDeps } from '../run-view.ts'
import { type AssetState, assetStates } from './assets.ts'
import { type StateChanges, stateChanges } from './changes.ts'
import {
  type FactsBehind,
  type FactsOptions,
  type FactsPage,
  type FactView,
  factsBehind,
  factsPage,
  type RailPoint,
  railOf,
  runFactsPage,
} from './facts.ts'
import {
  type ErrorGroups,
  type ErrorsOptions,
  errorGroups,
  FailuresRead,
  type InstanceFailure,
  scatterFailures,
} from './failures.ts'
import { type InstanceView, instanceView } from './instance.ts'
import { type Load, loadOf } from './load.ts'
import { MapWatch } from './map-watch.ts'
import { type PipelineGraph, pipelineGraph, pipelineGraphs } from './pipelines.ts'
import { type MapOptions, type MapTile, mapTiles, type ScatterMap, scatterMap } from './scatter-map.ts'
import { type Span, timelineOf } from './timeline.ts'
import { type EngineView, engineViews, type ShardView, shardViews, type WorkerView, workerViews } from './workers.ts'

const FAILURES_MAX = 1000

/**
 * `flow.inspect`: what the HTTP API shows and nothing else of the client does. Meant for people,
 * not for loops. From the state, which may lag the log by some 50 ms.
 */
export class Inspect {
  readonly #deps: RunDeps
  readonly #failuresRead = new FailuresRead()

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /** All pipelines, by name: the versions that were registered last. */
  async pipelines(): Promise<PipelineGraph[]> {
    return await pipelineGraphs(this.#deps)
  }

  /** One of them; undefined where no such pipeline is registered. */
  async pipeline(name: string): Promise<PipelineGraph | undefined> {
    return await pipelineGraph(this.#deps, name)
  }

  /** Assets with their newest values and what runs do to them: of all pipelines, or of one. */
  async assets(pipeline?: string): Promise<AssetState[]> {
    return await assetStates(this.#deps, pipeline)
  }

  /** The state of each instance of a scatter: at most 10 million at a time. Throws `not_found`. */
  async map(scatter: string, options: MapOptions = {}): Promise<ScatterMap> {
    return await scatterMap(this.#deps, scatter, options)
  }

  /** The same as counts of tiles of `size` instances, from 1,000 on. */
  async tiles(scatter: string, size: number): Promise<MapTile[]> {
    if (!Number.isSafeInteger(size) || size < 1000)
      throw new InvalidError('tiles: size must be a whole number from 1000')
    return await mapTiles(this.#deps, scatter, size)
  }

  /**
   * Failed instances by error, most first; of an open scatter, too. Of the first 100,000. What was
   * read of the last scatters is kept.
   */
  async errors(scatter: string, options: ErrorsOptions = {}): Promise<ErrorGroups> {
    const { instances, withinMs = 0 } = options
    if (Number.isNaN(withinMs) || withinMs < 0) throw new InvalidError('errors: withinMs must be a number from 0')
    if (instances !== undefined && (!Number.isSafeInteger(instances) || instances < 0))
      throw new InvalidError('errors: instances must be a whole number from 0')
    return await errorGroups(this.#deps, this.#failuresRead, scatter, options)
  }

  /**
   * Failed instances in order, from an index on; of an open scatter, too. At most `limit` (default
   * 100, at most 1,000).
   */
  async failures(
    scatter: string,
    { from = 0, limit = 100 }: { readonly from?: number; readonly limit?: number } = {},
  ): Promise<(InstanceFailure & { readonly key: unknown })[]> {
    if (!Number.isInteger(limit) || limit < 1 || limit > FAILURES_MAX)
      throw new InvalidError(`failures: limit must be a whole number from 1 to ${FAILURES_MAX}`)
    return await scatterFailures(this.#deps, scatter, { from, limit })
  }

  /** One instance, its key and its attempts. Throws `not_found`. */
  async instance(scatter: string, index: number): Promise<InstanceView> {
    return await instanceView(this.#deps, scatter, index)
  }

  /** When what of a run ran or waited. Empty where there is no such run. */
  async timeline(run: string): Promise<Span[]> {
    return await timelineOf(this.#deps, run)
  }

  /** Facts of the logs, newest first. Those of sealed runs are in their histories only. */
  async facts(options: FactsOptions = {}): Promise<FactsPage> {
    return await factsPage(this.#deps, options)
  }

  /** Facts of a run in order, behind a sequence: at most `limit`. Also of a sealed run. */
  async factsOfRun(
    run: string,
    { after = 0, limit = 100 }: { readonly after?: number; readonly limit?: number } = {},
  ): Promise<FactView[]> {
    return await runFactsPage(this.#deps, parseRunId(run).id, after, limit)
  }

  /** Lines of `ctx.log` of a run, a page of at most `limit` (default 1,000). */
  async logs(
    run: string,
    options: LogFilter & { readonly cursor?: string | undefined; readonly limit?: number } = {},
  ): Promise<LogsPage> {
    return await logsPage(this.#deps, run, options)
  }

  /**
   * Facts since a look before, whose `ends` it takes; without them, where the logs end. Of more
   * than 500 facts of a log only the newest 100.
   */
  async factsBehind(ends?: readonly number[]): Promise<FactsBehind> {
    return await factsBehind(this.#deps, ends)
  }

  /** How many facts were stored when. */
  async rail(from: Date, to: Date, points: number): Promise<RailPoint[]> {
    return await railOf(this.#deps, from, to, points)
  }

  /**
   * Names of what changes, as hints, at most one list each `everyMs`, until `signal` is aborted.
   * The first one says that all may have changed. `logs`: runs whose new lines are
   * reported, too.
   */
  changes(
    everyMs: number,
    signal: AbortSignal,
    { logs = [] }: { readonly logs?: readonly string[] } = {},
  ): AsyncGenerator<StateChanges> {
    return stateChanges(this.#deps, everyMs, signal, logs)
  }

  /** The map of a scatter that is looked at again and again. */
  mapWatch(scatter: string): MapWatch {
    return new MapWatch(this.#deps, scatter)
  }

  /** Workers that left their names. Asks them, which takes some 30 ms. */
  async workers(): Promise<WorkerView[]> {
    return await workerViews(this.#deps)
  }

  /** What waits in queues, and what streams hold. As counts, and so cheap. */
  async load(): Promise<Load> {
    return await loadOf(this.#deps)
  }

  /** Engines that are active or stand by. Asks them, which takes some 100 ms. */
  async engines(): Promise<EngineView[]> {
    return await engineViews(this.#deps)
  }

  /** The shards of the log, and which engine is active on each. */
  async shards(): Promise<ShardView[]> {
    return await shardViews(this.#deps)
  }
}
