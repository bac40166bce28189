/**
 * One fact: fold it into the documents it touches, and decide what follows. Pure: the same
 * documents and the same fact give the same documents and the same effects, whoever runs it and
 * whenever.
 */
import type { Fact, FactName, FactOf } from '../streams/facts.ts'
import type { PipelineSpec } from '../streams/schemas.ts'
import type { Effect } from './effects.ts'
import { needsOfTaken, onTaken } from './events/events.ts'
import { needsOfTimer, onEventTimerFired } from './events/group.ts'
import { needsOfOpenRun } from './events/open-runs.ts'
import { isObsolete, onAssetSuspended, resumeAsset } from './gate/asset-gate.ts'
import {
  abandonChild,
  endGate,
  type GateFact,
  gateOf,
  hasEnded,
  needsOfGate,
  needsOfNewGate,
  onChildRequested,
  onGateCreated,
  onGateExtended,
  onGateTimerFired,
} from './gate/gate.ts'
import { hooksOfEnd, hooksOfGate, onRunLate } from './hooks/hooks.ts'
import {
  needsBarrier,
  needsBarriers,
  needsLimitedQueues,
  needsOfBarrier,
  needsOfBarrierFact,
  needsOfCancel,
} from './needs.ts'
import { onRunAdoptRequested } from './run/adopt.ts'
import { needsOfEntering, needsOfLeaving } from './run/concurrency.ts'
import { isEnded } from './run/end.ts'
import { endList, listKey, listsOf } from './run/lists.ts'
import {
  type AssetFact,
  onRunCancelRequested,
  onRunFinished,
  onRunTimerFired,
  onScatterCancelRequested,
  onScatterClosed,
  onScatterSized,
  onScatterStarted,
  onScatterTimerFired,
  stepAsset,
} from './run/run.ts'
import { onRunPlanned, onRunRequested } from './run/start.ts'
import { needsOfTrigger, onTriggerReceived } from './run/trigger.ts'
import { onRunAbandoned, onRunAwaited, onUnknownAwaited, wakeAll } from './run/waiters.ts'
import {
  type BarrierFact,
  closeBarrier,
  onScatterEndedEarly,
  startBarrier,
  stepBarrier,
  stepBarrierGate,
} from './scatter/barrier.ts'
import { Bits } from './scatter/bits.ts'
import type { ScatterContext } from './scatter/context.ts'
import { needsOfRegistered, onDefined } from './schedule/definitions.ts'
import { needsOfSchedule, onScheduledRunFinished, onScheduleFact, type ScheduleFact } from './schedule/schedule.ts'
import {
  needsOfSensor,
  onEvaluationFinished,
  onEvaluationRequested,
  onSensorFact,
  type SensorFact,
} from './schedule/sensor.ts'
import { type AssetInRun, editRun, type Key, type RunState, specOf, stateKey, type View } from './state.ts'
import { reminderEffect } from './tasks.ts'

/** Facts that belong to no open run. */
type OutsideRuns =
  | 'pipeline.registered'
  | 'trigger.received'
  | 'trigger.refused'
  | 'subscription.taken'
  | 'event.retried'
  | 'event.refused'
  | 'event.timer_fired'
  | 'run.requested'
  | 'scatter.begun'
  | 'gate.correlated'
  | ScheduleFact['name']
  | SensorFact['name']

/** The run and the pipeline that a fact is about. Without the pipeline, only the run may change. */
interface InRun {
  readonly view: View
  readonly run: RunState
  readonly pipeline: PipelineSpec | undefined
}

/** How a fact is folded. One table holds both parts, so that they cannot drift apart. */
interface OutsideHandler<F> {
  /** Keys of the documents that `apply` reads. */
  needs(view: View, fact: F): Key<unknown>[]
  /** Changes the documents, and says what follows. */
  apply(view: View, fact: F): Effect[]
}

interface RunHandler<F> {
  /** Keys of the documents that `apply` reads, besides the run and its pipeline. */
  needs(view: View, run: RunState, fact: F): Key<unknown>[]
  /** Changes the documents, and says what follows. */
  apply(at: InRun, fact: F): Effect[]
}

type Handlers = {
  readonly [N in FactName]: N extends OutsideRuns ? OutsideHandler<FactOf<N>> : RunHandler<FactOf<N>>
}

const nothing = (): Key<unknown>[] => []
const noEffect = (): Effect[] => []

const outside = { needs: nothing, apply: noEffect }

/** The outcome of an asset is written whole, so nothing else is read. */
const ofAsset = { needs: nothing, apply: (at: InRun, fact: AssetFact) => withPipeline(at, fact, stepAsset) }
const ofGate = {
  needs: (_view: View, run: RunState, fact: FactOf<'gate.timer_fired' | 'gate.extended' | 'gate.deadline_closed'>) => [
    ...needsOfGate(run, fact.ids.asset, fact.ids.gate),
  ],
  apply: (at: InRun, fact: GateFact) => withPipeline(at, fact, stepGate),
}
const ofNewGate = {
  needs: (view: View, run: RunState, { ids, data }: FactOf<'gate.created' | 'child.requested'>) => [
    ...needsOfNewGate(run, ids.asset, ids.gate),
    ...(data.index === undefined ? [] : needsOfBarrier(view, run, ids.asset, [data.index])),
  ],
  apply: ofGate.apply,
}
const ofBarrier = {
  needs: needsOfBarrierFact,
  apply: (at: InRun, fact: BarrierFact) => inScatter(at, fact, stepBarrier),
}

const ofSchedule = {
  needs: (view: View, { ids }: ScheduleFact) => needsOfSchedule(view, ids.pipeline, ids.schedule),
  apply: onScheduleFact,
}

const ofSensor = {
  needs: (view: View, { ids }: SensorFact) => needsOfSensor(view, ids.pipeline, ids.sensor),
  apply: onSensorFact,
}

const HANDLERS: Handlers = {
  'pipeline.registered': { needs: needsOfRegistered, apply: onPipelineRegistered },
  'schedule.due': ofSchedule,
  'schedule.fired': ofSchedule,
  'schedule.skipped': ofSchedule,
  'schedule.missed': ofSchedule,
  'schedule.paused': ofSchedule,
  'schedule.resumed': ofSchedule,
  'schedule.triggered': ofSchedule,
  'schedule.backfill_requested': ofSchedule,
  'sensor.paused': ofSensor,
  'sensor.resumed': ofSensor,
  'sensor.triggered': ofSensor,
  'trigger.received': { needs: needsOfTrigger, apply: onTriggerReceived },
  'trigger.refused': outside,
  'subscription.taken': { needs: needsOfTaken, apply: onTaken },
  'event.retried': { needs: needsOfTaken, apply: onTaken },
  'event.refused': outside,
  'event.timer_fired': { needs: needsOfTimer, apply: onEventTimerFired },
  'scatter.begun': outside,
  'gate.correlated': outside,
  'run.requested': {
    // The run's own document cannot be there before this fact, of which the log holds one.
    needs: (view, { data }) => [
      stateKey.pipeline(data.pipeline, data.version),
      ...needsOfEntering(view, data.pipeline, data.concurrency),
      ...needsOfOpenRun(data.pipeline, data.event?.subscription),
      ...listsOf(data).map(listKey.list),
      ...(data.sensor?.evaluates ? needsOfSensor(view, data.pipeline, data.sensor.name) : []),
    ],
    apply: (view, fact) => {
      if (fact.data.sensor) onEvaluationRequested(view, fact.data.sensor, fact)
      return onRunRequested(view, fact)
    },
  },
  'run.planned': {
    needs: nothing,
    apply: ({ view, run }, fact) => onRunPlanned(view, editRun(view, run, fact), fact),
  },
  'run.adopt_requested': {
    needs: (view, run, fact) => [stateKey.pipeline(run.pipeline, fact.data.version), ...needsBarriers(view, run)],
    apply: ({ view, run }, fact) => onRunAdoptRequested(view, run, fact),
  },
  // What was decided, for those who ask. It took effect when it was decided.
  'run.adopted': { needs: nothing, apply: noEffect },
  'run.adopt_refused': { needs: nothing, apply: noEffect },
  'run.cancel_requested': {
    needs: needsOfCancel,
    apply: ({ view, run }, fact) => onRunCancelRequested(view, run, fact),
  },
  'run.awaited': { needs: nothing, apply: ({ view, run }, fact) => onRunAwaited(view, run, fact) },
  'run.abandoned': { needs: needsOfCancel, apply: ({ view, run }, fact) => onRunAbandoned(view, run, fact) },
  'run.timer_fired': { needs: needsOfCancel, apply: ({ view, run }, fact) => onRunTimerFired(view, run, fact) },
  'run.late': { needs: nothing, apply: ({ view, run, pipeline }, fact) => onRunLate(view, run, pipeline, fact) },
  'run.finished': {
    needs: (view, run, fact) => {
      const { pipeline, subscription, schedule, sensor } = run
      const list = endList(fact.data.status)
      return [
        ...(list === undefined ? [] : [listKey.list(list)]),
        ...needsOfOpenRun(pipeline, subscription),
        ...needsOfLeaving(view, run),
        ...(schedule ? needsOfSchedule(view, pipeline, schedule.name) : []),
        ...(sensor?.evaluates ? needsOfSensor(view, pipeline, sensor.name) : []),
      ]
    },
    apply: ({ view, run, pipeline }, fact) => [
      ...(run.finishedMs === undefined ? hooksOfEnd(run, pipeline, fact) : []),
      ...onRunFinished(view, run, fact),
      ...wakeAll(view, run),
      ...(run.schedule ? onScheduledRunFinished(view, run, run.schedule, fact) : []),
      ...(run.sensor?.evaluates ? onEvaluationFinished(view, run, run.sensor, fact) : []),
    ],
  },
  'asset.started': ofAsset,
  'attempt.ended': ofAsset,
  'asset.materialized': ofAsset,
  'asset.skipped': ofAsset,
  'asset.cancelled': ofAsset,
  'asset.failed': { needs: needsBarrier, apply: ofAsset.apply },
  'asset.suspended': {
    needs: (_view, run, fact) => needsOfGate(run, fact.ids.asset, fact.data.gate),
    apply: (at, fact) => withPipeline(at, fact, onAssetSuspended),
  },
  'gate.created': ofNewGate,
  'child.requested': ofNewGate,
  'gate.timer_fired': ofGate,
  'gate.extended': ofGate,
  'gate.deadline_closed': ofGate,
  'gate.resolved': {
    needs: (view, run, fact) => {
      const keys = needsOfGate(run, fact.ids.asset, fact.ids.gate)
      const index = gateOf(view, fact.ids)?.index
      return index === undefined ? keys : [...keys, ...needsOfBarrier(view, run, fact.ids.asset, [index])]
    },
    apply: ofGate.apply,
  },
  'scatter.started': {
    needs: needsLimitedQueues,
    apply: (at, fact) =>
      inScatter(at, fact, (context, _fact, asset) => {
        const { view, run } = context
        // A run that has ended opens nothing any more.
        if (asset.ending || run.finishedMs !== undefined) return []
        onScatterStarted(view, run, fact)
        return startBarrier(context, fact)
      }),
  },
  'scatter.sized': {
    needs: needsOfBarrierFact,
    apply: (at, fact) =>
      inScatter(at, fact, (context) => {
        onScatterSized(context.view, context.run, fact)
        return stepBarrier(context, fact)
      }),
  },
  'scatter.items': ofBarrier,
  'scatter.outcomes': ofBarrier,
  'lease.lost': ofBarrier,
  'lease.returned': ofBarrier,
  'scatter.paused': ofBarrier,
  'scatter.resumed': ofBarrier,
  'scatter.cancel_requested': {
    needs: needsBarrier,
    apply: (at, fact) => inScatter(at, fact, ({ view }) => onScatterCancelRequested(view, fact)),
  },
  'scatter.timer_fired': {
    needs: needsBarrier,
    apply: (at, fact) => inScatter(at, fact, ({ view }) => onScatterTimerFired(view, fact)),
  },
  'scatter.ended_early': { needs: needsBarrier, apply: (at, fact) => inScatter(at, fact, onScatterEndedEarly) },
  'scatter.closed': {
    needs: (view, run, fact) => [...needsLimitedQueues(view, run, fact), ...needsBarrier(view, run, fact)],
    apply: (at, fact) =>
      inScatter(at, fact, (context, _fact, _asset, pipeline) => [
        ...closeBarrier(context, fact),
        ...onScatterClosed(context.view, context.run, pipeline, fact),
      ]),
  },
}

const OUTSIDE: Readonly<Record<OutsideRuns, true>> = {
  'pipeline.registered': true,
  'trigger.received': true,
  'trigger.refused': true,
  'subscription.taken': true,
  'event.retried': true,
  'event.refused': true,
  'event.timer_fired': true,
  'run.requested': true,
  'scatter.begun': true,
  'gate.correlated': true,
  'schedule.due': true,
  'schedule.fired': true,
  'schedule.skipped': true,
  'schedule.missed': true,
  'schedule.paused': true,
  'schedule.resumed': true,
  'schedule.triggered': true,
  'schedule.backfill_requested': true,
  'sensor.paused': true,
  'sensor.resumed': true,
  'sensor.triggered': true,
}

function isOutside(fact: Fact): fact is FactOf<OutsideRuns> {
  return fact.name in OUTSIDE
}

/**
 * Keys that must be loaded before `step` may see the fact. `has` says what is loaded (also what is
 * known to be absent). Some keys follow from documents, so call it until it names nothing new.
 */
export function needs(view: View, has: (key: string) => boolean, fact: Fact): Key<unknown>[] {
  if (isOutside(fact))
    return outsideHandler(fact)
      .needs(view, fact)
      .filter((key) => !has(key))
  const runKey = stateKey.run(fact.ids.run)
  const run = view.get(runKey)
  if (!run) return [runKey].filter((key) => !has(key))
  const keys = [runKey, stateKey.pipeline(run.pipeline, run.version), ...runHandler(fact).needs(view, run, fact)]
  return keys.filter((key) => !has(key))
}

/** Folds one fact, and says what follows. */
export function step(view: View, fact: Fact): Effect[] {
  if (isOutside(fact)) return outsideHandler(fact).apply(view, fact)
  const run = view.get(stateKey.run(fact.ids.run))
  if (!run) return fact.name === 'run.awaited' ? onUnknownAwaited(fact) : []
  // The end of an asset of another pipeline is no end of this one.
  if ('pipeline' in fact.ids && fact.ids.pipeline !== run.pipeline) return []
  const pipeline = view.get(stateKey.pipeline(run.pipeline, run.version))
  return runHandler(fact).apply({ view, run, pipeline }, fact)
}

/** The table pairs each name with its own fact, which the type of a look-up cannot say. */
function outsideHandler(fact: FactOf<OutsideRuns>): OutsideHandler<Fact> {
  return HANDLERS[fact.name] as OutsideHandler<Fact>
}

function runHandler(fact: Exclude<Fact, FactOf<OutsideRuns>>): RunHandler<Fact> {
  return HANDLERS[fact.name] as RunHandler<Fact>
}

/** Without its pipeline an asset is not folded. */
function withPipeline<F>(
  { view, run, pipeline }: InRun,
  fact: F,
  apply: (view: View, run: RunState, pipeline: PipelineSpec, fact: F) => Effect[],
): Effect[] {
  return pipeline ? apply(view, run, pipeline, fact) : []
}

/** For facts of a scatter: only if its asset is part of the run. */
function inScatter<F extends { readonly ids: { readonly asset: string } }>(
  { view, run, pipeline }: InRun,
  fact: F,
  apply: (context: ScatterContext, fact: F, asset: AssetInRun, pipeline: PipelineSpec) => Effect[],
): Effect[] {
  const spec = pipeline && specOf(pipeline, fact.ids.asset)
  const asset = run.assets[fact.ids.asset]
  return pipeline && spec && asset ? apply({ view, run, spec }, fact, asset, pipeline) : []
}

function stepGate(view: View, run: RunState, pipeline: PipelineSpec, fact: GateFact): Effect[] {
  const spec = specOf(pipeline, fact.ids.asset)
  if (!spec) return []
  if (fact.name === 'gate.created' || fact.name === 'child.requested') {
    const { index, attempt } = fact.data
    const asset = run.assets[fact.ids.asset]
    const barrier = index === undefined ? undefined : view.get(stateKey.barrier(run.id, fact.ids.asset))
    const obsolete =
      index === undefined
        ? isObsolete(run, asset, attempt)
        : barrier?.status !== 'open' || new Bits(view, barrier).isDone(index) || (asset !== undefined && isEnded(asset))
    if (fact.name === 'child.requested') return onChildRequested(view, run, fact, obsolete)
    const calls = obsolete || !pipeline.hooks ? [] : hooksOfGate(run, pipeline, fact)
    return [...onGateCreated(view, run, fact, obsolete), ...calls]
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
      return [
        ...abandonChild(gate),
        ...(gate.index === undefined
          ? resumeAsset(view, run, pipeline, gate, fact)
          : stepBarrierGate({ view, run, spec }, gate, fact)),
      ]
    default:
      return fact satisfies never
  }
}

function onPipelineRegistered(view: View, fact: FactOf<'pipeline.registered'>): Effect[] {
  const { by: _, ...spec } = fact.data
  const { name, version } = spec
  const before = fact.shard === 0 ? view.get(stateKey.newest(name)) : undefined
  const effects = onDefined(view, before && view.get(stateKey.pipeline(name, before.version)), fact)
  view.put(stateKey.pipeline(name, version), spec)
  view.put(stateKey.newest(name), { seq: fact.seq, version })
  return effects
}
