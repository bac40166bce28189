import { describe, expect, it } from 'vitest'
import { DECIDED_MAX, ON_TIME_MS, STARTED_MAX } from '../../../projections/schedule/due.ts'
import { QUEUE_MAX } from '../../../projections/schedule/schedule.ts'
import { stateKey } from '../../../projections/state.ts'
import { START_MS } from '../harness.ts'
import { Clocked, HOUR_MS, scheduleSpec } from './kit.ts'

/** The first whole hour after the simulation's start. */
const T = Math.ceil(START_MS / HOUR_MS) * HOUR_MS
const hours = { everyMs: HOUR_MS, anchorMs: 0 }
const minutes = { everyMs: 60_000, anchorMs: 0 }

function clocked(more: Parameters<typeof scheduleSpec>[0] = {}): Clocked {
  const clocked = new Clocked()
  clocked.define([scheduleSpec(more)])
  return clocked
}

function firedAt({ sim }: Clocked): number[] {
  return sim.facts('schedule.fired').map(({ data }) => data.atMs)
}

describe('a schedule', () => {
  it('starts a run when an occurrence is due, once, in the first shard, with its nominal time', () => {
    const one = clocked()
    expect(one.look(T - 1)).toBe(T)
    expect(firedAt(one)).toEqual([])
    one.look(T)
    one.look(T + 5)
    const [fired] = one.sim.facts('schedule.fired')
    expect(fired?.data).toMatchObject({ atMs: T })
    const [request] = one.sim.facts('run.requested')
    expect(request?.ids.run).toBe(fired?.data.run)
    expect(request?.ids.run).toMatch(/^0-/)
    expect(request?.data).toMatchObject({
      target: 'a',
      version: 'v1',
      schedule: { name: 's', occurrence: String(T), atMs: T },
    })
    expect(one.sim.facts('run.requested')).toHaveLength(1)
  })

  it('starts its runs under the concurrency of the pipeline', () => {
    const one = new Clocked()
    one.define([scheduleSpec()], START_MS, { concurrency: { limit: 1, onConflict: 'queue' } })
    one.look(T)
    expect(one.sim.facts('run.requested')[0]?.data.concurrency).toEqual({ key: '', limit: 1, onConflict: 'queue' })
  })

  it('starts each run later by the jitter of its occurrence, in order', () => {
    const one = clocked({ jitterMs: 2 * HOUR_MS, catchUp: 'all' })
    for (let ms = T; ms < T + 20 * HOUR_MS; ms = one.look(ms) ?? 0) if (ms === 0) throw new Error('it stopped')
    const fired = one.sim.facts('schedule.fired')
    expect(fired.map(({ data }) => data.atMs)).toEqual(fired.map((_, i) => T + i * HOUR_MS))
    expect(fired.every(({ timeMs, data }) => timeMs >= data.atMs && timeMs < data.atMs + 3 * HOUR_MS)).toBe(true)
    expect(fired.some(({ timeMs, data }) => timeMs > data.atMs + HOUR_MS)).toBe(true)
  })

  it.each([
    ['none', []],
    ['last', [71]],
    ['all', Array.from({ length: 72 }, (_, i) => i)],
    [{ withinMs: 6 * HOUR_MS }, [66, 67, 68, 69, 70, 71]],
  ] as const)('after three days without an engine starts what catchUp %j says', (catchUp, expected) => {
    const one = clocked({ catchUp })
    const backMs = T + 71.5 * HOUR_MS
    one.look(backMs)
    expect(firedAt(one)).toEqual(expected.map((i) => T + i * HOUR_MS))
    expect(one.decided(hours)).toHaveLength(72)
    expect(one.sim.facts('schedule.missed').length).toBe(expected.length === 72 ? 0 : 1)
    one.look(T + 72 * HOUR_MS)
    expect(firedAt(one).at(-1)).toBe(T + 72 * HOUR_MS)
  })

  it('takes an occurrence that is a little late as being on time, whatever catchUp says', () => {
    for (const [lateMs, count] of [
      [ON_TIME_MS, 1],
      [ON_TIME_MS + 1, 0],
    ] as const) {
      const one = clocked({ catchUp: 'none' })
      one.look(T + lateMs)
      expect(firedAt(one)).toHaveLength(count)
      expect(one.decided(hours)).toHaveLength(1)
    }
  })

  it('of each minute, three years without an engine, has few facts', () => {
    const one = clocked({ timing: minutes, catchUp: 'last' })
    const years = 3 * 365 * 24 * HOUR_MS
    one.look(T + years)
    const missed = one.sim.facts('schedule.missed')
    expect(missed.length).toBe(Math.ceil(years / 60_000 / DECIDED_MAX))
    expect(firedAt(one)).toEqual([T + years])
    expect(missed.reduce((sum, { data }) => sum + data.count, 0) + 1).toBe(
      (T + years - Math.floor(START_MS / 60_000) * 60_000) / 60_000,
    )
  })

  it('with catchUp all starts a hundred runs by each fact', () => {
    const one = clocked({ timing: minutes, catchUp: 'all' })
    one.look(T + 5 * HOUR_MS)
    const due = one.sim.facts('schedule.due')
    expect(Math.max(...due.map(({ data }) => data.at.length))).toBe(STARTED_MAX)
    expect(new Set(firedAt(one)).size).toBe(one.decided(minutes).length)
    expect(one.sim.facts('schedule.missed')).toEqual([])
  })
})

describe('while a run of the schedule is open', () => {
  function withOpen(
    overlap: 'skip' | 'queue' | 'cancel_running' | 'allow',
    ticks = 3,
  ): { one: Clocked; runs: string[] } {
    const one = clocked({ overlap, catchUp: 'all' })
    for (let i = 0; i < ticks; i++) one.look(T + i * HOUR_MS)
    return { one, runs: one.sim.facts('schedule.fired').map(({ data }) => data.run) }
  }

  it('skip leaves out the others, and goes on after its end', () => {
    const { one, runs } = withOpen('skip')
    expect(firedAt(one)).toEqual([T])
    expect(one.sim.facts('schedule.skipped').map(({ data }) => [data.atMs, data.why])).toEqual([
      [T + HOUR_MS, 'overlap'],
      [T + 2 * HOUR_MS, 'overlap'],
    ])
    one.finish(runs[0] ?? '', T + 2.5 * HOUR_MS)
    one.look(T + 3 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + 3 * HOUR_MS])
    expect(one.state.counts).toEqual({ fired: 2, skipped: 2, missed: 0 })
  })

  it('queue starts them one after the other', () => {
    const { one, runs } = withOpen('queue')
    expect(firedAt(one)).toEqual([T])
    one.finish(runs[0] ?? '', T + 2.5 * HOUR_MS, 'failed')
    expect(firedAt(one)).toEqual([T, T + HOUR_MS])
    one.finish(one.sim.facts('schedule.fired')[1]?.data.run ?? '', T + 2.6 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + HOUR_MS, T + 2 * HOUR_MS])
    expect(one.state.queue).toEqual([])
  })

  it('queue has an end', () => {
    const one = clocked({ timing: minutes, overlap: 'queue', catchUp: 'all' })
    one.look(T + (QUEUE_MAX + 10) * 60_000)
    expect(one.sim.facts('schedule.skipped').every(({ data }) => data.why === 'queue_full')).toBe(true)
    expect(one.state.queue).toHaveLength(QUEUE_MAX)
    expect(one.sim.facts('schedule.skipped').length).toBeGreaterThan(5)
  })

  it('cancel_running cancels it, and starts the newest when it has ended', () => {
    const { one, runs } = withOpen('cancel_running', 1)
    one.look(T + 2 * HOUR_MS)
    expect(one.sim.facts('run.cancel_requested').map(({ ids }) => ids.run)).toEqual(runs)
    expect(one.sim.facts('schedule.skipped').map(({ data }) => [data.atMs, data.why])).toEqual([
      [T + HOUR_MS, 'superseded'],
    ])
    expect(one.sim.facts('run.finished').map(({ data }) => data.status)).toEqual(['cancelled'])
    expect(firedAt(one)).toEqual([T, T + 2 * HOUR_MS])
  })

  it('allow starts them all', () => {
    expect(firedAt(withOpen('allow').one)).toEqual([T, T + HOUR_MS, T + 2 * HOUR_MS])
  })
})

describe('a schedule that is paused', () => {
  it('skips what is due meanwhile, in one fact, and goes on', () => {
    const one = clocked()
    one.look(T)
    one.say('schedule.paused', T + HOUR_MS / 2)
    expect(one.look(T + 10 * HOUR_MS)).toBeUndefined()
    one.say('schedule.resumed', T + 10.5 * HOUR_MS)
    one.look(T + 10.5 * HOUR_MS)
    one.look(T + 11 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + 11 * HOUR_MS])
    expect(one.sim.facts('schedule.skipped').map(({ data }) => data)).toEqual([
      { why: 'paused', atMs: T + HOUR_MS, lastMs: T + 10 * HOUR_MS, count: 10 },
    ])
  })

  it('decides what was due before as always, when no engine was there', () => {
    const one = clocked({ catchUp: 'all' })
    one.say('schedule.paused', T + 1.5 * HOUR_MS)
    one.say('schedule.resumed', T + 3.5 * HOUR_MS)
    one.look(T + 5.5 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + HOUR_MS, T + 4 * HOUR_MS, T + 5 * HOUR_MS])
    expect(one.decided(hours)).toHaveLength(6)
  })

  it('starts what waited when it is resumed', () => {
    const one = clocked({ overlap: 'queue' })
    one.look(T)
    one.look(T + HOUR_MS)
    one.say('schedule.paused', T + HOUR_MS + 1)
    one.finish(one.sim.facts('schedule.fired')[0]?.data.run ?? '', T + HOUR_MS + 2)
    expect(firedAt(one)).toEqual([T])
    one.say('schedule.resumed', T + HOUR_MS + 3)
    expect(firedAt(one)).toEqual([T, T + HOUR_MS])
  })
})

describe('a new version of the pipeline', () => {
  it('with another timing starts from its registration, and never fires what was due before', () => {
    const one = clocked()
    one.look(T)
    const halves = { everyMs: HOUR_MS / 2, anchorMs: 0 }
    one.define([scheduleSpec({ timing: halves })], T + 2.25 * HOUR_MS)
    one.look(T + 2.5 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + 2.5 * HOUR_MS])
    expect(one.sim.facts('schedule.missed').map(({ data }) => data)).toEqual([
      { why: 'changed', atMs: T + HOUR_MS, lastMs: T + 2 * HOUR_MS, count: 2 },
    ])
    expect(one.state.version).toBe('v2')
  })

  it('with the same schedule changes nothing but the version of the next runs', () => {
    const one = clocked({ catchUp: 'all' })
    one.define([scheduleSpec({ catchUp: 'all' })], T + 1.5 * HOUR_MS)
    one.look(T + 2 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + HOUR_MS, T + 2 * HOUR_MS])
    expect(one.sim.facts('run.requested').map(({ data }) => data.version)).toEqual(['v2', 'v2', 'v2'])
  })

  it('without it stops it; with it again, it starts anew', () => {
    const one = clocked({ overlap: 'queue' })
    one.look(T)
    one.look(T + HOUR_MS)
    one.define([], T + 1.5 * HOUR_MS)
    expect(one.look(T + 5 * HOUR_MS)).toBeUndefined()
    one.finish(one.sim.facts('schedule.fired')[0]?.data.run ?? '', T + 5 * HOUR_MS)
    expect(firedAt(one)).toEqual([T])
    expect(one.sim.facts('schedule.skipped').map(({ data }) => [data.atMs, data.why])).toEqual([
      [T + HOUR_MS, 'removed'],
    ])
    one.define([scheduleSpec()], T + 5.5 * HOUR_MS)
    one.look(T + 6 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + 6 * HOUR_MS])
  })

  it('an earlier version that is registered again brings its timing back, and fires nothing of before', () => {
    const one = clocked({ catchUp: 'all' })
    one.look(T)
    one.define([scheduleSpec({ timing: minutes, catchUp: 'all' })], T + 60_000 + 1)
    one.look(T + 120_000)
    const before = firedAt(one)
    one.defineAgain(1, T + 5.5 * HOUR_MS)
    one.look(T + 6 * HOUR_MS)
    expect(firedAt(one)).toEqual([...before, T + 6 * HOUR_MS])
    expect(one.sim.facts('run.requested').at(-1)?.data.version).toBe('v1')
    expect(one.sim.facts('schedule.missed').map(({ data }) => data.why)).toEqual(['changed'])
    expect(one.sim.docs.peek(stateKey.newest('p'))?.version).toBe('v1')
  })

  it('an earlier version that is registered again brings back what the later one did not have', () => {
    const one = clocked({ catchUp: 'all' })
    one.look(T)
    one.define([], T + 1)
    expect(one.look(T + 5 * HOUR_MS)).toBeUndefined()
    one.defineAgain(1, T + 5.5 * HOUR_MS)
    one.look(T + 6 * HOUR_MS)
    expect(firedAt(one)).toEqual([T, T + 6 * HOUR_MS])
    expect(one.sim.facts('schedule.missed')).toEqual([])
  })

  it('makes a look at the clock by the old one mean nothing', () => {
    const one = clocked({ catchUp: 'all' })
    const { step } = one.state
    one.define([scheduleSpec({ timing: minutes, catchUp: 'all' })], T + 1)
    const ids = { pipeline: 'p', schedule: 's', step: String(step) }
    const data = { fromMs: one.sim.facts('pipeline.registered')[0]?.timeMs ?? 0, upToMs: T, nowMs: T + 1, at: [T] }
    one.sim.apply({ name: 'schedule.due', ids, data }, T + 2)
    expect(firedAt(one)).toEqual([])
    one.look(T + 60_000)
    expect(firedAt(one)).toEqual([T + 60_000])
  })
})

describe('a schedule whose code says what its runs are asked for with', () => {
  const evaluates = 'schedule__s'

  it('evaluates it first, with the nominal time, and starts the run when that has succeeded', () => {
    const one = clocked({ evaluates, overlap: 'queue' })
    one.look(T)
    one.look(T + HOUR_MS)
    const [evaluation] = one.sim.facts('run.requested')
    expect(evaluation?.data).toMatchObject({
      target: evaluates,
      input: { [`${evaluates}__given`]: { json: { atMs: T } } },
    })
    expect(firedAt(one)).toEqual([])
    one.finish(evaluation?.ids.run ?? '', T + HOUR_MS + 1, 'succeeded', 1)
    expect(firedAt(one)).toEqual([T])
    expect(one.sim.facts('run.requested')).toHaveLength(2)
    one.finish(one.sim.facts('schedule.fired')[0]?.data.run ?? '', T + HOUR_MS + 2)
    expect(one.sim.facts('run.requested')[2]?.data.schedule).toMatchObject({ atMs: T + HOUR_MS, evaluates: true })
  })

  it('skips an occurrence whose evaluation has failed, and starts the next one', () => {
    const one = clocked({ evaluates, overlap: 'queue' })
    one.look(T)
    one.look(T + HOUR_MS)
    one.finish(one.sim.facts('run.requested')[0]?.ids.run ?? '', T + HOUR_MS + 1, 'failed')
    expect(one.sim.facts('schedule.skipped').map(({ data }) => [data.atMs, data.why])).toEqual([
      [T, 'evaluation_failed'],
    ])
    expect(one.sim.facts('run.requested')).toHaveLength(2)
  })
})

describe('out of turn', () => {
  it('a trigger starts a run now, also while another one is open or the schedule is paused', () => {
    const one = clocked({ overlap: 'skip' })
    one.look(T)
    one.say('schedule.paused', T + 1)
    one.sim.apply({ name: 'schedule.triggered', ids: { pipeline: 'p', schedule: 's', request: 'r' }, data: {} }, T + 2)
    expect(one.sim.facts('schedule.fired').map(({ data }) => [data.atMs, data.by])).toEqual([
      [T, undefined],
      [T + 2, 'trigger'],
    ])
  })

  it('a backfill runs one after the other, beside the others, and may repeat what was fired', () => {
    const one = clocked({ overlap: 'skip' })
    one.look(T)
    const at = [T - 2 * HOUR_MS, T - HOUR_MS, T]
    one.sim.apply(
      { name: 'schedule.backfill_requested', ids: { pipeline: 'p', schedule: 's', request: 'r' }, data: { at } },
      T + 1,
    )
    const backfilled = () => one.sim.facts('schedule.fired').filter(({ data }) => data.by === 'backfill')
    for (const [i, atMs] of at.entries()) {
      expect(backfilled().map(({ data }) => data.atMs)).toEqual(at.slice(0, i + 1))
      expect(backfilled()[i]?.data.atMs).toBe(atMs)
      one.finish(backfilled()[i]?.data.run ?? '', T + 2 + i)
    }
    expect(new Set(one.sim.facts('run.requested').map(({ ids }) => ids.run)).size).toBe(4)
    one.finish(one.sim.facts('schedule.fired')[0]?.data.run ?? '', T + 10)
    one.look(T + HOUR_MS)
    expect(firedAt(one).at(-1)).toBe(T + HOUR_MS)
  })
})
