import { describe, expect, it } from 'vitest'
import { GROUP_BYTES_MAX } from '../../projections/events/group.ts'
import { stateKey } from '../../projections/state.ts'
import type { SubscriptionSpec, TakenEvent } from '../../streams/event-schemas.ts'
import { factPath } from '../../streams/facts.ts'
import { type DraftOf, materialized, printed, registered, Sim, START_MS, spec } from './harness.ts'

const order = spec('order', { input: { schema: { type: 'object' } } })
const orders = spec('orders', { input: { schema: { type: 'array' } } })
const bill = spec('bill', { dependsOn: ['order'] })
const bills = spec('bills', { dependsOn: ['orders'] })

function shop(options: Partial<SubscriptionSpec> = {}): DraftOf<'pipeline.registered'> {
  const draft = registered([order, orders, bill, bills])
  const subscription = { name: 'created', from: { stream: 'ORDERS' }, run: 'bill', maxOpen: 10, ...options }
  return { ...draft, data: { ...draft.data, subscriptions: [subscription] } }
}

function taken(from: number, events: TakenEvent[], to = from + events.length): DraftOf<'subscription.taken'> {
  const ids = { pipeline: 'p', subscription: 'created', source: 'abc', from: String(from) }
  return { name: 'subscription.taken', ids, data: { version: 'v1', worker: 'w', stream: 'ORDERS', to, events } }
}

const single = (seq: number, id: string, more: Partial<TakenEvent> = {}): TakenEvent => ({
  seq,
  key: id,
  input: { order: { json: { id } } },
  ...more,
})
const listed = (seq: number, id: string, more: Partial<TakenEvent> = {}): TakenEvent => ({
  seq,
  input: { orders: { json: [{ id }] } },
  group: 'g',
  bytes: 20,
  ...more,
})

/** Lets the server's schedules fire that are due by then. */
function fire(sim: Sim, atMs: number): void {
  const due = sim.timers.filter(({ dueMs }) => dueMs <= atMs)
  sim.timers = sim.timers.filter((timer) => !due.includes(timer))
  for (const { fact } of due) sim.apply(fact, atMs)
}

const open = (sim: Sim): number | undefined => sim.docs.peek(stateKey.openRuns('p', 'created'))?.open
const inputs = (sim: Sim) => sim.facts('run.requested').map(({ data }) => data.input)

describe('messages that were taken', () => {
  it('start a run each, with its key, its input and its place', () => {
    const sim = new Sim()
    sim.apply(shop())
    sim.apply(taken(0, [single(1, 'a', { partition: 'x', tags: { t: '1' }, msgId: 'm' }), { seq: 2 }]))
    const [first, second] = sim.facts('run.requested')
    expect(first?.data).toEqual({
      pipeline: 'p',
      version: 'v1',
      target: 'bill',
      upstream: 'all',
      key: 'a',
      partition: 'x',
      tags: { t: '1' },
      input: { order: { json: { id: 'a' } } },
      event: { subscription: 'created', stream: 'ORDERS', seq: 1, msgId: 'm' },
    })
    expect(second?.data.key).toBe('ORDERS:2')
    expect(sim.docs.peek(stateKey.subscription('p', 'created'))).toMatchObject({ source: 'abc', to: 2, taken: 2 })
    expect(sim.run(first?.ids.run ?? second?.ids.run ?? ('' as never)).msgId).toBe('m')
  })

  it('start runs in their traces, and several messages in that of the first', () => {
    const traceOf = (digit: string) => ({ traceparent: `00-${digit.repeat(32)}-${digit.repeat(16)}-01` })
    const [first, second] = [traceOf('1'), traceOf('2')]
    const sim = new Sim()
    sim.apply(shop())
    // The same event in another trace is the same event.
    sim.apply(taken(0, [single(1, 'a', { trace: first }), single(2, 'a', { trace: second }), single(3, 'b')]))
    expect(sim.facts('event.refused')).toEqual([])
    expect(sim.facts('run.requested').map(({ data }) => data.trace)).toEqual([first, undefined])
    expect([...sim.work.values()].map(({ task }) => task.trace)).toEqual([first, undefined])

    const batch = new Sim()
    batch.apply(shop({ run: 'bills', batch: { maxItems: 2, maxWaitMs: 60_000 } }))
    batch.apply(taken(0, [listed(1, 'a', { trace: first }), listed(2, 'b', { trace: second })]))
    expect(batch.facts('run.requested').map(({ data }) => data.trace)).toEqual([first])
  })

  it('start one run for a key, and refuse the key for something else', () => {
    const sim = new Sim()
    sim.apply(shop())
    sim.apply(taken(0, [single(1, 'a'), single(2, 'a'), { ...single(3, 'a'), partition: 'y' }]))
    sim.apply(taken(3, [single(4, 'a'), single(5, 'b')]))
    expect(sim.facts('run.requested').map(({ data }) => data.key)).toEqual(['a', 'b'])
    expect(sim.facts('event.refused').map(({ data }) => [data.seq, data.reason])).toEqual([
      [3, expect.stringMatching(/^key "a" was used for another request: partition was none/)],
    ])
  })

  it('are refused where they could not be mapped, or their version is unknown', () => {
    const sim = new Sim()
    sim.apply(taken(0, [single(1, 'a')]))
    sim.apply(shop())
    sim.apply(taken(1, [{ seq: 2, refused: 'no JSON', msgId: 'm' }]))
    expect(sim.facts('run.requested')).toEqual([])
    expect(sim.facts('event.refused').map(({ data }) => data.reason)).toEqual([
      'version v1 of pipeline p is not registered',
      'no JSON',
    ])
    sim.apply({
      name: 'event.retried',
      ids: { pipeline: 'p', subscription: 'created', source: 'abc', seq: '2' },
      data: { version: 'v1', worker: 'w', stream: 'ORDERS', events: [single(2, 'b')] },
    })
    expect(sim.facts('run.requested').map(({ data }) => data.key)).toEqual(['b'])
    expect(sim.docs.peek(stateKey.subscription('p', 'created'))).toMatchObject({ to: 2, taken: 1, refused: 2 })
  })

  it('are counted while their runs are open', () => {
    const sim = new Sim()
    sim.apply(shop())
    sim.apply(taken(0, [single(1, 'a'), single(2, 'b'), single(3, 'b')]))
    expect(open(sim)).toBe(2)
    const run = sim.facts('run.requested')[0]?.ids.run
    sim.apply(materialized('bill', run))
    expect(open(sim)).toBe(1)
  })
})

describe('a batch', () => {
  const batched = shop({ run: 'bills', batch: { maxItems: 3, maxWaitMs: 5000 } })

  it('starts one run for so many messages, of all of them', () => {
    const sim = new Sim()
    sim.apply(batched)
    sim.apply(
      taken(
        0,
        [1, 2, 3, 4].map((n) => listed(n, `o${n}`)),
      ),
    )
    expect(inputs(sim)).toEqual([{ orders: { json: [{ id: 'o1' }, { id: 'o2' }, { id: 'o3' }] } }])
    expect(sim.facts('run.requested')[0]?.data).toMatchObject({ key: 'ORDERS:1', event: { seq: 1, messages: 3 } })
  })

  it('starts its run when the first message has waited for long enough', () => {
    const sim = new Sim()
    sim.apply(batched)
    sim.apply(taken(0, [listed(1, 'a')]), START_MS + 1000)
    sim.apply(taken(1, [listed(2, 'b')]), START_MS + 4000)
    fire(sim, START_MS + 5999)
    expect(inputs(sim)).toEqual([])
    fire(sim, START_MS + 6000)
    expect(inputs(sim)).toEqual([{ orders: { json: [{ id: 'a' }, { id: 'b' }] } }])
    expect(sim.timers).toEqual([])
  })

  it('has a timer again when that of an earlier batch has fired', () => {
    const sim = new Sim()
    sim.apply(batched)
    sim.apply(
      taken(
        0,
        [1, 2].map((n) => listed(n, `o${n}`)),
      ),
      START_MS,
    )
    sim.apply(
      taken(
        2,
        [3, 4].map((n) => listed(n, `o${n}`)),
      ),
      START_MS + 3000,
    )
    expect(inputs(sim)).toHaveLength(1)
    fire(sim, START_MS + 5000)
    expect(inputs(sim)).toHaveLength(1)
    fire(sim, START_MS + 8000)
    expect(inputs(sim)[1]).toEqual({ orders: { json: [{ id: 'o4' }] } })
    expect(sim.docs.peek(stateKey.eventGroup('p', 'created', 'g'))).toBeUndefined()
  })

  it('counts a key once, and never grows over what a run may be given', () => {
    const sim = new Sim()
    sim.apply(shop({ run: 'bills', batch: { maxItems: 100, maxWaitMs: 5000 } }))
    sim.apply(taken(0, [listed(1, 'a', { key: 'a' }), listed(2, 'a', { key: 'a' })]))
    sim.apply(taken(2, [listed(3, 'b', { bytes: GROUP_BYTES_MAX - 10 }), listed(4, 'c')]))
    expect(inputs(sim)).toEqual([{ orders: { json: [{ id: 'a' }] } }, { orders: { json: [{ id: 'b' }] } }])
  })
})

describe('messages that are debounced', () => {
  const debounced = (take: 'last' | 'all') =>
    shop({ run: take === 'all' ? 'bills' : 'bill', debounce: { waitMs: 1000, maxWaitMs: 3000, take } })
  const last = (seq: number, id: string): TakenEvent => ({ seq, input: { order: { json: { id } } }, group: 'g' })

  it('start one run of the last one when no other comes', () => {
    const sim = new Sim()
    sim.apply(debounced('last'))
    sim.apply(taken(0, [last(1, 'a')]), START_MS)
    sim.apply(taken(1, [last(2, 'b')]), START_MS + 800)
    fire(sim, START_MS + 1000)
    expect(inputs(sim)).toEqual([])
    fire(sim, START_MS + 1800)
    expect(inputs(sim)).toEqual([{ order: { json: { id: 'b' } } }])
    sim.apply(taken(2, [last(3, 'c')]), START_MS + 2000)
    fire(sim, START_MS + 3000)
    expect(inputs(sim)).toHaveLength(2)
  })

  it('wait no longer than the longest wait', () => {
    const sim = new Sim()
    sim.apply(debounced('all'))
    for (let i = 0; i < 7; i++) {
      fire(sim, START_MS + i * 500)
      sim.apply(taken(i, [listed(i + 1, `o${i}`)]), START_MS + i * 500)
    }
    expect(inputs(sim)).toEqual([{ orders: { json: Array.from({ length: 6 }, (_, i) => ({ id: `o${i}` })) } }])
  })

  it('are decided in the same way by an engine that starts again anywhere', () => {
    const whole = new Sim()
    const facts: [DraftOf<'subscription.taken'>, number][] = Array.from({ length: 12 }, (_, i) => [
      taken(i, [listed(i + 1, `o${i}`, { group: `g${i % 3}` })]),
      START_MS + i * 400,
    ])
    const play = (sim: Sim, crash: number): void => {
      sim.apply(debounced('all'))
      for (const [i, [fact, atMs]] of facts.entries()) {
        fire(sim, atMs)
        sim.apply(fact, atMs)
        if (i % 4 === 0) sim.checkpoint()
        if (i === crash) sim.crash(1, false)
        sim.settle()
      }
      for (let ms = 5000; ms < 12_000; ms += 500) fire(sim, START_MS + ms)
    }
    play(whole, -1)
    const expected = whole.facts('run.requested').map(({ ids, data }) => [ids.run, data.input])
    expect(expected.length).toBeGreaterThan(3)
    for (let crash = 0; crash < facts.length; crash++) {
      const sim = new Sim()
      play(sim, crash)
      expect(sim.facts('run.requested').map(({ ids, data }) => [ids.run, data.input])).toEqual(expected)
    }
    expect(Object.keys(printed(whole.docs.checkpoint())).filter((key) => key.startsWith('event_group'))).toEqual([])
  })
})

it('a key never leads to the run of a place', () => {
  const sim = new Sim()
  sim.apply(shop())
  sim.apply(taken(0, [single(1, 'abc:2'), { seq: 2 }, single(3, '=abc:2')]))
  expect(new Set(sim.facts('run.requested').map(({ ids }) => ids.run)).size).toBe(3)
  expect(factPath('event.timer_fired', { pipeline: 'p', subscription: 's', group: 'g' })).toMatch(/\.timer_fired$/)
})
