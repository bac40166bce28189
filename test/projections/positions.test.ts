import { expect, it } from 'vitest'
import type { EventGroupState } from '../../projections/events/state.ts'
import { groupPosition, PositionsSeen, sensorWithoutPosition } from '../../projections/positions.ts'
import type { ScheduleState, SensorState } from '../../projections/schedule/state.ts'
import type { RunState } from '../../projections/state.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'

const HOUR = 3_600_000
const timing = { everyMs: HOUR, anchorMs: 0 } as never
/** Decided up to the tenth hour; the ninth is open, the tenth waits. */
const nightly = {
  seq: 7,
  pipeline: 'shop',
  name: 'nightly',
  step: 3,
  eras: [{ timing, fromMs: 10 * HOUR, pauses: [] }],
  open: { [9 * HOUR]: { atMs: 9 * HOUR, run: '0-a' } },
  queue: [{ id: String(10 * HOUR), atMs: 10 * HOUR }],
  counts: { fired: 2, skipped: 0, missed: 0 },
  recent: [],
} as unknown as ScheduleState
const ofSchedule = (occurrence: string, atMs: number): RunState =>
  ({ pipeline: 'shop', target: 'stock', schedule: { name: 'nightly', occurrence, atMs }, assets: {} }) as never
const KEY = 'schedule.shop.nightly'

it('a schedule goes on behind the occurrences that have a run in the archive, and what waited still does', () => {
  const seen = new PositionsSeen()
  expect(seen.schedule(KEY, nightly)).toMatchObject({
    open: {},
    queue: nightly.queue,
    step: 4,
    eras: [{ fromMs: 10 * HOUR }],
    counts: { fired: 2 },
  })
  for (const hour of [9, 10, 11]) seen.add(ofSchedule(String(hour * HOUR), hour * HOUR))
  seen.add(ofSchedule('trigger-x', 20 * HOUR))
  expect(seen.schedule(KEY, nightly)).toMatchObject({
    open: {},
    queue: [],
    eras: [{ fromMs: 11 * HOUR }],
    counts: { fired: 4 },
  })
  const changed = { ...nightly, eras: [{ timing, fromMs: 10 * HOUR, toMs: 10.5 * HOUR, pauses: [] }, nightly.eras[0]] }
  expect(seen.schedule(KEY, changed as ScheduleState).eras).toMatchObject([{ fromMs: 11 * HOUR }])
  expect(nightly.eras).toMatchObject([{ fromMs: 10 * HOUR }])
})

it('a schedule goes on behind its last occurrence, however many there are in the archive', () => {
  const seen = new PositionsSeen()
  const last = 10 * HOUR + 700_000
  for (let ms = 10 * HOUR + 1; ms <= last; ms++) seen.add(ofSchedule(String(ms), ms))
  expect(seen.schedule(KEY, nightly)).toMatchObject({ eras: [{ fromMs: last }], counts: { fired: 700_002 } })
})

it('a sensor goes on with the cursor of the last evaluation that succeeded', () => {
  const counter = {
    seq: 7,
    pipeline: 'shop',
    name: 'counter',
    evaluations: 4,
    evaluating: { run: '0-e4', sinceMs: 1 },
    value: { shard: 0, seq: 3 },
    failures: 1,
  } as unknown as SensorState
  const evaluation = (n: number, status: string): RunState =>
    ({
      pipeline: 'shop',
      target: 'code',
      status,
      requestedMs: n * 1000,
      finishedMs: n * 1000 + 1,
      sensor: { name: 'counter', evaluation: n, evaluates: true },
      assets: { code: status === 'succeeded' ? { value: { shard: 0, seq: n * 10 } } : {} },
    }) as never
  const key = 'sensor.shop.counter'
  const seen = new PositionsSeen()
  const { evaluating: _, ...known } = counter
  expect(seen.sensor(key, counter)).toEqual(known)
  seen.add(evaluation(3, 'succeeded'))
  expect(seen.sensor(key, counter)).toEqual(known)
  seen.add(evaluation(4, 'succeeded'))
  expect(seen.sensor(key, counter)).toMatchObject({ evaluations: 4, value: { seq: 40 }, failures: 0, lastMs: 4000 })
  seen.add(evaluation(6, 'failed'))
  seen.add(evaluation(5, 'succeeded'))
  expect(seen.sensor(key, counter)).toMatchObject({ evaluations: 6, value: { seq: 50 }, valueMs: 5001, lastMs: 6000 })
  expect(seen.sensor(key, counter)).not.toHaveProperty('evaluating')
})

it('a sensor without a position begins behind the last evaluation that left a run', () => {
  const run = (version: string, n: number, evaluates?: true) =>
    ({ pipeline: 'shop', version, assets: {}, sensor: { name: 'counter', evaluation: n, evaluates } }) as never
  const seen = new PositionsSeen()
  for (const one of [run('v1', 2, true), run('v2', 7), run('v1', 5, true)]) seen.add(one)
  const last = { pipeline: 'shop', sensor: 'counter', version: 'v2', evaluation: 7 }
  expect([...seen.lastEvaluations]).toEqual([['sensor.shop.counter', last]])
  const spec = { sensors: [{ name: 'counter', everyMs: 1000 }] } as unknown as PipelineSpec
  const state = sensorWithoutPosition(last, spec)
  expect(state).toMatchObject({ evaluations: 7, removed: true, spec: { everyMs: 1000 } })
  expect(state).not.toHaveProperty('value')
  expect(sensorWithoutPosition(last, {} as PipelineSpec)).toBeUndefined()
})

it('messages that wait for their run get a new timer', () => {
  const group = { seq: 1, count: 2, dueMs: 50, timerMs: 40 } as unknown as EventGroupState
  expect(groupPosition(group)).toEqual({ seq: 1, count: 2, dueMs: 50, timerMs: 50 })
})
