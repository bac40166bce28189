/**
 * What the state bucket holds: a document a key, each the fold of the facts that touched it. Folds
 * work on a `View`. The engine has loaded what they read (see `needs` in handlers.ts). The view
 * owns the documents: a fold never keeps one, and changes only what `edit` gave it.
 */
import type { ChildEnd, GateOutcome } from '../streams/gate-schemas.ts'
import type { HookOf } from '../streams/hook-schemas.ts'
import { encodeToken, type RunId } from '../streams/ids.ts'
import type { EarlierValue, Phase, ReuseReason, Waiter } from '../streams/run-schemas.ts'
import type { ScheduledBy, SensedBy } from '../streams/schedule-schemas.ts'
import type { AssetSpec, ErrorInfo, PipelineSpec, RunConcurrency, UpstreamMode, ValueAt } from '../streams/schemas.ts'
import type { InTrace } from '../streams/trace.ts'
import type { EventGroupState, OpenRunsState, SubscriptionState } from './events/state.ts'
import type { BarrierState, FailureChunk, KeyChunkList, LimitedQueuesState, Segment } from './scatter/state.ts'
import type { ScheduleState, SensorState } from './schedule/state.ts'

export type AssetStatus =
  | 'waiting'
  | 'queued'
  | 'running'
  | 'suspended'
  | 'scattering'
  | 'materialized'
  | 'reused'
  | 'given'
  | 'failed'
  | 'skipped'
  | 'cancelled'

export interface AssetInRun {
  status: AssetStatus
  /** Which piece of the asset's code is due or runs. */
  phase: Phase
  /** Ordinal of the latest execution, 0 before the first. */
  attempt: number
  /** Failures in this phase that count against `retry.maxAttempts`. */
  failures: number
  /** A worker died while it ran an attempt of this phase. */
  lost?: true
  /** Server time of the fact that queued the latest execution. */
  queuedMs?: number
  /** Server time from which the latest execution may start, in milliseconds. */
  dueMs?: number
  worker?: string
  value?: ValueAt
  /** Of the value. */
  hash?: string
  /** A value of an earlier run that is taken if it was made of the same. */
  candidate?: EarlierValue
  /** Of the inputs that it goes back to, as the run was given them. */
  inputs?: string
  /** Of a scatter: it runs only what did not succeed of the scatter of that run. */
  redrive?: { run: string; total: number }
  /** Of a reused value: the run that made it, and why it is taken. */
  from?: { run?: string; why: ReuseReason }
  error?: ErrorInfo
  /** Its gates are those that this earlier execution opened: its worker died, or handed it back. */
  gates?: number
  /** The gate it waits at, while it is suspended; and the run that it waits for there. */
  gate?: string
  child?: string
  /** Server time until which it waits there. */
  waitsUntilMs?: number
  /**
   * It has opened a gate: when it ends, those that are left are cancelled. `true`: the first of
   * them was folded by a version that gave each gate a document of its own.
   */
  gated?: true | 'rows'
  /** The gate that the phases `signal` and `timeout` go on from, and the fact that ended it. */
  resume?: { gate: string; seq: number; timeouts: number }
  /** An end was decided and is on its way to the log. */
  ending?: true
  /** Of the current attempt: what its task brings besides, in this order. See run/chain.ts. */
  chain?: string[]
  /** It comes with the task of this asset. */
  chained?: string
}

export interface RunState extends InTrace {
  seq: number
  id: RunId
  pipeline: string
  version: string
  target: string
  upstream: UpstreamMode
  partition?: string
  key?: string
  /** The Nats-Msg-Id of the trigger that asked for it. */
  msgId?: string
  redrive?: { run: string; asset: string; total: number }
  /** The subscription whose message asked for it. */
  subscription?: string
  /** The run that this one follows: tried again, or under the same key. */
  retryOf?: string
  retry?: { run: string; from?: string }
  tags?: Record<string, string>
  schedule?: ScheduledBy
  sensor?: SensedBy
  /** The call of a hook that it is. */
  hook?: HookOf
  concurrency?: RunConcurrency
  /**
   * While it waits for its turn: its place in the order of coming, and who is next to it. `front`:
   * it takes the place of another one.
   */
  queue?: { at: number; prev?: string; next?: string; front?: true }
  /** When its turn came, if it has waited. */
  startedMs?: number
  /** The run for which it was skipped. */
  skippedFor?: string
  /** What started it; and all that wait for it, until it has ended. */
  parent?: Waiter
  waiters?: Waiter[]
  /** Hash of each value that it was given, by input asset; they stand in the fact `given`. */
  inputs?: Record<string, string>
  given?: { shard: number; seq: number }
  status: 'queued' | 'requested' | 'running' | 'succeeded' | 'failed' | 'cancelled'
  requestedMs: number
  finishedMs?: number
  cancelRequested?: true
  /** By asset: attempts below this are of a version that the run has left. */
  replanned?: Record<string, number>
  /** Its time limit, and when that passes; `timedOut` once it has passed. */
  timeoutMs?: number
  deadlineMs?: number
  timedOut?: true
  /** When it is late, where its pipeline wants to hear of that; `passed` once it is. */
  late?: { afterMs: number; dueMs: number; passed?: true }
  finishing?: true
  error?: ErrorInfo
  assets: Record<string, AssetInRun>
}

/**
 * Runs of one pipeline and concurrency key; there while one of them is open. `ending`: of those
 * that run, those that were cancelled for a newer one. `first`, `last`: of those that wait, who
 * are linked by `queue` of their documents. `front`: at their head, those that take the place of
 * another one. `entered`: how many have waited so far.
 */
export interface ConcurrencyState {
  seq: number
  key: string
  running: string[]
  ending?: string[]
  waiting: number
  first?: string
  last?: string
  front?: { count: number; last: string }
  entered: number
}

/** The newest materialization of an asset in a partition, within this shard. */
export interface CatalogEntry {
  seq: number
  run: string
  value: ValueAt
  timeMs: number
  /** See fingerprint.ts. `inputs`: of what its run was given for it. */
  hash?: string
  fingerprint?: string
  inputs?: string
}

/** What lists show of a run. */
export type ListedRun = Omit<RunState, 'seq' | 'upstream'>

/**
 * A run in a list, and the server time at which it was added. `shown`: in lists of the base, once
 * the run is sealed; null once it is pruned.
 */
export type RunListEntry = [run: string, timeMs: number, shown?: ListedRun | null]

/** See run/lists.ts. */
export interface RunList {
  /** What its runs have in common. */
  of: string
  /** Full pages before these. */
  pages: number
  /** The first page that is still there. In lists of the base. Default 0. */
  from?: number
  /** Added last, the newest at the end. */
  runs: RunListEntry[]
}

/** Which version of a pipeline was registered last. */
export interface NewestState {
  seq: number
  version: string
}

/** See gate.ts and, for those of instances, suspended.ts. */
export interface GateState {
  seq: number
  run: RunId
  asset: string
  gate: string
  kind: 'signal' | 'approval' | 'run'
  status: 'waiting' | GateOutcome
  /** Ordinal of the execution that opened it. */
  attempt: number
  index?: number
  keyChunk?: number
  openedMs: number
  /** Server time; none: it waits for ever. */
  deadlineMs?: number
  /** How often the deadline was moved: timers of older ones mean nothing. */
  deadlines: number
  timeouts: number
  /** Waits after each timeout that is retried. */
  retriesMs: number[]
  afterRetries: 'fail' | 'cancel'
  /** Only what is small. `large`: it stands in the fact that opened the gate. */
  metadata?: unknown
  large?: true
  /** Somebody waits at it; before, it is only open. */
  awaited?: true
  /** The instance's code that continues from here, until it has brought something. */
  resume?: { attempt: number; failures: number; queuedMs: number; dueMs?: number; lost?: true; gates?: number }
  /** Of an instance: nothing more comes of this gate. */
  closed?: true
  resolvedSeq?: number
  endedMs?: number
  reason?: string
  /** Of kind `run`: what it waits for, and how that ended. `started`: the engine was asked to. */
  child?: { run: RunId; target: string; started?: true; end?: Omit<ChildEnd, 'value'> }
}

/**
 * Gates of an asset that were opened side by side, by name. What many of them cost is messages to
 * the server, so they share a document.
 */
export interface GateRow {
  gates: Record<string, GateState>
}

interface GatePlace {
  readonly run: string
  readonly asset: string
  readonly gate: string
}

/** A key of the state bucket, and the type of document behind it. */
export type Key<D> = string & { readonly __doc?: D }

/** A document that is only listed: no fold reads it. */
export interface OpenMark {
  since: number
}

const NO_DEADLINE = 999_999_999_999_999
export const HOUR_MS = 3_600_000

/** What the keys of gates begin with whose deadline is in the same hour. */
export function waitingHour(ms: number): string {
  return `waiting.${String(Math.floor(ms / HOUR_MS)).padStart(9, '0')}`
}

const ROW = 16
/** Executions of instances open few gates each. */
const OF_INSTANCE = 2
const SECOND_MS = 1000

/** The row of a gate's name. The letter sets it apart from names of gates. */
export function rowOf(gate: string): string {
  const [, index, opener = gate, count = '0'] = /^(?:i(\d+)(?=\D))?(.*?)(\d+)$/.exec(gate) ?? []
  if (index === undefined) return `R${opener}${Math.floor(Number(count) / ROW)}`
  return `Ri${Math.floor(Number(index) / ROW)}${opener}${Math.floor(Number(count) / OF_INSTANCE)}`
}

function deadlineToken(ms: number): string {
  return String(ms).padStart(15, '0')
}

/**
 * The deadline in a mark, and the key of the document with the gates that it stands for.
 * `together`: what the places of all these gates begin with when gates are sorted by deadline.
 * Those without one are sorted by row.
 */
export function parseWaiting(key: string): { ms: number; doc: Key<GateRow | GateState>; together: string } | undefined {
  const [kind, , text, run, asset, name] = key.split('.')
  if (kind !== 'waiting' || run === undefined || asset === undefined || name === undefined) return undefined
  const isRow = name.startsWith('R')
  const ms = Number(text)
  const second = `${waitingHour(ms)}.${deadlineToken(ms).slice(0, -3)}`
  const row = isRow ? key : stateKey.waiting(undefined, { run, asset, gate: name })
  return {
    ms,
    doc: `${isRow ? 'gates' : 'gate'}.${run}.${asset}.${name}`,
    together: key.startsWith(FOR_EVER) ? row : second,
  }
}

/** Gates that wait and that a mark stands for. `doc`: see `parseWaiting`. */
export function waitingUnder(key: string, doc: Readonly<GateRow | GateState> | undefined): GateState[] {
  if (!doc) return []
  const waits = (gate: GateState, mark: string): boolean => gate.status === 'waiting' && !gate.child && mark === key
  if (!('gates' in doc)) return waits(doc, stateKey.waitingAlone(doc.deadlineMs, doc)) ? [doc] : []
  return Object.values(doc.gates).filter((gate) => waits(gate, stateKey.waiting(gate.deadlineMs, gate)))
}

/** The last key that was asked for: a fold names the same run, or pipeline, many times in a row. */
let lastRun: { readonly run: string; readonly key: string } = { run: '', key: 'run.' }
let lastPipeline = { name: '', version: '', key: 'pipeline..' }

export const stateKey = {
  run: (run: string): Key<RunState> => {
    if (run !== lastRun.run) lastRun = { run, key: `run.${run}` }
    return lastRun.key
  },
  /** There while the run is open, so that open runs are found without reading closed ones. */
  open: (run: string): Key<OpenMark> => `open.${run}`,
  pipeline: (name: string, version: string): Key<PipelineSpec> => {
    if (name !== lastPipeline.name || version !== lastPipeline.version)
      lastPipeline = { name, version, key: `pipeline.${name}.${version}` }
    return lastPipeline.key
  },
  newest: (pipeline: string): Key<NewestState> => `newest.${encodeToken(pipeline)}`,
  /**
   * The newest value: of an asset of one pipeline. Another pipeline's asset of that name is another
   * asset.
   */
  asset: (pipeline: string, asset: string, partition: string | undefined): Key<CatalogEntry> =>
    `asset.${pipeline}.${asset}.${encodeToken(partition ?? '')}`,
  barrier: (run: string, asset: string): Key<BarrierState> => `barrier.${run}.${asset}`,
  segment: (run: string, asset: string, n: number): Key<Segment> => `segment.${run}.${asset}.${n}`,
  subscription: (pipeline: string, name: string): Key<SubscriptionState> => `subscription.${pipeline}.${name}`,
  openRuns: (pipeline: string, subscription: string): Key<OpenRunsState> => `open_runs.${pipeline}.${subscription}`,
  eventGroup: (pipeline: string, subscription: string, group: string): Key<EventGroupState> =>
    `event_group.${pipeline}.${subscription}.${group}`,
  limitedQueues: (pipeline: string, queue: string): Key<LimitedQueuesState> => `limited_queues.${pipeline}.${queue}`,
  gates: ({ run, asset, gate }: GatePlace): Key<GateRow> => `gates.${run}.${asset}.${rowOf(gate)}`,
  /** Of a gate that an older version has folded. */
  gateAlone: ({ run, asset, gate }: GatePlace): Key<GateState> => `gate.${run}.${asset}.${gate}`,
  /**
   * There while gates of a row wait whose deadline is in the same second. Ordered by the hour of
   * the deadline, then by its second. So the gates of an hour are found without reading gates, or
   * the names of all.
   */
  waiting: (deadlineMs: number | undefined, { run, asset, gate }: GatePlace): Key<OpenMark> => {
    const ms = Math.min(deadlineMs ?? NO_DEADLINE, NO_DEADLINE)
    const second = Math.floor(ms / SECOND_MS) * SECOND_MS
    return `${waitingHour(ms)}.${deadlineToken(second)}.${run}.${asset}.${rowOf(gate)}`
  },
  /** As `waiting`, of a gate that an older version has folded. */
  waitingAlone: (deadlineMs: number | undefined, { run, asset, gate }: GatePlace): Key<OpenMark> => {
    const ms = Math.min(deadlineMs ?? NO_DEADLINE, NO_DEADLINE)
    return `${waitingHour(ms)}.${deadlineToken(ms)}.${run}.${asset}.${gate}`
  },
  /** There while a gate of kind `run` waits. */
  child: (at: GatePlace): Key<OpenMark> => `child.${at.run}.${at.asset}.${at.gate}`,
  /** There while an instance's code that continues after a gate is due or runs. */
  resuming: (run: string, asset: string, gate: string): Key<OpenMark> => `resuming.${run}.${asset}.${gate}`,
  failures: (run: string, asset: string, n: number): Key<FailureChunk> => `failures.${run}.${asset}.${n}`,
  schedule: (pipeline: string, name: string): Key<ScheduleState> => `schedule.${pipeline}.${name}`,
  sensor: (pipeline: string, name: string): Key<SensorState> => `sensor.${pipeline}.${name}`,
  concurrency: (pipeline: string, group: string): Key<ConcurrencyState> => `concurrency.${pipeline}.${group}`,
  keyChunks: (run: string, asset: string, n: number): Key<KeyChunkList> => `key_chunks.${run}.${asset}.${n}`,
} as const

/**
 * How the keys of all documents begin: what of the base is copied into a state that is made again.
 */
export const STATE_KINDS = [
  'run',
  'runs',
  'open',
  'pipeline',
  'newest',
  'asset',
  'barrier',
  'segment',
  'subscription',
  'open_runs',
  'event_group',
  'limited_queues',
  'gates',
  'gate',
  'waiting',
  'child',
  'resuming',
  'failures',
  'schedule',
  'sensor',
  'concurrency',
  'key_chunks',
] as const

/** Whether a document is of something in a run: a scatter, a gate, an asset. */
export function isOfPart(key: string, run: string): boolean {
  const [kind, of, ...part] = key.split('.')
  return kind === 'waiting' ? part[1] === run : of === run && part.length > 0
}

const OF_RUN: ReadonlySet<string> = new Set([
  'run',
  'open',
  'barrier',
  'segment',
  'gates',
  'gate',
  'child',
  'resuming',
  'failures',
  'key_chunks',
])

/** The run that a document is of, or of a part of it. Undefined for one of no run. */
export function runOfKey(key: string): string | undefined {
  const [kind = '', of, ...part] = key.split('.')
  if (kind === 'waiting') return part[1]
  return OF_RUN.has(kind) ? of : undefined
}

const FOR_EVER = `${waitingHour(NO_DEADLINE)}.`
const MARKS = ['open.', 'waiting.', 'resuming.', 'child.']

/** Whether a key is that of an OpenMark. */
export function isMark(key: string): boolean {
  return startsWithAny(key, MARKS)
}

const PUT_ONCE = ['open.', 'run.', 'gates.']

/**
 * Whether a key is first put by a fact that the log holds once. So it was not there before that.
 */
export function isPutOnce(key: string): boolean {
  return startsWithAny(key, PUT_ONCE)
}

function startsWithAny(key: string, prefixes: readonly string[]): boolean {
  for (const prefix of prefixes) if (key.startsWith(prefix)) return true
  return false
}

/**
 * Whether a mark may be there for a while though its gate waits no more. Who lists the mark looks
 * at the gate too. The look after its deadline removes what an engine left. (A gate without a
 * deadline is never looked at.)
 */
export function mayOutlive(key: string): boolean {
  return key.startsWith('waiting.') && !key.startsWith(FOR_EVER)
}

/**
 * The log sequence up to which the whole bucket is folded. Written with every checkpoint, under the
 * revision this engine wrote last.
 */
export const ENGINE_KEY = 'engine'

export interface View {
  /** A document to read. */
  get<D>(key: Key<D>): Readonly<D> | undefined
  /**
   * A document to change in place: the next checkpoint writes it. `create` makes one that is not
   * there. Without `create`, a document that is not there is an error of the fold.
   */
  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D
  /** Stores a whole document. */
  put<D>(key: Key<D>, doc: D): void
  delete<D>(key: Key<D>): void
}

/** The scatter that one of a run goes on with; `total`: its instances, and those that succeeded. */
export function redriveIn(run: RunState, asset: string): { run: string; total: number } | undefined {
  return run.redrive?.asset === asset ? run.redrive : run.assets[asset]?.redrive
}

/** How every view implements `edit`. `stored` is the document itself, as `get` finds it. */
export function editDoc<D>(view: View, key: Key<D>, stored: D | undefined, create?: () => NoInfer<D>): D {
  const doc = stored ?? create?.()
  if (doc === undefined) throw new Error(`there is no document ${key} to change`)
  view.put(key, doc)
  return doc
}

/** The run, to be changed by this fact. */
export function editRun(view: View, { id }: Readonly<RunState>, { seq }: { readonly seq: number }): RunState {
  const run = view.edit(stateKey.run(id))
  run.seq = seq
  return run
}

/** Of pipelines with many assets: a graph never changes, and is asked for each of them again. */
const SPECS = new WeakMap<readonly AssetSpec[], ReadonlyMap<string, AssetSpec>>()

export function specOf({ assets }: PipelineSpec, asset: string): AssetSpec | undefined {
  if (assets.length <= 8) return assets.find((spec) => spec.name === asset)
  const specs = SPECS.get(assets) ?? new Map(assets.map((spec) => [spec.name, spec]))
  SPECS.set(assets, specs)
  return specs.get(asset)
}
