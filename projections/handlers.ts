/**
 * One fact: fold it into the documents it touches, and decide what follows. Pure: the same
 * documents and the same fact give the same documents and the same effects, whoever runs it and
 * whenever.
 */
import type { Fact, FactOf } from '../streams/facts.ts'
import type { PipelineSpec } from '../streams/schemas.ts'
import type { Effect } from './effects.ts'
import {
  endGate,
  type GateFact,
  gateOf,
  hasEnded,
  isObsolete,
  onAssetSuspended,
  onGateCreated,
  onGateExtended,
  onGateTimerFired,
  resumeAsset,
} from './gate/gate.ts'
import { gatesOf, reminderEffect } from './gate/instance-gate.ts'
import { onRunAdoptRequested } from './run/adopt.ts'
import {
  isEnded,
  onRunCancelRequested,
  onRunFinished,
  onRunPlanned,
  onRunRequested,
  onRunTimerFired,
  onScatterCancelRequested,
  onScatterClosed,
  onScatterSized,
  onScatterStarted,
  onScatterTimerFired,
  stepAsset,
} from './run/run.ts'
import { needsOfTrigger, onTriggerReceived } from './run/trigger.ts'
import { closeBarrier, onScatterEndedEarly, startBarrier, stepBarrier, stepBarrierGate } from './scatter/barrier.ts'
import { Bits, segmentOf } from './scatter/bits.ts'
import { CHUNKS_PER_LIST, REFEED_STEP } from './scatter/feed.ts'
import { FAILURES_PER_CHUNK } from './scatter/instances.ts'
import { LEASE_SIZE_MAX, parseLeaseId } from './scatter/lease-id.ts'
import { type Key, type RunState, specOf, stateKey, type View } from './state.ts'

/** Facts that change no run. */
type OutsideRuns = FactOf<
  'pipeline.registered' | 'trigger.received' | 'trigger.refused' | 'run.requested' | 'scatter.begun' | 'gate.correlated'
>

/**
 * Keys that must be loaded before `step` may see the fact. `has` tells what is loaded (also what is
 * known to be absent). Some keys follow from documents, so call it until it names nothing new.
 */
export function needs(view: View, has: (key: string) => boolean, fact: Fact): Key<unknown>[] {
  const keys: Key<unknown>[] = []
  switch (fact.name) {
    case 'trigger.received':
      keys.push(...needsOfTrigger(view, fact))
      break
    case 'pipeline.registered':
    case 'trigger.refused':
    case 'scatter.begun':
    case 'gate.correlated':
      break
    case 'run.requested':
      // The run's own document cannot be there before this fact, of which the log holds one.
      keys.push(stateKey.pipeline(fact.data.pipeline, fact.data.version))
      break
    default: {
      const runKey = stateKey.run(fact.ids.run)
      keys.push(runKey)
      const run = view.get(runKey)
      if (run) keys.push(...needsInRun(view, run, fact))
    }
  }
  return keys.filter((key) => !has(key))
}

function needsInRun(view: View, run: RunState, fact: Exclude<Fact, OutsideRuns>): Key<unknown>[] {
  const keys: Key<unknown>[] = [stateKey.pipeline(run.pipeline, run.version)]
  switch (fact.name) {
    case 'run.planned':
    case 'run.finished':
    case 'asset.started':
    case 'attempt.ended':
    case 'asset.materialized':
    case 'asset.skipped':
    case 'asset.cancelled':
      // What these write anew, they write whole.
      return keys
    case 'run.adopted':
    case 'run.adopt_refused':
      return keys
    case 'run.adopt_requested':
      keys.push(stateKey.pipeline(run.pipeline, fact.data.version))
      return [...keys, ...Object.keys(run.assets).map((asset) => stateKey.barrier(run.id, asset))]
    case 'run.cancel_requested':
    case 'run.timer_fired':
      return [...keys, ...Object.keys(run.assets).map((asset) => stateKey.barrier(run.id, asset))]
    case 'scatter.started':
    case 'scatter.closed': {
      const pipeline = view.get(stateKey.pipeline(run.pipeline, run.version))
      const spec = pipeline && specOf(pipeline, fact.ids.asset)
      if (spec?.scatter?.maxConcurrent !== undefined)
        keys.push(stateKey.limitedQueues(run.pipeline, spec.scatter.queue ?? spec.queue))
      // The barrier's own document cannot be there before scatter.started, of which the log holds
      // one.
      return fact.name === 'scatter.started' ? keys : [...keys, stateKey.barrier(run.id, fact.ids.asset)]
    }
    case 'asset.suspended':
      return [...keys, stateKey.gate(run.id, fact.ids.asset, fact.data.gate)]
    case 'gate.timer_fired':
    case 'gate.extended':
    case 'gate.deadline_closed':
      return [...keys, stateKey.gate(run.id, fact.ids.asset, fact.ids.gate)]
    case 'gate.created': {
      const { index } = fact.data
      // The gate's own document cannot be there before this fact, of which the log holds one.
      return index === undefined ? keys : [...keys, ...needsOfBarrier(view, run, fact.ids.asset, [index])]
    }
    case 'gate.resolved': {
      const gateKey = stateKey.gate(run.id, fact.ids.asset, fact.ids.gate)
      keys.push(gateKey)
      const index = view.get(gateKey)?.index
      return index === undefined ? keys : [...keys, ...needsOfBarrier(view, run, fact.ids.asset, [index])]
    }
    case 'asset.failed':
    case 'scatter.cancel_requested':
    case 'scatter.timer_fired':
    case 'scatter.ended_early':
      return [...keys, stateKey.barrier(run.id, fact.ids.asset)]
    case 'scatter.items':
    case 'scatter.sized':
    case 'scatter.outcomes':
    case 'lease.lost':
    case 'lease.returned':
    case 'scatter.paused':
    case 'scatter.resumed': {
      for (const gate of gatesOf(fact)) keys.push(stateKey.gate(run.id, fact.ids.asset, gate))
      // What goes on from a gate is no lease: its index stands in the gate's document.
      const resumes = fact.name === 'scatter.outcomes' ? fact.data.resumes : undefined
      const index = resumes === undefined ? undefined : view.get(stateKey.gate(run.id, fact.ids.asset, resumes))?.index
      const single = index === undefined ? [] : [index]
      return [
        ...keys,
        ...needsOfBarrier(view, run, fact.ids.asset, single, segmentsOf(fact)),
        ...failuresOf(run, fact, index),
      ]
    }
    default:
      return fact satisfies never
  }
}

/** What a barrier needs to take in something of these instances and segments, and to feed on. */
function needsOfBarrier(
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
  for (const range of [...barrier.requeued.slice(0, REFEED_STEP), ...(barrier.deferred ?? []).slice(0, REFEED_STEP)])
    addSegments(segments, range)
  for (const n of segments) keys.push(stateKey.segment(run.id, asset, n))
  return keys
}

/**
 * A range that waits is at most a lease wide; to find its ends, the fold looks so far to both
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

export function step(view: View, fact: Fact): Effect[] {
  switch (fact.name) {
    case 'trigger.refused':
    case 'scatter.begun':
    case 'gate.correlated':
      return []
    case 'pipeline.registered':
      return onPipelineRegistered(view, fact)
    case 'trigger.received':
      return onTriggerReceived(view, fact)
    case 'run.requested':
      return onRunRequested(view, fact)
    default: {
      const run = view.get(stateKey.run(fact.ids.run))
      return run ? stepRun(view, run, fact) : []
    }
  }
}

function stepRun(view: View, run: RunState, fact: Exclude<Fact, OutsideRuns>): Effect[] {
  const pipeline = view.get(stateKey.pipeline(run.pipeline, run.version))
  // Somebody else's: the end of an asset of another pipeline is no end of this one.
  if ('pipeline' in fact.ids && fact.ids.pipeline !== run.pipeline) return []
  switch (fact.name) {
    case 'run.planned':
      run.seq = fact.seq
      view.put(stateKey.run(run.id), run)
      return onRunPlanned(view, run, fact)
    case 'run.adopt_requested':
      return onRunAdoptRequested(view, run, fact)
    case 'run.adopted':
    case 'run.adopt_refused':
      // What was decided, for those who ask: it was done when it was decided.
      return []
    case 'run.cancel_requested':
      return onRunCancelRequested(view, run, fact)
    case 'run.timer_fired':
      return onRunTimerFired(view, run, fact)
    case 'run.finished':
      return onRunFinished(view, run, fact)
    default:
  }
  if (!pipeline) return []
  switch (fact.name) {
    case 'asset.started':
    case 'attempt.ended':
    case 'asset.materialized':
    case 'asset.failed':
    case 'asset.skipped':
    case 'asset.cancelled':
      return stepAsset(view, run, pipeline, fact)
    case 'asset.suspended':
      return onAssetSuspended(view, run, pipeline, fact)
    case 'gate.created':
    case 'gate.timer_fired':
    case 'gate.extended':
    case 'gate.deadline_closed':
    case 'gate.resolved':
      return stepGate(view, run, pipeline, fact)
    default:
  }
  const spec = specOf(pipeline, fact.ids.asset)
  const asset = run.assets[fact.ids.asset]
  if (!spec || !asset) return []
  switch (fact.name) {
    case 'scatter.started':
      // A run that ended meanwhile opens nothing any more.
      if (asset.ending || run.finishedMs !== undefined) return []
      onScatterStarted(view, run, fact)
      return startBarrier({ view, run, spec }, fact)
    case 'scatter.sized':
      onScatterSized(view, run, fact)
      return stepBarrier({ view, run, spec }, fact)
    case 'scatter.items':
    case 'scatter.outcomes':
    case 'lease.lost':
    case 'lease.returned':
    case 'scatter.paused':
    case 'scatter.resumed':
      return stepBarrier({ view, run, spec }, fact)
    case 'scatter.cancel_requested':
      return onScatterCancelRequested(view, fact)
    case 'scatter.timer_fired':
      return onScatterTimerFired(view, fact)
    case 'scatter.ended_early':
      return onScatterEndedEarly({ view, run, spec }, fact)
    case 'scatter.closed':
      return [...closeBarrier({ view, run, spec }, fact), ...onScatterClosed(view, run, pipeline, fact)]
    default:
      return fact satisfies never
  }
}

function stepGate(view: View, run: RunState, pipeline: PipelineSpec, fact: GateFact): Effect[] {
  const spec = specOf(pipeline, fact.ids.asset)
  if (!spec) return []
  if (fact.name === 'gate.created') {
    const { index, attempt } = fact.data
    const asset = run.assets[fact.ids.asset]
    const barrier = index === undefined ? undefined : view.get(stateKey.barrier(run.id, fact.ids.asset))
    const obsolete =
      index === undefined
        ? isObsolete(run, asset, attempt)
        : barrier?.status !== 'open' || new Bits(view, barrier).isDone(index) || (asset !== undefined && isEnded(asset))
    return onGateCreated(view, run, fact, obsolete)
  }
  const gate = gateOf(view, fact.ids)
  if (!gate) return []
  switch (fact.name) {
    case 'gate.timer_fired':
      return onGateTimerFired(gate, fact)
    case 'gate.extended':
      return onGateExtended(view, run, gate, fact) && spec.onTimeout ? [reminderEffect({ run, spec }, gate)] : []
    case 'gate.deadline_closed':
      return []
    case 'gate.resolved':
      if (!endGate(view, gate, fact) || !hasEnded(gate)) return []
      return gate.index === undefined
        ? resumeAsset(view, run, pipeline, gate, fact)
        : stepBarrierGate({ view, run, spec }, gate, fact)
    default:
      return fact satisfies never
  }
}

function onPipelineRegistered(view: View, fact: FactOf<'pipeline.registered'>): Effect[] {
  const { name, version } = fact.data
  view.put(stateKey.pipeline(name, version), fact.data)
  view.put(stateKey.newest(name), { seq: fact.seq, version })
  return []
}
