import { DECIDED_MAX, lookAt } from '../../../projections/schedule/due.ts'
import { occurrencesAfter } from '../../../projections/schedule/occurrences.ts'
import type { ScheduleState } from '../../../projections/schedule/state.ts'
import { stateKey } from '../../../projections/state.ts'
import type { RunId } from '../../../streams/ids.ts'
import type { ScheduleSpec, ScheduleTiming } from '../../../streams/schedule-schemas.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import { registered, Sim, spec } from '../harness.ts'

export const HOUR_MS = 3_600_000

export function scheduleSpec(more: Partial<ScheduleSpec> = {}): ScheduleSpec {
  return {
    name: 's',
    target: 'a',
    timing: { everyMs: HOUR_MS, anchorMs: 0 },
    overlap: 'allow',
    catchUp: 'last',
    jitterMs: 0,
    ...more,
  }
}

/** A pipeline with schedules, and an engine whose clock is set by hand. */
export class Clocked {
  readonly sim = new Sim()
  #version = 0
  readonly #defined: (readonly [readonly ScheduleSpec[], Partial<PipelineSpec>])[] = []

  define(schedules: readonly ScheduleSpec[], timeMs = this.sim.nowMs, more: Partial<PipelineSpec> = {}): void {
    this.#version += 1
    this.#defined.push([schedules, more])
    this.#register(this.#version, schedules, timeMs, more)
  }

  /** A version that was registered before is registered again. */
  defineAgain(version: number, timeMs: number): void {
    const [schedules, more] = this.#defined[version - 1] ?? []
    if (!schedules) throw new Error(`there is no version ${version}`)
    this.#register(version, schedules, timeMs, more)
  }

  #register(
    version: number,
    schedules: readonly ScheduleSpec[],
    timeMs: number,
    more: Partial<PipelineSpec> = {},
  ): void {
    const evaluations = schedules.flatMap(({ evaluates }) => (evaluates === undefined ? [] : [spec(evaluates)]))
    const draft = registered([spec('a'), ...evaluations], 'p', `v${version}`)
    this.sim.apply({ ...draft, data: { ...draft.data, schedules: [...schedules], ...more } }, timeMs)
  }

  get state(): ScheduleState {
    const state = this.sim.docs.peek(stateKey.schedule('p', 's'))
    if (!state) throw new Error('there is no schedule')
    return state
  }

  /** An engine is there at this time, until nothing is due. Returns when something is next. */
  look(timeMs: number): number | undefined {
    for (let i = 0; i < 10_000; i++) {
      const { fact, atMs } = lookAt(this.state, timeMs)
      if (!fact) return atMs
      this.sim.apply(fact, timeMs)
    }
    throw new Error('it looks for ever')
  }

  say(name: 'schedule.paused' | 'schedule.resumed', timeMs: number): void {
    this.sim.apply({ name, ids: { pipeline: 'p', schedule: 's' }, data: {} }, timeMs)
  }

  finish(
    run: string,
    timeMs: number,
    status: 'succeeded' | 'failed' | 'cancelled' = 'succeeded',
    value?: number,
  ): void {
    const data = {
      run,
      pipeline: 'p',
      target: 'a',
      status,
      durationMs: 0,
      ...(value === undefined ? {} : { value: { shard: 0, seq: value } }),
    }
    this.sim.apply({ name: 'run.finished', ids: { run: run as RunId }, data }, timeMs)
  }

  /** What became of each occurrence that is decided, out of turn ones left out. */
  decided(timing: ScheduleTiming | readonly ScheduleTiming[]): { atMs: number; what: string }[] {
    const found: { atMs: number; what: string }[] = []
    const timings = Array.isArray(timing) ? timing : [timing]
    for (const fact of this.sim.log) {
      if (fact.name !== 'schedule.fired' && fact.name !== 'schedule.skipped' && fact.name !== 'schedule.missed')
        continue
      if ('by' in fact.data && fact.data.by) continue
      const { atMs } = fact.data
      const { lastMs, count } = { lastMs: undefined, count: undefined, ...fact.data }
      if (lastMs === undefined) found.push({ atMs, what: fact.name })
      else {
        const of = timings
          .map((one) => within(one, atMs, lastMs))
          .find((some) => some.length === count && some[0] === atMs)
        if (!of) throw new Error(`no timing has ${count} occurrences from ${atMs} to ${lastMs}`)
        for (const ms of of) found.push({ atMs: ms, what: fact.name })
      }
    }
    return found.toSorted((a, b) => a.atMs - b.atMs)
  }
}

/** The occurrences in [from, to]. */
export function within(timing: ScheduleTiming, fromMs: number, toMs: number): number[] {
  const all: number[] = []
  for (const ms of occurrencesAfter(timing, fromMs - 1)) {
    if (ms > toMs) break
    all.push(ms)
  }
  return all
}

export { DECIDED_MAX }
