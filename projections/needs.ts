/** Which documents of a scatter a fact needs. */
import type { Fact } from '../streams/facts.ts'
import { gateOf, needsOfGate } from './gate/gate.ts'
import { gatesOf } from './gate/instance-gate.ts'
import { needsOfLeaving } from './run/concurrency.ts'
import type { BarrierFact } from './scatter/barrier.ts'
import { segmentOf } from './scatter/bits.ts'
import { CHUNKS_PER_LIST, REQUEUED_STEP } from './scatter/feed.ts'
import { FAILURES_PER_CHUNK } from './scatter/instances.ts'
import { LEASE_SIZE_MAX, parseLeaseId } from './scatter/lease-id.ts'
import { type Key, type RunState, specOf, stateKey, type View } from './state.ts'
import { instanceQueue } from './tasks.ts'

/** The barriers of all assets of a run. */
export function needsBarriers(_view: View, run: RunState): Key<unknown>[] {
  return Object.keys(run.assets).map((asset) => stateKey.barrier(run.id, asset))
}

/** What is open of a run ends; or its wait. */
export function needsOfCancel(view: View, run: RunState): Key<unknown>[] {
  return [...needsBarriers(view, run), ...(run.queue ? needsOfLeaving(view, run) : [])]
}

export function needsBarrier(
  _view: View,
  run: RunState,
  fact: { readonly ids: { readonly asset: string } },
): Key<unknown>[] {
  return [stateKey.barrier(run.id, fact.ids.asset)]
}

/** The limited queues of a scatter with `maxConcurrent`. */
export function needsLimitedQueues(
  view: View,
  run: RunState,
  fact: { readonly ids: { readonly asset: string } },
): Key<unknown>[] {
  const pipeline = view.get(stateKey.pipeline(run.pipeline, run.version))
  const spec = pipeline && specOf(pipeline, fact.ids.asset)
  if (spec?.scatter?.maxConcurrent === undefined) return []
  return [stateKey.limitedQueues(run.pipeline, instanceQueue(spec).queue)]
}

export function needsOfBarrierFact(view: View, run: RunState, fact: BarrierFact): Key<unknown>[] {
  const { asset } = fact.ids
  const keys = gatesOf(fact).flatMap((gate) => needsOfGate(run, asset, gate))
  // What resumes after a gate is no lease: its index stands in the gate's document.
  const resumes = fact.name === 'scatter.outcomes' ? fact.data.resumes : undefined
  const index = resumes === undefined ? undefined : gateOf(view, { run: run.id, asset, gate: resumes })?.index
  const single = index === undefined ? [] : [index]
  keys.push(...needsOfBarrier(view, run, asset, single, segmentsOf(fact)), ...failuresOf(run, fact, index))
  return keys
}

/** What a barrier needs to take in something of these instances and segments, and to feed on. */
export function needsOfBarrier(
  view: View,
  run: RunState,
  asset: string,
  indices: readonly number[],
  segments = new Set<number>(),
): Key<unknown>[] {
  const keys: Key<unknown>[] = [stateKey.barrier(run.id, asset)]
  const barrier = view.get(stateKey.barrier(run.id, asset))
  if (!barrier || barrier.status !== 'open') return keys
  const chunk = Math.floor(barrier.fedKeyChunk / CHUNKS_PER_LIST)
  const last = Math.floor(barrier.keyChunks / CHUNKS_PER_LIST)
  for (const n of new Set([chunk, Math.min(chunk + 1, last), last])) keys.push(stateKey.keyChunks(run.id, asset, n))
  for (const index of indices) segments.add(segmentOf(index))
  for (const range of [
    ...barrier.requeued.slice(0, REQUEUED_STEP),
    ...(barrier.deferred ?? []).slice(0, REQUEUED_STEP),
  ])
    addSegments(segments, range)
  for (const n of segments) keys.push(stateKey.segment(run.id, asset, n))
  return keys
}

/**
 * A range that waits is at most as long as a lease. To find its ends, the fold looks so far to both
 * sides.
 */
function addSegments(segments: Set<number>, { from, to }: { from: number; to: number }): void {
  for (let n = segmentOf(Math.max(0, from - LEASE_SIZE_MAX)); n <= segmentOf(to - 1 + LEASE_SIZE_MAX); n++)
    segments.add(n)
}

function segmentsOf(fact: Fact): Set<number> {
  const segments = new Set<number>()
  if (fact.name !== 'scatter.outcomes' && fact.name !== 'lease.lost' && fact.name !== 'lease.returned') return segments
  const range = parseLeaseId(fact.data.lease)
  if (range) addSegments(segments, range)
  return segments
}

/** Where failures are written that a fact may bring. */
function failuresOf(run: RunState, fact: Fact, resumed: number | undefined): Key<unknown>[] {
  if (fact.name !== 'scatter.outcomes' && fact.name !== 'lease.lost') return []
  if (fact.name === 'scatter.outcomes' && fact.data.errors === undefined) return []
  const range = resumed === undefined ? parseLeaseId(fact.data.lease) : { from: resumed, to: resumed + 1 }
  const keys: Key<unknown>[] = []
  for (let n = chunkOf(range?.from ?? 0); range && n <= chunkOf(range.to - 1); n++)
    keys.push(stateKey.failures(run.id, fact.ids.asset, n))
  return keys
}

function chunkOf(index: number): number {
  return Math.floor(index / FAILURES_PER_CHUNK)
}
