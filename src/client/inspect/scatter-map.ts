/** The map of a scatter: the state of each instance. */
import { segmentOf } from '../../../projections/scatter/bits.ts'
import { countStates, instanceStates, type MapRange } from '../../../projections/scatter/map.ts'
import type { BarrierState, Segment } from '../../../projections/scatter/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import { parseBarrierId } from '../../../streams/ids.ts'
import { missingRun } from '../../log/pruned.ts'
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

/** Which part of a map is wanted. */
export interface MapOptions {
  /** The first instance. Default 0. */
  readonly from?: number
  /** The one behind the last. Default: all that are stored. */
  readonly to?: number
}

const MAP_MAX = 10_000_000
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
