/**
 * Schedules and sensors come with the version of a pipeline that was registered last. A version is
 * registered once, so workers of two versions that start in turns change nothing.
 */

import type { FactOf } from '../../streams/facts.ts'
import { canonicalJson } from '../../streams/fingerprint.ts'
import type { ScheduleSpec, SensorSpec } from '../../streams/schedule-schemas.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { type Key, stateKey, type View } from '../state.ts'
import { lookAgain, skip, startWaiting } from './schedule.ts'
import type { Era, ScheduleState, SensorState } from './state.ts'

type Registered = FactOf<'pipeline.registered'>

export function needsOfRegistered(view: View, fact: Registered): Key<unknown>[] {
  // The first shard has the schedules.
  if (fact.shard !== 0) return []
  const { name, schedules = [], sensors = [] } = fact.data
  const newest = view.get(stateKey.newest(name))
  const before = newest && view.get(stateKey.pipeline(name, newest.version))
  return [
    stateKey.newest(name),
    ...(newest ? [stateKey.pipeline(name, newest.version)] : []),
    ...[...schedules, ...(before?.schedules ?? [])].map((one) => stateKey.schedule(name, one.name)),
    ...[...sensors, ...(before?.sensors ?? [])].map((one) => stateKey.sensor(name, one.name)),
  ]
}

/** `before`: the version that was the newest one. */
export function onDefined(view: View, before: PipelineSpec | undefined, fact: Registered): Effect[] {
  if (fact.shard !== 0) return []
  const { name, schedules = [], sensors = [] } = fact.data
  const removed = before?.schedules?.filter((one) => !schedules.some((other) => other.name === one.name)) ?? []
  for (const spec of sensors) defineSensor(view, spec, fact)
  for (const old of before?.sensors ?? []) {
    const state = view.get(stateKey.sensor(name, old.name))
    if (!state || sensors.some((one) => one.name === old.name)) continue
    const { paused: _, asked: _asked, ...known } = state
    putSensor(view, { ...known, removed: true }, fact)
  }
  return [
    ...schedules.flatMap((spec) => defineSchedule(view, spec, fact)),
    ...removed.flatMap((spec) => removeSchedule(view, spec, fact)),
    ...sensors.map((spec): Effect => ({ do: 'alarm', key: stateKey.sensor(name, spec.name) })),
  ]
}

function defineSchedule(view: View, spec: ScheduleSpec, fact: Registered): Effect[] {
  const { name: pipeline, version } = fact.data
  const state = view.edit(
    stateKey.schedule(pipeline, spec.name),
    (): ScheduleState => ({
      seq: fact.seq,
      pipeline,
      name: spec.name,
      version,
      spec,
      removed: true,
      step: 0,
      eras: [],
      open: {},
      queue: [],
      counts: { fired: 0, skipped: 0, missed: 0 },
      recent: [],
    }),
  )
  const isSame = canonicalJson(state.spec) === canonicalJson(spec)
  const isSameTiming = canonicalJson(state.spec.timing) === canonicalJson(spec.timing)
  if (!isSame || state.removed) state.step += 1
  if (!isSameTiming || state.removed) {
    endEra(state, fact.timeMs)
    const pauses = state.paused ? [{ fromMs: fact.timeMs }] : []
    state.eras.push({ timing: spec.timing, fromMs: fact.timeMs, pauses })
  }
  delete state.removed
  Object.assign(state, { seq: fact.seq, version, spec })
  // Where an archive was imported, what waited behind a run that is not there starts now.
  return [...startWaiting(view, state), lookAgain(state)]
}

function removeSchedule(view: View, { name }: ScheduleSpec, fact: Registered): Effect[] {
  const key = stateKey.schedule(fact.data.name, name)
  const known = view.get(key)
  if (!known || known.removed) return []
  const state = view.edit(key)
  const { queue } = state
  state.seq = fact.seq
  state.removed = true
  state.step += 1
  state.queue = []
  delete state.paused
  endEra(state, fact.timeMs)
  return [...queue.map((one) => skip(state, one, 'removed')), lookAgain(state)]
}

/** What was due before is decided by the old timing, what comes after it is not. */
function endEra(state: ScheduleState, timeMs: number): void {
  const era: Era | undefined = state.eras.at(-1)
  if (!era || era.toMs !== undefined) return
  era.toMs = timeMs
  if (era.toMs <= era.fromMs) state.eras.pop()
}

function defineSensor(view: View, spec: SensorSpec, fact: Registered): void {
  const { name: pipeline, version } = fact.data
  const old = view.get(stateKey.sensor(pipeline, spec.name))
  const { removed: _, ...known } = old ?? { pipeline, name: spec.name, evaluations: 0, failures: 0 }
  putSensor(view, { ...known, seq: fact.seq, version, spec } as SensorState, fact)
}

function putSensor(view: View, state: SensorState, fact: Registered): void {
  view.put(stateKey.sensor(state.pipeline, state.name), { ...state, seq: fact.seq })
}
