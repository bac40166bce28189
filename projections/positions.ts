/**
 * Where schedules, sensors and subscriptions stand, as an archive takes it to another namespace.
 * Pure. A position is read before the runs of the archive. So runs of the archive may be later than
 * it: an occurrence or an evaluation that has a run there has been.
 */

import type { PipelineSpec, ValueAt } from '../streams/schemas.ts'
import type { EventGroupState, SubscriptionState } from './events/state.ts'
import type { ScheduleState, SensorState } from './schedule/state.ts'
import type { RunState } from './state.ts'
import { stateKey } from './state.ts'

/** Kinds of documents that are positions, as their keys begin. */
export const POSITION_KINDS = ['schedule', 'sensor', 'subscription', 'event_group'] as const
export type PositionKind = (typeof POSITION_KINDS)[number]

/** As the last fact of what was taken says it. */
export interface SubscriptionPosition extends SubscriptionState {
  readonly stream: string
  readonly version: string
}

export function positionKind(key: string): PositionKind | undefined {
  return POSITION_KINDS.find((kind) => key.startsWith(`${kind}.`))
}

/** The last evaluation of a sensor that has left a run in an archive. */
export interface LastEvaluation {
  readonly pipeline: string
  readonly sensor: string
  readonly version: string
  readonly evaluation: number
}

interface Evaluated {
  evaluation: number
  lastMs: number
  valued?: { readonly evaluation: number; readonly value: ValueAt; readonly valueMs: number }
}

/** What the runs of an archive say of schedules and sensors, by their keys. */
export class PositionsSeen {
  readonly #occurrences = new Map<string, Map<string, number>>()
  readonly #evaluated = new Map<string, Evaluated>()
  readonly #lastEvaluations = new Map<string, LastEvaluation>()

  add({ pipeline, version, target, schedule, sensor, assets, requestedMs, finishedMs, status }: RunState): void {
    if (schedule) {
      const key = stateKey.schedule(pipeline, schedule.name)
      const ids = this.#occurrences.get(key) ?? new Map<string, number>()
      this.#occurrences.set(key, ids)
      ids.set(schedule.occurrence, schedule.atMs)
    }
    if (!sensor) return
    const key = stateKey.sensor(pipeline, sensor.name)
    const { evaluation } = sensor
    if (evaluation > (this.#lastEvaluations.get(key)?.evaluation ?? 0))
      this.#lastEvaluations.set(key, { pipeline, sensor: sensor.name, version, evaluation })
    if (!sensor.evaluates) return
    const known = this.#evaluated.get(key) ?? { evaluation: 0, lastMs: 0 }
    this.#evaluated.set(key, known)
    if (evaluation > known.evaluation) Object.assign(known, { evaluation, lastMs: requestedMs })
    const value = assets[target]?.value
    if (status === 'succeeded' && value && finishedMs !== undefined && evaluation > (known.valued?.evaluation ?? 0))
      known.valued = { evaluation, value, valueMs: finishedMs }
  }

  /**
   * Runs that had not ended are in no archive that is imported: nobody waits for them, and what
   * waited for its turn behind them starts.
   */
  schedule(key: string, state: ScheduleState): ScheduleState {
    const seen = this.#occurrences.get(key) ?? new Map<string, number>()
    const eras = state.eras.map((era) => ({ ...era }))
    let [fired, lastMs] = [0, 0]
    for (const [id, atMs] of seen) {
      const wasOpen = state.open[id] !== undefined
      if (state.queue.some((one) => one.id === id)) fired += 1
      // One of its own, or of a backfill, has another name.
      if (id !== String(atMs)) continue
      lastMs = Math.max(lastMs, atMs)
      const of = eras.find(({ toMs }) => toMs === undefined || toMs >= atMs)
      if (!wasOpen && of && atMs > of.fromMs) fired += 1
    }
    while (eras[0]?.toMs !== undefined && eras[0].toMs <= lastMs) eras.shift()
    const [era] = eras
    if (era && era.fromMs < lastMs) era.fromMs = lastMs
    return {
      ...state,
      eras,
      step: state.step + 1,
      open: {},
      queue: state.queue.filter(({ id }) => !seen.has(id)),
      counts: { ...state.counts, fired: state.counts.fired + fired },
    }
  }

  /** An evaluation that had not ended has started no run. The next one has the number behind it. */
  sensor(key: string, { evaluating, ...state }: SensorState): SensorState {
    const seen = this.#evaluated.get(key)
    if (!seen) return state
    const { evaluation, lastMs, valued } = seen
    const isNew = (n: number): boolean => n > state.evaluations || (n === state.evaluations && evaluating !== undefined)
    const brought = valued && isNew(valued.evaluation)
    return {
      ...state,
      ...(isNew(evaluation) ? { evaluations: evaluation, lastMs } : {}),
      ...(brought ? { value: valued.value, valueMs: valued.valueMs, failures: 0 } : {}),
    }
  }

  /** Of all sensors that have left runs, by their keys. */
  get lastEvaluations(): ReadonlyMap<string, LastEvaluation> {
    return this.#lastEvaluations
  }
}

/**
 * A sensor without a position begins without a cursor. Ids of runs follow from the number of their
 * evaluation, so its numbers go on behind those of the archive. Undefined: that version of the
 * pipeline has no such sensor.
 */
export function sensorWithoutPosition(
  { pipeline, sensor: name, version, evaluation }: LastEvaluation,
  spec: PipelineSpec,
): SensorState | undefined {
  const sensor = spec.sensors?.find((one) => one.name === name)
  return (
    sensor && { seq: 0, pipeline, name, version, spec: sensor, removed: true, evaluations: evaluation, failures: 0 }
  )
}

/** Its timer is set anew. */
export function groupPosition({ timerMs: _, ...group }: EventGroupState): EventGroupState {
  return { ...group, timerMs: group.dueMs }
}
