import { describe, expect, it } from 'vitest'
import type { Effect } from '../../../projections/effects.ts'
import { evaluationOf, nextEvaluation } from '../../../projections/schedule/sensor.ts'
import type { SensorState } from '../../../projections/schedule/state.ts'
import { stateKey } from '../../../projections/state.ts'
import type { DraftOf, FactDraft } from '../../../streams/facts.ts'
import type { RunId } from '../../../streams/ids.ts'
import { registered, Sim, spec } from '../harness.ts'

const EVERY_MS = 60_000
const evaluates = 'sensor__files'

function sensing(sensors = [{ name: 'files', target: 'a', everyMs: EVERY_MS, evaluates }], version = 'v1'): Sim {
  const sim = new Sim()
  define(sim, sensors, version)
  return sim
}

function define(sim: Sim, sensors: NonNullable<DraftOf<'pipeline.registered'>['data']['sensors']>, version: string) {
  const draft = registered([spec('a'), spec(evaluates)], 'p', version)
  sim.apply({ ...draft, data: { ...draft.data, sensors } })
}

function stateOf(sim: Sim): SensorState {
  const state = sim.docs.peek(stateKey.sensor('p', 'files'))
  if (!state) throw new Error('there is no sensor')
  return state
}

/** As the engine's clock does it when it is due. */
function evaluate(sim: Sim): string {
  const fact = evaluationOf(stateOf(sim), { json: null })
  sim.apply(fact)
  return runOf(fact)
}

function runOf(fact: FactDraft): string {
  if (fact.name !== 'run.requested') throw new Error(`no request: ${fact.name}`)
  return fact.ids.run
}

/** `seq`: where its value is; without one it has failed. */
function finish(sim: Sim, run: string, seq?: number): readonly Effect[] {
  const ended =
    seq === undefined ? { status: 'failed' as const } : { status: 'succeeded' as const, value: { shard: 0, seq } }
  const data = { run, pipeline: 'p', target: evaluates, durationMs: 0, ...ended }
  return sim.apply({ name: 'run.finished', ids: { run: run as RunId }, data })
}

const ids = { pipeline: 'p', sensor: 'files' }
const pause = { name: 'sensor.paused', ids, data: { reason: 'moving' } } as const
const resume = { name: 'sensor.resumed', ids, data: {} } as const
const trigger = (request: string) => ({ name: 'sensor.triggered', ids: { ...ids, request }, data: {} }) as const

describe('a sensor that is paused', () => {
  it('is not evaluated until it is resumed; then when it would have been', () => {
    const sim = sensing()
    finish(sim, evaluate(sim))
    const dueMs = nextEvaluation(stateOf(sim))
    expect(dueMs).toBe(sim.nowMs + EVERY_MS)
    sim.apply(pause)
    expect(stateOf(sim).paused).toEqual({ sinceMs: sim.nowMs, reason: 'moving' })
    expect(nextEvaluation(stateOf(sim))).toBeUndefined()
    define(sim, [{ name: 'files', target: 'a', everyMs: 2 * EVERY_MS, evaluates }], 'v2')
    expect(nextEvaluation(stateOf(sim))).toBeUndefined()
    expect(sim.apply(resume)).toEqual([{ do: 'alarm', key: stateKey.sensor('p', 'files') }])
    expect(nextEvaluation(stateOf(sim))).toBe((dueMs ?? 0) + EVERY_MS)
  })

  it('is evaluated once when it is triggered, and waits again', () => {
    const sim = sensing()
    finish(sim, evaluate(sim))
    sim.apply(pause)
    sim.apply(trigger('r1'))
    expect(nextEvaluation(stateOf(sim))).toBeLessThanOrEqual(sim.nowMs)
    finish(sim, evaluate(sim))
    expect(stateOf(sim).evaluations).toBe(2)
    expect(nextEvaluation(stateOf(sim))).toBeUndefined()
  })

  it('is not paused any more when its pipeline has it again after a version without it', () => {
    const sim = sensing()
    sim.apply(pause)
    define(sim, [], 'v2')
    expect(stateOf(sim)).toMatchObject({ removed: true })
    sim.apply(trigger('r1'))
    define(sim, [{ name: 'files', target: 'a', everyMs: EVERY_MS, evaluates }], 'v3')
    expect(stateOf(sim).paused).toBeUndefined()
    expect(stateOf(sim).asked).toBeUndefined()
  })
})

it('a sensor that is triggered during an evaluation is evaluated again after it, once', () => {
  const sim = sensing()
  const run = evaluate(sim)
  sim.apply(trigger('r1'))
  sim.apply(trigger('r2'))
  expect(nextEvaluation(stateOf(sim))).toBeUndefined()
  finish(sim, run)
  expect(nextEvaluation(stateOf(sim))).toBeLessThanOrEqual(sim.nowMs)
  finish(sim, evaluate(sim))
  expect(nextEvaluation(stateOf(sim))).toBe(sim.nowMs + EVERY_MS)
})

it('a sensor that is removed while it is evaluated takes neither the cursor nor the runs of that', () => {
  const sim = sensing()
  const does = (effects: readonly Effect[]): string[] => effects.map((effect) => effect.do)
  expect(does(finish(sim, evaluate(sim), 5))).toContain('start_sensed')
  const run = evaluate(sim)
  define(sim, [], 'v2')
  expect(does(finish(sim, run, 9))).not.toContain('start_sensed')
  define(sim, [{ name: 'files', target: 'a', everyMs: EVERY_MS, evaluates }], 'v3')
  expect(stateOf(sim).value).toEqual({ shard: 0, seq: 5 })
  expect(nextEvaluation(stateOf(sim))).toBeDefined()
})
