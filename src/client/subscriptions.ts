/** `flow.events.list`: where each subscription stands. */
import type { JetStreamManager } from '@nats-io/jetstream'
import type { EventGroupState, OpenRunsState, SubscriptionState } from '../../projections/events/state.ts'
import { type NewestState, stateKey } from '../../projections/state.ts'
import type { SubscriptionSpec } from '../../streams/event-schemas.ts'
import { decodeToken } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { Topology } from '../../streams/topology.ts'
import { claimHolder } from '../engine/shard/claim.ts'
import { readDoc } from '../log/documents.ts'
import { findSource, placeOf, type Source, waitingFor } from '../worker/events/source.ts'
import { takenUpTo } from '../worker/events/taken.ts'
import { LIST_WAIT_MS } from './by-name.ts'
import type { RunDeps } from './run-view.ts'
import { untilFoldedNow } from './values.ts'

/** Where a subscription stands. */
export interface SubscriptionView {
  /** `<pipeline>/<subscription>`. */
  readonly name: string
  readonly pipeline: string
  readonly subscription: string
  /** The asset that its runs make. */
  readonly target: string
  readonly stream: string
  /**
   * `reading`: a worker reads it. `idle`: none does. `no_stream`: its stream is not there (yet).
   * `removed`: the current version of the pipeline has it no more.
   */
  readonly state: 'reading' | 'idle' | 'no_stream' | 'removed'
  /** The worker that reads it. */
  readonly reader?: string
  /** Its messages up to this sequence of the stream are on FlowStone's log; 0: none is. */
  readonly takenTo: number
  /** Sequence of the last message of the stream; undefined where there is none. */
  readonly last: number | undefined
  /**
   * Messages in the stream that wait to be taken. Undefined where that is not known: no worker has
   * ever read it, or the stream is not there.
   */
  readonly waiting: number | undefined
  /** Its runs that have not ended, and how many may be open. */
  readonly open: number
  readonly maxOpen: number
  /** With `batch` or `debounce`: what waits to start a run. */
  readonly groups: SubscriptionGroups
  /** Messages that were taken for a run so far. */
  readonly taken: number
  /** Messages that started no run, and were not taken since: `refused` lists them. */
  readonly refused: number
}

/** Messages that wait to start one run together, or for a later one. */
export interface SubscriptionGroups {
  readonly count: number
  /** In all of them; undefined where there are more than 1,000 groups. */
  readonly messages: number | undefined
  /** When the next of these runs starts, if no message changes that. */
  readonly next: Date | undefined
}

type Deps = RunDeps & { readonly topology: () => Promise<Topology> }

interface Known {
  readonly pipeline: string
  readonly name: string
  readonly spec?: SubscriptionSpec
  readonly state?: SubscriptionState
}

const READ_AHEAD = 64
const GROUPS_READ = 1000

/** By name. `refused`: of each, by its name, how many messages are refused. */
export async function listSubscriptions(
  deps: Deps,
  refused: ReadonlyMap<string, number>,
  withRemoved: boolean,
): Promise<SubscriptionView[]> {
  const topology = await deps.topology()
  await untilFoldedNow(deps, 0, LIST_WAIT_MS)
  const jsm = await jetstreamManager(deps.connection.nc)
  const all = [...(await knownOf(deps, jsm)).values()].filter(({ spec }) => withRemoved || spec)
  const views = await inTurns(all, (known) => viewOf(deps, topology, jsm, known, refused))
  return views.toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

/** Those of the current versions, and those that have ever taken a message. */
async function knownOf(deps: Deps, jsm: JetStreamManager): Promise<Map<string, Known>> {
  const known = new Map<string, Known>()
  const states = await keysUnder(deps, jsm, 'subscription.')
  for (const state of await inTurns(states, async (key) => ({ key, doc: await docOf<SubscriptionState>(deps, key) }))) {
    const [, pipeline = '', name = ''] = state.key.split('.')
    if (state.doc) known.set(`${pipeline}/${name}`, { pipeline, name, state: state.doc })
  }
  const specs = await inTurns(await keysUnder(deps, jsm, 'newest.'), async (key) => {
    const pipeline = decodeToken(key.slice('newest.'.length))
    const newest = await docOf<NewestState>(deps, key)
    return newest && (await docOf<PipelineSpec>(deps, stateKey.pipeline(pipeline, newest.version)))
  })
  for (const { name: pipeline, subscriptions = [] } of specs.flatMap((spec) => spec ?? []))
    for (const spec of subscriptions) {
      const at = `${pipeline}/${spec.name}`
      known.set(at, { ...known.get(at), pipeline, name: spec.name, spec })
    }
  return known
}

async function viewOf(
  deps: Deps,
  topology: Topology,
  jsm: JetStreamManager,
  { pipeline, name, spec, state }: Known,
  refused: ReadonlyMap<string, number>,
): Promise<SubscriptionView> {
  const { connection, names } = deps
  const source = spec && (await connection.read(() => findSource(jsm, topology, pipeline, spec)))
  const place = source && { pipeline, subscription: name, source: source.id }
  const [takenTo, waiting, open, groups, reader] = await Promise.all([
    place ? takenUpTo(connection, names, place) : state?.to,
    source && waitsIn(deps, jsm, source, pipeline, name),
    openRunsOf(deps, topology.shards, pipeline, name),
    groupsOf(deps, jsm, pipeline, name),
    claimHolder(connection, names, names.eventReader(pipeline, name)),
  ])
  return {
    name: `${pipeline}/${name}`,
    pipeline,
    subscription: name,
    target: spec?.run ?? '',
    stream: spec ? placeOf(names, pipeline, name, spec.from).stream : '',
    state: spec ? (source ? (reader === undefined ? 'idle' : 'reading') : 'no_stream') : 'removed',
    ...(reader === undefined ? {} : { reader }),
    takenTo: takenTo ?? 0,
    last: source?.last,
    waiting,
    open,
    maxOpen: spec?.maxOpen ?? 0,
    groups,
    taken: state?.taken ?? 0,
    refused: refused.get(`${pipeline}/${name}`) ?? 0,
  }
}

async function waitsIn(
  { connection, names }: Deps,
  jsm: JetStreamManager,
  source: Source,
  pipeline: string,
  name: string,
): Promise<number | undefined> {
  const nameOf = (turn: 'a' | 'b'): string => names.eventConsumer(pipeline, name, turn)
  return await connection.read(() => waitingFor(jsm, source, nameOf))
}

async function openRunsOf(
  { connection, names }: Deps,
  shards: number,
  pipeline: string,
  name: string,
): Promise<number> {
  const key = stateKey.openRuns(pipeline, name)
  const docs = await Promise.all(
    Array.from({ length: shards }, (_, shard) => readDoc(connection, names, names.stateBucket(shard), key)),
  )
  // The bucket's type of document follows from its key.
  return (docs as (OpenRunsState | undefined)[]).reduce((sum, doc) => sum + (doc?.open ?? 0), 0)
}

/** A group that is empty stays until its timer has fired. */
async function groupsOf(
  deps: Deps,
  jsm: JetStreamManager,
  pipeline: string,
  name: string,
): Promise<SubscriptionGroups> {
  const keys = await keysUnder(deps, jsm, stateKey.eventGroup(pipeline, name, ''))
  const docs = await inTurns(keys.slice(0, GROUPS_READ), (key) => docOf<EventGroupState>(deps, key))
  const open = docs.flatMap((doc) => (doc && doc.count > 0 ? [doc] : []))
  const isAll = keys.length <= GROUPS_READ
  const nextMs = Math.min(...open.map(({ dueMs }) => dueMs))
  return {
    count: open.length + Math.max(0, keys.length - GROUPS_READ),
    messages: isAll ? open.reduce((sum, { count }) => sum + count, 0) : undefined,
    next: isAll && open.length > 0 ? new Date(nextMs) : undefined,
  }
}

/** Keys of the first shard that begin so. */
async function keysUnder({ connection, names }: Deps, jsm: JetStreamManager, start: string): Promise<string[]> {
  const bucket = names.stateBucket(0)
  const prefix = names.kvSubject(bucket, '')
  const filter = names.kvSubject(bucket, `${start}>`)
  const info = await connection.read(() => jsm.streams.info(names.kvStream(bucket), { subjects_filter: filter }))
  return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
}

async function docOf<D>({ connection, names }: Deps, key: string): Promise<D | undefined> {
  return (await readDoc(connection, names, names.stateBucket(0), key)) as D | undefined
}

async function inTurns<T, R>(all: readonly T[], ask: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  for (let i = 0; i < all.length; i += READ_AHEAD)
    results.push(...(await Promise.all(all.slice(i, i + READ_AHEAD).map(ask))))
  return results
}
