import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concurrencyOf, groupOf } from '../../projections/run/concurrency-key.ts'
import { stateKey } from '../../projections/state.ts'
import { type RunId, runId } from '../../streams/ids.ts'
import type { PipelineSpec, RunConcurrency } from '../../streams/schemas.ts'
import { runs } from '../kit/runs.ts'
import { Docs, type DraftOf, foldOne, materialized, printed, registered, requested, Sim, spec } from './harness.ts'

const id = (n: number): RunId => runId(0, `c${n}`)
const limited = (limit: number, onConflict: RunConcurrency['onConflict'] = 'queue', key = 'k'): RunConcurrency => ({
  key,
  limit,
  onConflict,
})
const ask = (n: number, concurrency: RunConcurrency, more: object = {}) =>
  requested('a', { run: id(n), concurrency, ...more })
const cancelled = (n: number): DraftOf<'run.cancel_requested'> => ({
  name: 'run.cancel_requested',
  ids: { run: id(n) },
  data: {},
})

function begun(): Sim {
  const sim = new Sim()
  sim.apply(registered([spec('a')]))
  return sim
}
const statuses = (sim: Sim, count: number) => Array.from({ length: count }, (_, n) => sim.run(id(n)).status)
const groupIn = (sim: Sim, key = 'k') => sim.docs.peek(stateKey.concurrency('p', groupOf('p', { key })))

describe('runs with a concurrency key', () => {
  it('start while there is room, wait for their turn in the order in which they came, and are planned then', () => {
    const sim = begun()
    for (let n = 0; n < 4; n++) sim.apply(ask(n, limited(2)))
    expect(statuses(sim, 4)).toEqual(['running', 'running', 'queued', 'queued'])
    expect(sim.run(id(3))).toMatchObject({ assets: {}, queue: { at: 2, prev: id(2) } })
    expect(groupIn(sim)).toMatchObject({ key: 'k', running: [id(0), id(1)], waiting: 2, first: id(2), last: id(3) })
    sim.nowMs += 500
    sim.apply(materialized('a', id(1)))
    expect(statuses(sim, 4)).toEqual(['running', 'succeeded', 'running', 'queued'])
    expect(sim.run(id(2))).toMatchObject({ startedMs: sim.nowMs })
    expect(sim.run(id(2)).queue).toBeUndefined()
    for (const n of [0, 2, 3]) sim.apply(materialized('a', id(n)))
    expect(statuses(sim, 4)).toEqual(['succeeded', 'succeeded', 'succeeded', 'succeeded'])
    expect(groupIn(sim)).toBeUndefined()
  })

  it('of another key, or another pipeline, are not in the way', () => {
    const sim = begun()
    sim.apply(registered([spec('a')], 'q'))
    sim.apply(ask(0, limited(1)))
    sim.apply(ask(1, limited(1, 'queue', 'other')))
    sim.apply(ask(2, limited(1), { pipeline: 'q' }))
    expect(statuses(sim, 3)).toEqual(['running', 'running', 'running'])
    expect(groupOf('p', { key: 'k' })).not.toBe(groupOf('q', { key: 'k' }))
  })

  it('that wait are cancelled from the middle of the queue, and time out, without a turn', () => {
    const sim = begun()
    sim.apply(ask(0, limited(1)))
    for (let n = 1; n < 5; n++) sim.apply(ask(n, limited(1), { timeoutMs: 1000 }))
    sim.apply(cancelled(2))
    sim.apply(cancelled(4))
    sim.apply({ name: 'run.timer_fired', ids: { run: id(1) }, data: { timeoutMs: 1000 } })
    expect(statuses(sim, 5)).toEqual(['running', 'failed', 'cancelled', 'queued', 'cancelled'])
    expect(sim.run(id(1)).error?.code).toBe('timeout')
    expect(groupIn(sim)).toMatchObject({ waiting: 1, first: id(3), last: id(3) })
    sim.apply(materialized('a', id(0)))
    expect(statuses(sim, 5)[3]).toBe('running')
  })

  it('end at once with skip while another is active, and name that one', () => {
    const sim = begun()
    sim.apply(ask(0, limited(1, 'skip')))
    sim.apply(ask(1, limited(1, 'skip')))
    expect(statuses(sim, 2)).toEqual(['running', 'cancelled'])
    expect(sim.facts('run.finished')[0]?.data).toMatchObject({
      run: id(1),
      status: 'cancelled',
      error: { code: 'run_skipped', message: expect.stringContaining(id(0)) },
    })
    sim.apply(materialized('a', id(0)))
    sim.apply(ask(2, limited(1, 'skip')))
    expect(sim.run(id(2)).status).toBe('running')
  })

  it('cancel the oldest that runs with cancel_running, and the one that waits when all of those end', () => {
    const sim = begun()
    for (let n = 0; n < 2; n++) sim.apply(ask(n, limited(2, 'cancel_running')))
    sim.append(ask(2, limited(2, 'cancel_running')))
    sim.append(ask(3, limited(2, 'cancel_running')))
    sim.append(ask(4, limited(2, 'cancel_running')))
    sim.settle()
    expect(statuses(sim, 5)).toEqual(['cancelled', 'cancelled', 'cancelled', 'running', 'running'])
    expect(sim.facts('run.cancel_requested').map(({ ids }) => ids.run)).toEqual([id(0), id(1), id(2)])
    expect(sim.facts('run.cancel_requested')[0]?.data.reason).toContain(id(2))
  })

  it('take the place of a running one with cancel_running, before those that wait with queue', () => {
    const sim = begun()
    sim.apply(ask(0, limited(1)))
    for (const n of [1, 2]) sim.apply(ask(n, limited(1)))
    sim.append(ask(3, limited(1, 'cancel_running')))
    sim.append(ask(4, limited(1, 'cancel_running')))
    sim.settle()
    // The first was cancelled by 3, and 3, before it began, by 4. Those in the queue wait on.
    expect(statuses(sim, 5)).toEqual(['cancelled', 'queued', 'queued', 'cancelled', 'running'])
    expect(groupIn(sim)).toMatchObject({ running: [id(4)], waiting: 2, first: id(1), last: id(2) })
    expect(groupIn(sim)?.front).toBeUndefined()
    for (const n of [4, 1, 2]) sim.apply(materialized('a', id(n)))
    expect(groupIn(sim)).toBeUndefined()
  })

  it('with cancel_running cancel nobody for a place that gets free by itself, nor one of the queue', () => {
    const sim = begun()
    for (const n of [0, 1]) sim.apply(ask(n, limited(2)))
    sim.apply(ask(2, limited(2)))
    // Both that run are cancelled for 3 and 4, which are then cancelled themselves.
    for (const n of [3, 4]) sim.append(ask(n, limited(2, 'cancel_running')))
    for (const n of [3, 4]) sim.append(cancelled(n))
    sim.append(ask(5, limited(2, 'cancel_running')))
    sim.settle()
    expect(statuses(sim, 6)).toEqual(['cancelled', 'cancelled', 'running', 'cancelled', 'cancelled', 'running'])
    expect(
      sim
        .facts('run.cancel_requested')
        .map(({ ids }) => ids.run)
        .filter((run) => run === id(2)),
    ).toEqual([])
  })

  it('with limits of their own: one waits until it fits, and those behind it wait with it', () => {
    const sim = begun()
    for (const [n, limit] of [3, 3, 1, 3, 3].entries()) sim.apply(ask(n, limited(limit)))
    expect(statuses(sim, 5)).toEqual(['running', 'running', 'queued', 'queued', 'queued'])
    sim.apply(materialized('a', id(0)))
    expect(statuses(sim, 5)[2]).toBe('queued')
    sim.apply(cancelled(2))
    expect(statuses(sim, 5)).toEqual(['succeeded', 'running', 'cancelled', 'running', 'running'])
  })

  it('that need a look-up are planned when their turn comes', () => {
    const sim = new Sim()
    sim.apply(registered([spec('b'), spec('a', { dependsOn: ['b'] })]))
    for (let n = 0; n < 2; n++) sim.apply(ask(n, limited(1), { upstream: 'missing' }))
    expect(sim.facts('run.planned')).toHaveLength(1)
    for (const name of ['b', 'a']) sim.apply(materialized(name, id(0)))
    expect(sim.facts('run.planned').map(({ ids }) => ids.run)).toEqual([id(0), id(1)])
    expect(Object.keys(sim.run(id(1)).assets)).toEqual(['b', 'a'])
  })
})

describe('the concurrency key of a pipeline', () => {
  const of = (key: NonNullable<PipelineSpec['concurrency']>['key']) =>
    concurrencyOf(
      { name: 'p', version: 'v', assets: [], concurrency: { limit: 1, onConflict: 'queue', ...(key ? { key } : {}) } },
      {
        partition: '2026',
        tags: { tenant: 't' },
        input: (name) => (name === 'order' ? { by: { id: 7 }, to: 'x' } : undefined),
      },
    )?.key

  it('is the partition, a tag, or a member of an input; empty where there is none', () => {
    expect(of(undefined)).toBe('')
    expect(of('partition')).toBe('2026')
    expect([of({ tag: 'tenant' }), of({ tag: 'other' })]).toEqual(['t', ''])
    expect([of({ input: 'order.to' }), of({ input: 'order.by.id' })]).toEqual(['x', '7'])
    expect([of({ input: 'order.by' }), of({ input: 'order.none.id' }), of({ input: 'none' })]).toEqual([
      '{"id":7}',
      '',
      '',
    ])
  })
})

/** Those that wait are linked both ways, and those that replace others stand at the head. */
function expectLinked(sim: Sim): void {
  const group = groupIn(sim)
  const waiting: { id: string; front: boolean }[] = []
  let prev: string | undefined
  for (let at = group?.first; at !== undefined; ) {
    const { queue, status } = sim.run(at as RunId)
    expect({ at, status, prev: queue?.prev }).toEqual({ at, status: 'queued', prev })
    waiting.push({ id: at, front: queue?.front === true })
    prev = at
    at = queue?.next
  }
  expect(group?.last).toBe(prev)
  expect(waiting).toHaveLength(group?.waiting ?? 0)
  const front = waiting.filter((one) => one.front)
  expect(waiting.slice(0, front.length)).toEqual(front)
  expect(group?.front).toEqual(front.length === 0 ? undefined : { count: front.length, last: front.at(-1)?.id })
}

/** With crashes between: at most `limit` at a time, in order, none is lost. */
const step = fc.record({
  what: fc.constantFrom('ask', 'ask', 'end', 'end', 'fail', 'cancel', 'crash', 'checkpoint', 'fold'),
  a: fc.nat({ max: 1000 }),
})

describe('any order of requests, ends, cancels and crashes', () => {
  it.each(['queue', 'skip', 'cancel_running', 'mixed'] as const)(
    'keeps the limit with %s, in order, and loses none',
    (onConflict) => {
      fc.assert(
        fc.property(fc.integer({ min: 1, max: 3 }), fc.array(step, { minLength: 5, maxLength: 60 }), (limit, steps) => {
          const sim = begun()
          const asked: number[] = []
          const open = () => asked.filter((n) => sim.docs.peek(stateKey.run(id(n)))?.finishedMs === undefined)
          const running = () =>
            asked.filter((n) => {
              const run = sim.docs.peek(stateKey.run(id(n)))
              return (
                run !== undefined &&
                run.finishedMs === undefined &&
                run.status !== 'queued' &&
                run.skippedFor === undefined
              )
            })
          const check = () => {
            expect(running().length).toBeLessThanOrEqual(limit)
            expectLinked(sim)
          }
          const policies = new Map<number, RunConcurrency['onConflict']>()
          for (const { what, a } of steps) {
            sim.nowMs += 10
            const one = open()[a % Math.max(1, open().length)]
            const atWork = running()[a % Math.max(1, running().length)]
            if (what === 'ask') {
              const policy = onConflict === 'mixed' ? (['queue', 'skip', 'cancel_running'] as const)[a % 3] : onConflict
              policies.set(asked.length, policy ?? 'queue')
              sim.append(ask(asked.length, limited(limit, policy)))
              asked.push(asked.length)
            } else if (what === 'cancel' && one !== undefined) sim.append(cancelled(one))
            else if (what === 'end' && atWork !== undefined) sim.append(materialized('a', id(atWork)))
            else if (what === 'fail' && atWork !== undefined)
              sim.append({
                name: 'asset.failed',
                ids: { pipeline: 'p', asset: materialized('a').ids.asset, run: id(atWork) },
                data: { run: id(atWork), asset: 'a', pipeline: 'p', error: { code: 'e', message: 'm' }, attempts: 1 },
              })
            else if (what === 'crash') sim.crash(a % 3, a % 2 === 0)
            else if (what === 'checkpoint') sim.checkpoint()
            if (a % 3 > 0) sim.fold()
            check()
          }
          sim.settle()
          check()
          for (let turn = 0; open().length > 0; turn++) {
            const [next] = running()
            if (next === undefined || turn > 200) throw new Error(`lost: ${open().map((n) => sim.run(id(n)).status)}`)
            sim.append(materialized('a', id(next)))
            sim.settle()
            check()
          }
          // By the order in which the facts say it: what started later had come later.
          const started = asked.filter((n) => sim.run(id(n)).startedMs !== undefined)
          const byStart = started.toSorted((a, b) => (sim.run(id(a)).startedMs ?? 0) - (sim.run(id(b)).startedMs ?? 0))
          for (const policy of ['queue', 'cancel_running'] as const) {
            const of = (n: number): boolean => policies.get(n) === policy
            expect(byStart.filter(of)).toEqual(started.filter(of))
          }
          expect(groupIn(sim)).toBeUndefined()
          expect([...new Set(sim.facts('run.finished').map(({ ids }) => ids.run))]).toHaveLength(asked.length)
          const anew = new Docs()
          for (const fact of sim.log) foldOne(anew, fact)
          expect(printed(anew.checkpoint())).toEqual(printed(sim.docs.checkpoint()))
        }),
        runs(60),
      )
    },
  )
})
