/**
 * A sensor, in the first shard.
 *
 *   fact                              → sensor                                          caused by
 *   pipeline.registered               → begins, goes on or ends                          worker, client
 *   run.requested (an evaluation)     → evaluating: there is no other one until it ends   engine, by its clock
 *   run.finished (the same)           → its value has the cursor, and the runs to start;  engine
 *                                       failed, or the sensor is removed: the cursor stays
 *   sensor.paused | resumed           → not evaluated any more, or again                 client
 *   sensor.triggered                  → evaluated as soon as no evaluation goes on, also  client
 *                                       while it is paused
 *
 * Cursor and runs stand in the evaluation's one value, so one is never stored without the other.
 */
import type { FactOf } from '../../streams/facts.ts'
import { runIdOfSchedule } from '../../streams/ids.ts'
import type { SensedBy } from '../../streams/schedule-schemas.ts'
import type { StoredValue } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { type Key, type RunState, stateKey, type View } from '../state.ts'
import { evaluationRequest } from './schedule.ts'
import type { SensorState } from './state.ts'

export function needsOfSensor(view: View, pipeline: string, name: string): Key<unknown>[] {
  const key = stateKey.sensor(pipeline, name)
  const state = view.get(key)
  return state ? [key, stateKey.pipeline(pipeline, state.version)] : [key]
}

export type SensorFact = FactOf<'sensor.paused' | 'sensor.resumed' | 'sensor.triggered'>

export function onSensorFact(view: View, fact: SensorFact): Effect[] {
  const key = stateKey.sensor(fact.ids.pipeline, fact.ids.sensor)
  const known = view.get(key)
  if (!known || known.removed) return []
  const state = view.edit(key)
  state.seq = fact.seq
  switch (fact.name) {
    case 'sensor.paused': {
      const { reason } = fact.data
      state.paused ??= { sinceMs: fact.timeMs, ...(reason === undefined ? {} : { reason }) }
      break
    }
    case 'sensor.resumed':
      delete state.paused
      break
    case 'sensor.triggered':
      state.asked = true
      break
    default:
      return fact satisfies never
  }
  return [{ do: 'alarm', key }]
}

/** When it is evaluated next; undefined: not as long as nothing changes. */
export function nextEvaluation({
  removed,
  evaluating,
  asked,
  paused,
  lastMs = Number.NEGATIVE_INFINITY,
  spec,
}: SensorState): number | undefined {
  if (removed || evaluating) return undefined
  if (asked) return lastMs
  return paused ? undefined : lastMs + spec.everyMs
}

/** The next evaluation. `last`: the value of the one before. */
export function evaluationOf(state: SensorState, last: StoredValue): Extract<Effect, { do: 'fact' }>['fact'] {
  const { pipeline, name, spec } = state
  const evaluation = state.evaluations + 1
  const of = { sensor: { name, evaluation, evaluates: true } }
  const data = evaluationRequest(state, spec.evaluates, last, of)
  return { name: 'run.requested', ids: { run: runIdOfSchedule('sensor', pipeline, name, String(evaluation)) }, data }
}

export function onEvaluationRequested(view: View, sensor: SensedBy, fact: FactOf<'run.requested'>): void {
  const key = stateKey.sensor(fact.data.pipeline, sensor.name)
  const known = view.get(key)
  if (!known || !sensor.evaluates || sensor.evaluation !== known.evaluations + 1) return
  const state = view.edit(key)
  state.seq = fact.seq
  state.evaluations = sensor.evaluation
  state.lastMs = fact.timeMs
  delete state.asked
  state.evaluating = { run: fact.ids.run, sinceMs: fact.timeMs }
}

export function onEvaluationFinished(
  view: View,
  of: RunState,
  sensor: SensedBy,
  fact: FactOf<'run.finished'>,
): Effect[] {
  const key = stateKey.sensor(of.pipeline, sensor.name)
  if (view.get(key)?.evaluating?.run !== of.id) return []
  const state = view.edit(key)
  state.seq = fact.seq
  delete state.evaluating
  const { value, error, status } = fact.data
  const again: Effect = { do: 'alarm', key }
  if (!value) {
    state.failures += 1
    state.error = error ?? { code: status, message: `its evaluation was ${status}` }
    return [again]
  }
  state.failures = 0
  delete state.error
  // Its runs are not started, so it keeps the cursor before them, should it come back.
  if (state.removed) return [again]
  state.value = value
  state.valueMs = fact.timeMs
  const { pipeline, version, spec } = state
  const upstream = view.get(stateKey.pipeline(pipeline, version))?.upstream ?? 'all'
  const request = {
    pipeline,
    version,
    target: spec.target,
    upstream,
    sensor: { name: sensor.name, evaluation: sensor.evaluation },
  }
  return [{ do: 'start_sensed', value, request }, again]
}
