/** `flow.sensors`: look at sensors, and act on them. */
import { randomBytes } from 'node:crypto'
import { nextEvaluation } from '../../projections/schedule/sensor.ts'
import type { SensorState } from '../../projections/schedule/state.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { loadValueAt } from '../io/stored-values.ts'
import { factEntry } from '../log/entries.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { docsUnder, findDoc } from './by-name.ts'
import type { RunDeps } from './run-view.ts'
import { untilFoldedNow } from './values.ts'

/** A sensor, as far as the state bucket knows. */
export interface SensorView {
  /** `<pipeline>/<sensor>`. */
  readonly name: string
  readonly pipeline: string
  readonly sensor: string
  /** The asset that its runs make. */
  readonly target: string
  readonly everyMs: number
  /** `paused`: also while an evaluation goes on that began before. */
  readonly state: 'waiting' | 'evaluating' | 'paused' | 'removed'
  readonly pausedSince?: Date
  readonly pausedBecause?: string
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

  /** One sensor. `name`: `<pipeline>/<sensor>`, or the sensor if only one pipeline has it. */
  async get(name: string): Promise<SensorView> {
    return await this.#view(await findDoc<SensorState>(this.#deps, 'sensors.get', 'sensor', name))
  }

  /** It is not evaluated any more, until `resume`. An evaluation that goes on ends as always. */
  async pause(name: string, reason?: string): Promise<void> {
    const data = reason === undefined ? {} : { reason }
    await this.#say('sensors.pause', name, (ids) => ({ name: 'sensor.paused', ids, data }))
  }

  /** It is evaluated again: at once, if it would have been due meanwhile. */
  async resume(name: string): Promise<void> {
    await this.#say('sensors.resume', name, (ids) => ({ name: 'sensor.resumed', ids, data: {} }))
  }

  /** Has it evaluated now, also while it is paused; after the evaluation that goes on, if any. */
  async trigger(name: string): Promise<void> {
    const request = randomBytes(8).toString('hex')
    await this.#say('sensors.trigger', name, (ids) => ({
      name: 'sensor.triggered',
      ids: { ...ids, request },
      data: {},
    }))
  }

  async #say(at: string, name: string, fact: (ids: { pipeline: string; sensor: string }) => FactDraft): Promise<void> {
    const { names, logOf, by } = this.#deps
    const { pipeline, name: sensor, removed } = await findDoc<SensorState>(this.#deps, at, 'sensor', name)
    if (removed)
      throw new FlowStoneError(
        'not_found',
        `${at}: no pipeline has sensor ${pipeline}/${sensor} any more; start a worker of one that has`,
      )
    await logOf(0).appendOnce(factEntry(names, 0, fact({ pipeline, sensor }), by))
    // Who asks next sees it, if an engine is there.
    await untilFoldedNow(this.#deps, 0)
  }

  async #view(doc: SensorState): Promise<SensorView> {
    const { connection, names, io, clock } = this.#deps
    const { pipeline, name, spec, evaluating, removed, paused, evaluations, failures, error, lastMs, value, valueMs } =
      doc
    const last: unknown = value && (await loadValueAt(connection, names, io, value))
    const nextMs = nextEvaluation(doc)
    return {
      name: `${pipeline}/${name}`,
      pipeline,
      sensor: name,
      target: spec.target,
      everyMs: spec.everyMs,
      state: removed ? 'removed' : paused ? 'paused' : evaluating ? 'evaluating' : 'waiting',
      ...(paused ? { pausedSince: new Date(paused.sinceMs) } : {}),
      ...(paused?.reason === undefined ? {} : { pausedBecause: paused.reason }),
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
