/** `Flow`: all that there is to do with a namespace. */
import { randomBytes } from 'node:crypto'
import type { AuditEntry } from '../../projections/audit.ts'
import type { Finding } from '../../projections/doctor/finding.ts'
import type { RunRequest } from '../../projections/run/request.ts'
import type { Why } from '../../projections/why/types.ts'
import type { FlowStoneError } from '../../streams/errors.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { LogLine } from '../../streams/logs.ts'
import type { Topology, TopologyOptions } from '../../streams/topology.ts'
import type { AnyAsset, Asset, InputOf } from '../define/asset-type.ts'
import { schemasUpstream } from '../define/input.ts'
import type { Pipeline } from '../define/pipeline.ts'
import type { OnFailed, RunOptions } from '../define/run-options.ts'
import { type ExportOptions, type ExportReport, exportRuns } from '../engine/archive/export.ts'
import { type ImportOptions, type ImportReport, importArchives } from '../engine/archive/import.ts'
import { type Engine, type EngineOptions, startEngine } from '../engine/engine.ts'
import { type RebuildReport, rebuild } from '../engine/rebuild.ts'
import type { VerifyReport } from '../engine/verify/report.ts'
import type { VerifyOptions } from '../engine/verify/verify.ts'
import { Gates } from '../gates/gates.ts'
import { Refusals } from '../gates/refused.ts'
import { type GateSettings, gateSettings } from '../gates/settings.ts'
import { Io, type IoManager } from '../io/manager.ts'
import { natsIo } from '../io/nats.ts'
import { Limiter } from '../limiter/limiter.ts'
import type { Connection, ConnectionStatus } from '../log/connection.ts'
import { liveSource } from '../log/doc-source.ts'
import { mustBeReady } from '../log/ready.ts'
import { loggerOf } from '../logs/logger.ts'
import { atMost } from '../options/timer.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { ownerOf, placeOf, targetOf } from '../runs/owner.ts'
import { registeredPipeline } from '../runs/registered.ts'
import { requestFresh, requestUnderKey } from '../runs/request.ts'
import { parseOnFailed, runRequestOf } from '../runs/run-request.ts'
import type { Logger } from '../telemetry.ts'
import type { WorkerOptions } from '../worker/options.ts'
import { Worker } from '../worker/worker.ts'
import { type Adopted, adopt } from './adopt.ts'
import { Appenders } from './appenders.ts'
import { FlowAt, type When } from './at.ts'
import { type AuditOptions, audit } from './audit.ts'
import { checkBy, whoActs } from './by.ts'
import { closeOnSignals } from './close-on-signals.ts'
import { type DiffOptions, diff, type FlowDiff } from './diff.ts'
import { type DoctorOptions, doctor } from './doctor/doctor.ts'
import { Events } from './events.ts'
import { type HistoryEntry, history } from './history.ts'
import { Inspect } from './inspect/inspect.ts'
import { type LogsOptions, logs } from './logs.ts'
import type { Namespace } from './namespace.ts'
import { type ConnectOptions, MATERIALIZE_OPTIONS, type MaterializeOptions, RUN_OPTIONS } from './options.ts'
import { Parts } from './parts.ts'
import { Proof } from './proof.ts'
import { registerPipeline, registrationKey } from './register.ts'
import { Retention } from './retention.ts'
import { type RunRetryOptions, retryRun } from './retry.ts'
import { Run } from './run.ts'
import type { RunDeps, RunView } from './run-view.ts'
import { listRuns, type RunsOptions } from './runs.ts'
import { Scatters } from './scatter.ts'
import { Schedules } from './schedules.ts'
import { Sensors } from './sensors.ts'
import { Triggers } from './triggers.ts'
import { type AssetValue, assetValue, partitionsOf, type ValueOptions } from './values.ts'
import { problemsOf, verifyNamespace } from './verify.ts'
import { type WhyTarget, why } from './why.ts'

/** How long a close waits for what is on its way to the streams; and while the server is away. */
const FLUSH_MS = 10_000

/** A connection to a namespace, from `connect`. Close it at the end (`await using flow = …`). */
export class Flow {
  readonly #connection: Connection
  readonly #namespace: Namespace
  readonly #gateSettings: GateSettings
  readonly #refusals: Refusals
  readonly #io: Io
  readonly #logger: Logger
  readonly #options: ConnectOptions
  readonly #parent: Flow | undefined
  readonly #by: string | undefined
  readonly #appenders: Appenders
  readonly #registered: Map<string, Promise<void>>
  readonly #parts: Parts
  #closing: Promise<void> | undefined
  /**
   * Resolves when the connection is closed: with undefined after `close()`, else with the reason
   * (FlowStoneError `closed`). Then its workers and engines are stopped; start the process again.
   */
  readonly closed: Promise<FlowStoneError | undefined>
  /** Look into scatters, and act on them. */
  readonly scatter: Scatters
  /** What outsiders asked for and could not get. */
  readonly triggers: Triggers
  /** Messages of subscriptions: those that were refused, and what others would start. */
  readonly events: Events
  /** Look at schedules, and act on them. */
  readonly schedules: Schedules
  /** Look at sensors. */
  readonly sensors: Sensors
  /** Whether the log is as it was proven. */
  readonly proof: Proof
  /** Looks for people, who want to see much at a glance: graphs, maps, pages of the log. */
  readonly inspect: Inspect
  /** Answer signal gates, look at them, and act on them. */
  readonly gates: Gates
  /** Take away runs that are older than they are kept. */
  readonly retention: Retention
  /** Rate limits and slots, over all processes of the namespace. */
  readonly limiter: Limiter

  constructor(connection: Connection, namespace: Namespace, options: ConnectOptions, parent?: Flow) {
    this.#connection = connection
    this.#namespace = namespace
    this.#options = options
    this.#parent = parent
    this.#logger = loggerOf(options.logger)
    this.#by = whoActs(options.by, connection.user)
    const managers = (): Map<string, IoManager> =>
      new Map([['nats', natsIo(connection, namespace.names)], ...Object.entries(options.io ?? {})])
    this.#io = parent ? parent.#io : new Io(connection, managers())
    this.limiter =
      parent?.limiter ??
      new Limiter({
        connection,
        names: namespace.names,
        id: randomBytes(4).toString('hex'),
        found: () => namespace.found(),
        foundOrMade: () => namespace.foundOrMade(),
      })
    this.#appenders = parent ? parent.#appenders : new Appenders(connection, namespace.names)
    this.#registered = parent ? parent.#registered : new Map()
    this.#parts = parent ? parent.#parts : new Parts()
    this.scatter = new Scatters(this.#runDeps())
    this.triggers = new Triggers(this.#runDeps())
    this.events = new Events(Object.assign(this.#runDeps(), { topology: () => namespace.found() }))
    this.schedules = new Schedules(this.#runDeps())
    this.sensors = new Sensors(this.#runDeps())
    this.inspect = new Inspect(this.#runDeps())
    this.proof = new Proof(this.#runDeps())
    this.retention = new Retention(this.#runDeps())
    this.#gateSettings = parent ? parent.#gateSettings : gateSettings(options.gates)
    this.#refusals = parent ? parent.#refusals : new Refusals(this.#runDeps())
    this.gates = new Gates(this.#runDeps(), this.#gateSettings, this.#refusals)
    this.closed = connection.closed
    if (!parent) void this.closed.then((reason) => (reason ? this.close() : undefined))
  }

  /** Its state, since when and why it is away, permissions denied, and streams that are full. */
  get connection(): ConnectionStatus {
    return this.#connection.status
  }

  /**
   * Resolves if this process can do its work now. Rejects within `timeoutMs` (default 2,000) when
   * the server is away, or an engine of this flow cannot work. So it does when JetStream does not
   * answer for the log, as while there is no namespace.
   */
  async ready(timeoutMs = 2000): Promise<void> {
    await mustBeReady(this.#connection, this.#namespace.names.log(0), timeoutMs, this.#parts)
  }

  get namespace(): string {
    return this.#namespace.names.ns
  }

  /** Shards. Throws `no_namespace` while there is none. */
  get shards(): number {
    return this.#namespace.topology.shards
  }

  /**
   * Makes the namespace, or what is missing of it, and sets what is named here or was at `connect`.
   * Engines do it at their start; this is for whoever wants it done before, or with fewer copies
   * (`replicas`) than there are, which nothing else does.
   */
  async setup(
    options: Omit<TopologyOptions, 'namespace'> = {},
  ): Promise<{ readonly namespace: string; readonly shards: number; readonly replicas: number }> {
    refuseUnknown('setup', options, ['shards', 'replicas', 'feedMaxAgeMs', 'logsMaxAgeMs', 'logsMaxBytes'])
    const { shards, replicas } = await this.#namespace.make(options, { fewerReplicas: true })
    return { namespace: this.namespace, shards, replicas }
  }

  /**
   * Starts a run that makes the asset. Resolves when the request is stored: from then on it goes on
   * whatever happens to this process. With a `key` that was used before it gives the run of that
   * time: see `isNew` of the handle. Throws InvalidError for bad options, ConflictError when `key`
   * was used for another request, `no_namespace` before an engine, a worker or `setup` has made the
   * namespace.
   */
  async materialize<V, G = unknown>(
    asset: Asset<string, V, G>,
    options: MaterializeOptions<InputOf<G>> = {},
  ): Promise<Run<V>> {
    refuseUnknown('materialize', options, MATERIALIZE_OPTIONS)
    const owner = ownerOf(asset, options.pipeline)
    const { spec } = owner
    const at = { at: 'materialize', pipeline: spec, target: asset.name, io: this.#io, schemas: schemasUpstream(asset) }
    const data = await runRequestOf(at, options)
    await this.register(owner)
    return await this.#start<V>(data, parseOnFailed('materialize', options))
  }

  /**
   * Starts a run by name, without its code: `flow.request('orders/invoice', { input: { … } })`. The
   * newest version of the pipeline that is registered says what the asset needs. Otherwise as
   * `materialize`. Throws `not_found` for a pipeline that is not registered, and for an asset that
   * it has not.
   */
  async request<V = unknown>(target: string, options: RunOptions = {}): Promise<Run<V>> {
    refuseUnknown('request', options, RUN_OPTIONS)
    const { pipeline, asset } = targetOf('request', target)
    await this.#namespace.found()
    const spec = await registeredPipeline('request', this.#runDeps(), pipeline)
    const data = await runRequestOf({ at: 'request', pipeline: spec, target: asset, io: this.#io }, options)
    return await this.#start<V>(data, parseOnFailed('request', options))
  }

  async #start<V>(data: RunRequest, onFailed: OnFailed): Promise<Run<V>> {
    const deps = this.#runDeps()
    const { key } = data
    const { id, isNew } =
      key === undefined ? await requestFresh(deps, data) : await requestUnderKey(deps, key, data, onFailed)
    return new Run<V>(deps, id, { isNew, ...(key === undefined ? {} : { key }) })
  }

  /**
   * The newest value of an asset in a partition, or the one that `run` made or took, with the run
   * it is of. Undefined when there is none. `asset`: as declared, or its name: `'orders/invoice'`.
   * Throws `not_found` for a name that its registered pipeline lacks.
   */
  async value<V>(asset: Asset<string, V> | string, options: ValueOptions = {}): Promise<AssetValue<V> | undefined> {
    refuseUnknown('value', options, ['partition', 'run'])
    return await assetValue<V>(this.#runDeps(), placeOf('value', asset), options)
  }

  /** The partitions in which the asset has a value, sorted; `''`: none. Throws as `value`. */
  async partitions(asset: AnyAsset | string): Promise<string[]> {
    return await partitionsOf(this.#runDeps(), placeOf('partitions', asset))
  }

  /**
   * Has an open run go on with another version of its pipeline: the newest that is registered, or
   * `pipeline`. For runs whose version no worker has any more. What has not begun is planned anew;
   * what has begun goes on, if the new version has the same dependencies, phases and schemas for
   * it. Throws FlowStoneError `not_adoptable`, which names all that does not fit (then start the
   * old version, or cancel the run), `not_found`, and `no_engine`.
   */
  async adopt(runId: string, options: { readonly pipeline?: Pipeline } = {}): Promise<Adopted> {
    const { pipeline } = options
    refuseUnknown('adopt', options, ['pipeline'])
    if (pipeline) await this.register(pipeline)
    return await adopt(this.#runDeps(), runId, pipeline?.spec)
  }

  /**
   * Starts a run that takes up an ended one: same target, partition, tags and input. It takes what
   * the earlier run made or took, and makes the rest; from an asset: that asset, and all
   * downstream. Of a scatter that failed only the instances run that did not succeed. The newest
   * registered version of the pipeline is used. Asked for twice at the same time it gives one run:
   * see `isNew` of the handle. Throws `not_retryable` for a run that is open or, without `from`,
   * has succeeded; `not_found`; ConflictError while it is tried again with other options.
   */
  async retry<V = unknown>(runId: string, options: RunRetryOptions = {}): Promise<Run<V>> {
    refuseUnknown('retry', options, ['from', 'input', 'timeout'])
    const deps = this.#runDeps()
    const { id, isNew } = await retryRun(deps, runId, options)
    return new Run<V>(deps, id, { isNew })
  }

  /** A handle on a run that was started before, here or elsewhere. */
  run<V = unknown>(id: string): Run<V> {
    return new Run<V>(this.#runDeps(), id)
  }

  /**
   * What the code of a run logged with `ctx.log`, by page in the order of time: kept for 7 days, if
   * nobody said otherwise. Throws `not_found` and `pruned` for a run that is not there.
   */
  logs(run: string, options: LogsOptions = {}): AsyncGenerator<LogLine> {
    return logs(this.#runDeps(), run, options)
  }

  /**
   * Runs, newest first. All that is named must hold: `{ target: 'orders/invoice', tag: { tenant:
   * 'a' } }`. At most `limit` (default 100). For the next page give the id of the last one as
   * `after`. Found by lists in the state, so the length of the past does not matter, but where
   * several conditions hold for few of many. Runs of `status` failed or cancelled come in the order
   * in which they ended. Evaluations of schedules and sensors are left out, unless one is the
   * `target`. A name is refused as by `value`.
   */
  async runs(options: RunsOptions = {}): Promise<RunView[]> {
    return await listRuns(this.#runDeps(), options)
  }

  /**
   * The same flow for somebody else, over the same connection: what it causes says `by`. For a
   * program that acts for several: `flow.as('user:ana').materialize(report)`. Closing one closes
   * both.
   */
  as(by: string): Flow {
    return new Flow(
      this.#connection,
      this.#namespace,
      { ...this.#options, by: checkBy('as', by) },
      this.#parent ?? this,
    )
  }

  /** What people and outside systems did, and who: newest first, from the logs and the history. */
  async audit(options: AuditOptions = {}): Promise<AuditEntry[]> {
    return await audit(this.#runDeps(), options)
  }

  /** Looks at server, streams, engines and work, and says what to do. Changes nothing. */
  async doctor(options: DoctorOptions = {}): Promise<Finding[]> {
    const { clock } = this.#namespace
    return await doctor(Object.assign(this.#runDeps(), { clock, gateKeys: this.#gateSettings.keys.ids }), options)
  }

  /** A run's facts, in order, decoded: what happened, when, by whom. */
  history(runId: string): AsyncGenerator<HistoryEntry> {
    return history(this.#runDeps(), parseRunId(runId).id)
  }

  /**
   * All as it was at a time of the server, or at a sequence: see `When`. It only reads. Its reads
   * throw `no_snapshot` for a time before what is kept, InvalidError for one that has not come yet.
   */
  at(when: When): FlowAt {
    return new FlowAt(this.#runDeps(), this.#gateSettings, when)
  }

  /** What changed between two times in runs, values, gates, scatters, schedules. `to`: now. */
  async diff(from: When, to?: When, options: DiffOptions = {}): Promise<FlowDiff> {
    return await diff(this.#runDeps(), this.#gateSettings, { from, to }, options)
  }

  /** Why a run, an asset of it, or the newest value of an asset is as it is. Throws `not_found`. */
  why(what: WhyTarget): Promise<Why> {
    return why(this.#runDeps(), what)
  }

  /**
   * Writes runs to an archive: JSON lines or Parquet, in a file, a stream or S3. See
   * docs/archive.md. Throws `not_found`, and `run_open` for a run that has not ended.
   */
  async export(options: ExportOptions): Promise<ExportReport> {
    const namespace = this.#namespace
    return await exportRuns(this.#runDeps(), options, async () => {
      await namespace.found()
      return namespace.clock.now()
    })
  }

  /**
   * Reads archives into this namespace, which must be empty or not be made yet. Runs have their
   * ids, facts, results and values as before. Throws `bad_archive`, `not_empty`, and ConflictError
   * while an engine is active. One that was broken off begins anew when it is called again.
   */
  async import(from: string | readonly string[], options: ImportOptions = {}): Promise<ImportReport> {
    const make = (wanted: TopologyOptions): Promise<Topology> => this.#namespace.make(wanted)
    const { names, clock } = this.#namespace
    const deps = { connection: this.#connection, names, clock, logOf: this.#appenders.log, make }
    const report = await importArchives(deps, from, options)
    await this.#namespace.look()
    return report
  }

  /**
   * Makes a pipeline known to the engines: its graph and options, as a fact. Workers and
   * `materialize` do it by themselves.
   */
  async register(pipeline: Pipeline): Promise<void> {
    const key = registrationKey(pipeline)
    let registering = this.#registered.get(key)
    if (!registering) {
      registering = registerPipeline(this.#connection, this.#namespace, this.#appenders.log, pipeline, this.#by)
      this.#registered.set(key, registering)
      registering.catch(() => this.#registered.delete(key))
    }
    await registering
  }

  /** Starts a worker in this process. It serves the queues that the pipelines' assets name. */
  async worker(pipelines: Pipeline | readonly Pipeline[], options: WorkerOptions = {}): Promise<Worker> {
    const list = Array.isArray(pipelines) ? pipelines : [pipelines]
    await this.#namespace.foundOrMade()
    for (const pipeline of list) await this.register(pipeline)
    const register = (pipeline: Pipeline): Promise<void> => this.register(pipeline)
    const parts = { ...this.#shared(), random: randomBytes(8).toString('hex'), register }
    const worker = await this.#parts.add(await this.#connection.explaining(Worker.start(parts, list, options)))
    if (options.handleSignals) closeOnSignals(this, this.#logger)
    return worker
  }

  /**
   * Starts an engine in this process. It resolves at once; `engine.active` when it is active.
   */
  async engine(options: EngineOptions = {}): Promise<Engine> {
    await this.#namespace.make()
    this.#parts.mustBeOpen()
    return await this.#parts.add(
      startEngine({ ...this.#shared(), random: () => randomBytes(8).toString('hex') }, options),
    )
  }

  /**
   * What keeps engines from their work until somebody acts: at most one error for each shard, and
   * usually none.
   *
   * - `log_changed`: the log is not the one that the state was made from.
   * - `newer_version`: a newer FlowStone wrote it. `history_lost`: state and history are gone.
   */
  async problems(): Promise<FlowStoneError[]> {
    return await problemsOf(this.#connection, this.#namespace.topology)
  }

  /**
   * Deletes the state buckets and folds them again from the log. Engines of the namespace must be
   * stopped: throws ConflictError when one runs. Nothing that is on the log is changed. Decisions
   * that are missing there are appended.
   */
  async rebuild(): Promise<RebuildReport> {
    const topology = await this.#namespace.found()
    return await this.#connection.explaining(rebuild({ ...this.#shared(), topology }))
  }

  /**
   * Compares state, history, stored values and what is open with the log, and names what differs.
   * Reads only, while engines and workers go on. Throws `newer_version` for a newer log.
   */
  verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    return this.#connection.explaining(verifyNamespace(this.#runDeps(), options))
  }

  /**
   * Stops workers (they finish or hand back), then engines, then the connection. Safe to call
   * twice. While the server is away it takes 25 s more than `drainTimeout` of the workers at most.
   * Without a worker it takes 11 s. What cannot be stored then is done again by others.
   */
  close(): Promise<void> {
    if (this.#parent) return this.#parent.close()
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const awayMs = await this.#parts.stop()
    await this.limiter.close()
    // What cannot be stored now (the server is away, or full) is given up: whoever waits for it
    // hears that the connection was closed.
    const stored = Promise.all([this.#appenders.flush(), this.#refusals.flush()])
    await atMost(this.#connection.isUp ? FLUSH_MS : awayMs, stored)
    await this.#connection.close()
  }

  #shared() {
    return {
      connection: this.#connection,
      topology: this.#namespace.topology,
      clock: this.#namespace.clock,
      gates: this.#gateSettings,
      refusals: this.#refusals,
      io: this.#io,
      limiter: this.limiter,
      logger: this.#logger,
      by: this.#by,
      logOf: this.#appenders.patientLog,
      workOf: this.#appenders.patientWork,
    }
  }

  #runDeps(): RunDeps {
    const namespace = this.#namespace
    return {
      connection: this.#connection,
      docs: liveSource({ connection: this.#connection, names: namespace.names }),
      names: namespace.names,
      get shards() {
        return namespace.topology.shards
      },
      found: () => namespace.found(),
      clock: namespace.clock,
      io: this.#io,
      limiter: this.limiter,
      logger: this.#logger,
      logOf: this.#appenders.log,
      by: this.#by,
    }
  }
}
