/** The map of a scatter: the state of each instance, and what failed where. */
import { segmentOf } from '../../../projections/scatter/bits.ts'
import { FAILURES_PER_CHUNK, lostError } from '../../../projections/scatter/instances.ts'
import { countStates, failedIn, instanceStates, type MapRange } from '../../../projections/scatter/map.ts'
import type { BarrierState, FailureChunk, Segment } from '../../../projections/scatter/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import type { Fact } from '../../../streams/facts.ts'
import { parseBarrierId } from '../../../streams/ids.ts'
import { type ErrorView, viewOfError } from '../../../streams/thrown.ts'
import { sealedAt } from '../../log/history.ts'
import { directGet } from '../../log/nats.ts'
import { missingRun } from '../../log/pruned.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { Values } from '../../worker/attempt/values.ts'
import { readBarrier, readRun } from '../run-doc.ts'
import type { RunDeps } from '../run-view.ts'
import { inTurns } from './in-turns.ts'

/** The state of each instance of a range, a byte each: its place in `INSTANCE_STATES`. */
export interface ScatterMap {
  readonly id: string
  /** Unknown until the scatter function has given all its keys. */
  readonly total: number | undefined
  /** Keys stored so far: the map ends there. */
  readonly stored: number
  readonly from: number
  readonly states: Uint8Array
}

/** How many instances of a tile are in each state. */
export interface MapTile extends MapRange {
  readonly counts: readonly number[]
}

/** Instances that failed by the same error. */
export interface ErrorGroup {
  readonly code: string
  /** Of the first of them. */
  readonly message: string
  readonly count: number
  /** The first of them. */
  readonly instances: readonly number[]
  /** How many there are in each hundredth of the keys. */
  readonly spread: readonly number[]
}

/** What an instance failed by, for good. */
export interface InstanceFailure {
  readonly index: number
  readonly error: ErrorView
  readonly attempts: number
}

/** Which part of a map is wanted. */
export interface MapOptions {
  /** The first instance. Default 0. */
  readonly from?: number
  /** The one behind the last. Default: all that are stored. */
  readonly to?: number
}

/** What `flow.inspect.errors` is to say. */
export interface ErrorsOptions {
  /** Indexes of failed instances to list for each error. Default 20. */
  readonly instances?: number
}

const MAP_MAX = 10_000_000
const SPREAD = 100
const SHOWN = 20
/** Failures whose facts are read at a time. */
const AT_ONCE = 64
/** Failures that are looked at for groups. */
const GROUPED_MAX = 100_000

interface FoundScatter {
  readonly barrier: BarrierState
  readonly segmentAt: (n: number) => Segment | undefined
}

export async function scatterMap(deps: RunDeps, id: string, { from = 0, to }: MapOptions = {}): Promise<ScatterMap> {
  const barrier = await barrierOf(deps, id)
  const range = rangeOf(barrier, from, to)
  const { segmentAt } = await segmentsOf(deps, id, barrier, range)
  const states = instanceStates(barrier, segmentAt, range, deps.clock.now())
  return { id, total: barrier.total, stored: barrier.stored, from, states }
}

/** The same as counts, `size` instances a tile: for maps that are too large to send. */
export async function mapTiles(deps: RunDeps, id: string, size: number): Promise<MapTile[]> {
  const barrier = await barrierOf(deps, id)
  const tiles: MapTile[] = []
  for (let from = 0; from < barrier.stored; from += size) {
    const range = { from, to: Math.min(barrier.stored, from + size) }
    const { segmentAt } = await segmentsOf(deps, id, barrier, range)
    tiles.push({ ...range, counts: countStates(instanceStates(barrier, segmentAt, range, deps.clock.now())) })
  }
  return tiles
}

/** Failed instances by error, most first. Of the first 100,000 of them. */
export async function errorGroups(
  deps: RunDeps,
  id: string,
  { instances: shown = SHOWN }: ErrorsOptions = {},
): Promise<ErrorGroup[]> {
  const barrier = await barrierOf(deps, id)
  const groups = new Map<
    string,
    { code: string; message: string; instances: number[]; spread: number[]; count: number }
  >()
  let count = 0
  for await (const { index, error } of failuresFrom(deps, id, barrier, 0)) {
    const { code, message } = error
    const key = `${code} ${withoutNumbers(message)}`
    const group = groups.get(key) ?? {
      code,
      message,
      instances: [],
      spread: new Array<number>(SPREAD).fill(0),
      count: 0,
    }
    groups.set(key, group)
    group.count += 1
    if (group.instances.length < shown) group.instances.push(index)
    const at = Math.min(SPREAD - 1, Math.floor((index / Math.max(1, barrier.stored)) * SPREAD))
    group.spread[at] = (group.spread[at] ?? 0) + 1
    count += 1
    if (count >= GROUPED_MAX) break
  }
  return [...groups.values()].toSorted((a, b) => b.count - a.count)
}

/** Messages that differ in ids and numbers only are one error. */
function withoutNumbers(message: string): string {
  return message.replaceAll(/[0-9a-f]{8,}|\d+/gi, '#')
}

/** Failed instances in order, of open scatters too, from an index on, with keys. */
export async function scatterFailures(
  deps: RunDeps,
  id: string,
  { from, limit }: { readonly from: number; readonly limit: number },
): Promise<(InstanceFailure & { readonly key: unknown })[]> {
  const barrier = await barrierOf(deps, id)
  const found: InstanceFailure[] = []
  for await (const failure of failuresFrom(deps, id, barrier, from)) {
    found.push(failure)
    if (found.length >= limit) break
  }
  const keys = await keysOf(
    deps,
    id,
    barrier,
    found.map(({ index }) => index),
  )
  return found.map((failure, i) => ({ ...failure, key: keys[i] }))
}

/** The keys of some instances, which are in order. */
export async function keysOf(
  deps: RunDeps,
  id: string,
  { stored }: BarrierState,
  indexes: readonly number[],
): Promise<unknown[]> {
  const { shard, run, asset } = parseBarrierId(id)
  const values = new Values(deps.connection, deps.names, deps.io)
  const keys: unknown[] = []
  if (indexes.length === 0 || stored === 0) return keys
  let chunk = await values.keyChunk(shard, run, asset, 0)
  for (const index of indexes) {
    // Only where one ends is known where the next begins.
    while (index >= chunk.end) chunk = await values.keyChunk(shard, run, asset, chunk.end)
    keys.push(chunk.key(index))
  }
  return keys
}

async function* failuresFrom(
  deps: RunDeps,
  id: string,
  barrier: BarrierState,
  from: number,
): AsyncGenerator<InstanceFailure> {
  if (barrier.failed === 0) return
  const { run, asset } = parseBarrierId(id)
  const { docs } = deps
  let chunk: { n: number; at: ReadonlyMap<number, Reason> } | undefined
  let some: Reason[] = []
  for (let n = segmentOf(from); n <= segmentOf(Math.max(0, barrier.stored - 1)); n++) {
    const segment = await docs.ofRun(run, stateKey.segment(run, asset, n))
    for (const index of segment instanceof Uint8Array ? failedIn(segment, n) : []) {
      if (index < from) continue
      const at = Math.floor(index / FAILURES_PER_CHUNK)
      if (chunk?.n !== at) {
        // The bucket's type of document follows from its key.
        const doc = (await docs.ofRun(run, stateKey.failures(run, asset, at))) as FailureChunk | undefined
        chunk = { n: at, at: new Map(doc?.at.map((entry) => [entry[0], entry])) }
      }
      const why = chunk.at.get(index)
      if (why) some.push(why)
      if (some.length < AT_ONCE) continue
      yield* await failuresOf(deps, id, some)
      some = []
    }
  }
  yield* await failuresOf(deps, id, some)
}

/** Where the error of an instance is: its index, a sequence, and an attempt that was lost. */
type Reason = FailureChunk['at'][number]

/** Each fact is read once. After retries they lie anywhere on the log. */
async function failuresOf(deps: RunDeps, id: string, reasons: readonly Reason[]): Promise<InstanceFailure[]> {
  const { shard } = parseBarrierId(id)
  const { connection, names } = deps
  const seqs = [...new Set(reasons.flatMap(([, seq, lost]) => (lost === undefined ? [seq] : [])))]
  const facts = new Map(
    await inTurns(seqs, async (seq): Promise<[number, Fact | undefined]> => {
      const message = await connection.read((nc) => directGet(nc, names.log(shard), { seq }))
      return [seq, message && factIfAny(names, shard, message)]
    }),
  )
  const failures: InstanceFailure[] = []
  for (const [index, seq, lost] of reasons) {
    if (lost !== undefined) {
      failures.push({ index, error: lostError(index, lost), attempts: lost })
      continue
    }
    // One that is sealed is in a pack, with others.
    const fact = facts.get(seq) ?? (await sealedAt(deps, shard, seq))
    facts.set(seq, fact)
    const outcomes = fact?.name === 'scatter.outcomes' ? fact.data : undefined
    const found = outcomes?.errors?.find(([k]) => outcomes.at[k] === index)
    if (!outcomes || !found)
      throw new FlowStoneError('missing_result', `message ${seq} of the log holds no error of instance ${index}`)
    failures.push({ index, error: viewOfError(found[1].error), attempts: outcomes.ordinal })
  }
  return failures
}

/** Throws `not_found`, and `pruned`. */
export async function barrierOf(deps: RunDeps, id: string): Promise<BarrierState> {
  const { run: runId, asset, shard } = parseBarrierId(id)
  await deps.found()
  const run = shard < deps.shards ? await readRun(deps, runId) : undefined
  if (!run) throw await missingRun(deps, runId, `scatter ${id}: `)
  const barrier = await readBarrier(deps, run, asset)
  if (!barrier) throw new FlowStoneError('not_found', `there is no scatter ${id}`)
  return barrier
}

function rangeOf({ stored }: BarrierState, from: number, to: number | undefined): MapRange {
  const end = Math.min(to ?? stored, stored)
  if (!Number.isSafeInteger(from) || from < 0) throw new InvalidError('map: from must be a whole number from 0')
  if (end - from > MAP_MAX)
    throw new InvalidError(`map: at most ${MAP_MAX} instances at a time; name a range (from, to), or ask for tiles`)
  return { from, to: Math.max(from, end) }
}

async function segmentsOf(
  deps: RunDeps,
  id: string,
  { status }: BarrierState,
  { from, to }: MapRange,
): Promise<Pick<FoundScatter, 'segmentAt'>> {
  const { run, asset, shard } = parseBarrierId(id)
  const { docs } = deps
  const numbers: number[] = []
  for (let n = segmentOf(from); n <= segmentOf(Math.max(from, to - 1)); n++) numbers.push(n)
  const found = await inTurns(numbers, async (n): Promise<[number, Segment | undefined]> => {
    const key = stateKey.segment(run, asset, n)
    const doc = status === 'open' && !docs.past ? await docs.read(shard, key) : await docs.ofRun(run, key)
    return [n, doc instanceof Uint8Array ? doc : undefined]
  })
  const segments = new Map(found)
  return { segmentAt: (n) => segments.get(n) }
}
