/** `flow.sensors`: look at sensors. */
import { nextEvaluation } from '../../projections/schedule/sensor.ts'
import type { SensorState } from '../../projections/schedule/state.ts'
import { loadValueAt } from '../io/stored-values.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { docsUnder } from './by-name.ts'
import type { RunDeps } from './run-view.ts'

/** A sensor, as far as the state bucket knows. */
export interface SensorView {
  /** `<pipeline>/<sensor>`. */
  readonly name: string
  readonly pipeline: string
  readonly sensor: string
  /** The asset that its runs make. */
  readonly target: string
  readonly everyMs: number
  readonly state: 'waiting' | 'evaluating' | 'removed'
  /** How many evaluations were begun. */
  readonly evaluations: number
  /** How many have failed in a row, and why the last one did. */
  readonly failures: number
  readonly error?: { readonly code: string; readonly message: string }
  /** When the last evaluation began, and when the last one that went well had ended. */
  readonly last: Date | undefined
  readonly lastGood: Date | undefined
  readonly next: Date | undefined
  /** What the next evaluation gets. */
  readonly cursor: unknown
  /** The run of the evaluation that goes on. */
  readonly run?: string
}

/** See `flow.sensors`. */
export class Sensors {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /** All sensors, by name. `removed`: also those that no pipeline has any more. */
  async list(options: { readonly removed?: boolean } = {}): Promise<SensorView[]> {
    refuseUnknown('sensors.list', options, ['removed'])
    const docs = await docsUnder<SensorState>(this.#deps, 'sensor')
    const shown = docs.filter(({ removed }) => options.removed === true || !removed)
    return await Promise.all(shown.map((doc) => this.#view(doc)))
  }

  async #view(doc: SensorState): Promise<SensorView> {
    const { connection, names, io, clock } = this.#deps
    const { pipeline, name, spec, evaluating, removed, evaluations, failures, error, lastMs, value, valueMs } = doc
    const last: unknown = value && (await loadValueAt(connection, names, io, value))
    const nextMs = nextEvaluation(doc)
    return {
      name: `${pipeline}/${name}`,
      pipeline,
      sensor: name,
      target: spec.target,
      everyMs: spec.everyMs,
      state: removed ? 'removed' : evaluating ? 'evaluating' : 'waiting',
      evaluations,
      failures,
      ...(error ? { error: { code: error.code, message: error.message } } : {}),
      last: lastMs === undefined ? undefined : new Date(lastMs),
      lastGood: valueMs === undefined ? undefined : new Date(valueMs),
      next: nextMs === undefined ? undefined : new Date(Math.max(nextMs, clock.now())),
      cursor: typeof last === 'object' && last !== null ? Reflect.get(last, 'cursor') : undefined,
      ...(evaluating ? { run: evaluating.run } : {}),
    }
  }
}
