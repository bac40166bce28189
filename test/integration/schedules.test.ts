import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { Claim } from '../../src/engine/shard/claim.ts'
import { asset, type Flow, input, pipeline, schedule } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

const report = asset('report', { execute: ({ partition }) => `report of ${partition ?? 'all'}` })

/** Nominal times of the runs, oldest first. */
async function firedAt(flow: Flow, name: string): Promise<number[]> {
  const all = await flow.schedules.occurrences(name, { limit: 1000 })
  return all.flatMap(({ what, at, by }) => (what === 'fired' && !by ? [at.getTime()] : [])).toSorted((a, b) => a - b)
}

describe('a schedule', () => {
  it('starts its runs by itself, each once, and is seen', async () => {
    const each = schedule('each', { every: '1s', run: report, overlap: 'allow' })
    await using stage = await openStage(server.url, pipeline('p', [report], { schedules: [each] }))
    const { flow } = stage
    await until('three have succeeded', async () => (await flow.runs()).filter((run) => run.finishedAt).length >= 3)
    const runs = await flow.runs()
    expect(runs.every(({ target, status }) => target === 'report' && status !== 'failed')).toBe(true)
    const times = runs.map(({ schedule }) => schedule?.at.getTime() ?? 0)
    expect(times.every((ms) => ms % 1000 === 0)).toBe(true)
    expect(new Set(times).size).toBe(times.length)
    expect(runs.every((run) => run.requestedAt >= (run.schedule?.at ?? 0))).toBe(true)
    const [view] = await flow.schedules.list()
    expect(view).toMatchObject({ name: 'p/each', target: 'report', state: 'active', when: { everyMs: 1000 } })
    expect(view?.next?.getTime()).toBeGreaterThan(view?.last?.at.getTime() ?? 0)
    expect(await flow.schedules.preview('each', 3)).toHaveLength(3)
  })

  it('is paused and resumed; what was due meanwhile is one fact', async () => {
    const each = schedule('each', { every: '1s', run: report, overlap: 'allow' })
    await using stage = await openStage(server.url, pipeline('p', [report], { schedules: [each] }))
    const { flow } = stage
    await until('it has fired', async () => (await flow.schedules.get('p/each')).fired >= 1)
    await flow.schedules.pause('p/each', 'too many')
    const paused = await flow.schedules.get('each')
    expect(paused).toMatchObject({ state: 'paused', pausedBecause: 'too many', next: undefined })
    const [next] = await flow.schedules.preview('each', 2).then((some) => some.slice(1))
    await until('two more would have been due', () => Date.now() > (next?.getTime() ?? 0))
    await flow.schedules.resume('p/each')
    await until('it goes on', async () => (await flow.schedules.get('each')).fired > paused.fired)
    const all = await flow.schedules.occurrences('each')
    const skipped = all.filter(({ what }) => what === 'skipped')
    expect(skipped).toMatchObject([{ why: 'paused' }])
    expect(skipped[0]?.count).toBeGreaterThanOrEqual(2)
  })

  it('asks for its runs with what its functions say of the nominal time', async () => {
    const day = input('day', z.object({ iso: z.string(), factor: z.number().default(2) }))
    const sales = asset('sales', { dependsOn: [day], execute: (_, deps) => `${deps.day.iso} x${deps.day.factor}` })
    const nightly = schedule('nightly', {
      cron: '0 2 * * *',
      timeZone: 'Europe/Zurich',
      run: sales,
      partition: (at) => at.toISOString().slice(0, 10),
      input: (at) => ({ day: { iso: at.toISOString() } }),
      tags: { by: 'night' },
    })
    await using stage = await openStage(server.url, pipeline('p', [day, sales], { schedules: [nightly] }))
    const { flow } = stage
    const at = await flow.schedules.backfill('nightly', { from: '2026-03-27T12:00:00Z', to: '2026-03-30T12:00:00Z' })
    expect(at.map((one) => one.toISOString())).toEqual([
      '2026-03-28T01:00:00.000Z',
      '2026-03-29T01:00:00.000Z',
      '2026-03-30T00:00:00.000Z',
    ])
    await until('all have succeeded', async () => {
      const runs = await flow.runs()
      return runs.length === 3 && runs.every(({ status }) => status === 'succeeded')
    })
    const runs = (await flow.runs()).toSorted((a, b) => a.requestedAt.getTime() - b.requestedAt.getTime())
    expect(runs.map(({ partition }) => partition)).toEqual(['2026-03-28', '2026-03-29', '2026-03-30'])
    expect(runs.map(({ tags, schedule }) => [tags, schedule?.by])).toEqual(
      runs.map(() => [{ by: 'night' }, 'backfill']),
    )
    expect(await flow.run(runs[1]?.id ?? '').result()).toBe('2026-03-29T01:00:00.000Z x2')
    // One after the other: nobody said that they may run at once.
    for (const [i, run] of runs.entries())
      if (i > 0) expect(run.requestedAt.getTime()).toBeGreaterThanOrEqual(runs[i - 1]?.finishedAt?.getTime() ?? 0)
  })

  it('is triggered by hand, once a key; a function that fails starts nothing and says why', async () => {
    const each = schedule('daily', {
      cron: '@yearly',
      run: report,
      partition: (at) => {
        if (broken) throw new TypeError('no such day')
        return `y${at.getUTCFullYear()}`
      },
    })
    let broken = false
    await using stage = await openStage(server.url, pipeline('p', [report], { schedules: [each] }))
    const { flow } = stage
    const run = await flow.schedules.trigger('daily', { key: 'once' })
    expect(await run.result()).toMatch(/^report of y20\d\d$/)
    expect((await flow.schedules.trigger('p/daily', { key: 'once' })).id).toBe(run.id)
    broken = true
    const error = await rejection(flow.schedules.trigger('daily'))
    expect(error.code).toBe('not_started')
    expect(error.message).toMatch(/started no run \(evaluation_failed\): no such day/)
    expect(await flow.schedules.occurrences('daily')).toMatchObject([
      { what: 'skipped', why: 'evaluation_failed', by: 'trigger' },
      { what: 'fired', by: 'trigger', run: run.id },
    ])
  })

  it('refuses what it cannot do, with the names there are', async () => {
    const each = schedule('each', { cron: '@yearly', run: report })
    const pipelines = ['p', 'q'].map((name) => pipeline(name, [report], { schedules: [each] }))
    await using stage = await openStage(server.url, pipelines)
    const { schedules } = stage.flow
    await until('both are known', async () => (await schedules.list()).length === 2)
    expect((await rejection(schedules.pause('eech'))).message).toMatch(/there is no schedule eech/)
    expect((await rejection(schedules.pause('each'))).message).toMatch(/several pipelines .* p\/each, q\/each/)
    const from = '2026-01-01'
    expect((await rejection(schedules.backfill('p/each', { from, to: from }))).message).toMatch(
      /from must be before to/,
    )
    expect((await rejection(schedules.backfill('p/each', { from, to: '2999-01-01' }))).message).toMatch(/in the future/)
    expect((await rejection(schedules.backfill('p/each', { from: 'x', to: from }))).message).toMatch(
      /from must be a date/,
    )
  })
})

it('a schedule that is registered is waited for while an engine is late, and no answer is final without one', async () => {
  const nightly = schedule('nightly', { cron: '@yearly', run: report })
  await using stage = await openStage(server.url, pipeline('p', [report], { schedules: [nightly] }), { engine: false })
  const { flow } = stage
  expect(await rejection(flow.schedules.get('nightly'))).toMatchObject({
    code: 'not_found',
    message: expect.stringContaining('as far as the state shows: no engine has folded the newest facts yet'),
  })
  const connection = await Connection.open({ servers: server.url })
  const claim = new Claim(connection, namesOf(stage.namespace), 0, 'is late')
  expect(await claim.tryTake()).toBe(true)
  claim.keep()
  const startedMs = performance.now()
  const found = flow.schedules.get('nightly')
  const partitions = flow.partitions('p/report')
  await until('an engine that is away is not waited for as long', () => performance.now() - startedMs > 1500)
  await claim.release()
  await flow.engine()
  expect(await found).toMatchObject({ name: 'p/nightly', state: 'active' })
  expect(await partitions).toEqual([])
  await connection.close()
})

it('an engine that was away does what catchUp says, and accounts for each occurrence', async () => {
  const kinds = { none: 'none', last: 'last', all: 'all', within: { within: '1h' } } as const
  const schedules = Object.entries(kinds).map(([name, catchUp]) =>
    schedule(name, { every: '1s', run: report, overlap: 'allow', catchUp }),
  )
  const of = pipeline('p', [report], { schedules })
  await using stage = await openStage(server.url, of, { engine: false })
  const { flow } = stage
  // Registered by the worker: from here on occurrences are due, and no engine is there.
  const sinceMs = Date.now()
  await until('some are due', () => Date.now() > sinceMs + 3500)
  await flow.engine()
  for (const name of Object.keys(kinds))
    await until(`${name} has fired twice`, async () => (await flow.schedules.get(name)).fired >= 2)
  for (const name of Object.keys(kinds)) await flow.schedules.pause(name)
  const [none, last, all, within] = await Promise.all(
    Object.keys(kinds).map((name) => flow.schedules.occurrences(name)),
  )
  const missed = (found: typeof none) => found?.filter(({ what }) => what === 'missed') ?? []
  expect(missed(all)).toEqual([])
  expect(missed(within)).toEqual([])
  expect(missed(none)[0]?.count).toBeGreaterThanOrEqual(2)
  expect(missed(last)[0]?.count).toBeGreaterThanOrEqual(2)
  // Each second from the first one on, with no gap: fired, or in a range that was missed.
  for (const found of [none, last, all, within]) {
    const seconds =
      found?.flatMap(({ at, count = 1 }) => Array.from({ length: count }, (_, i) => at.getTime() / 1000 + i)) ?? []
    const sorted = seconds.toSorted((a, b) => a - b)
    expect(sorted).toEqual(sorted.map((_, i) => (sorted[0] ?? 0) + i))
    expect(sorted.length).toBeGreaterThanOrEqual(4)
  }
  expect(await firedAt(flow, 'all')).toHaveLength(all?.length ?? 0)
})

it('a new version with another timing takes over from its registration; without the schedule it stops', async () => {
  const version = (every: '1s' | '2s' | undefined) =>
    pipeline('p', [report], every ? { schedules: [schedule('each', { every, run: report, overlap: 'allow' })] } : {})
  await using stage = await openStage(server.url, version('1s'))
  const { flow } = stage
  await until('it has fired', async () => (await flow.schedules.get('each')).fired >= 1)
  await flow.register(version('2s'))
  await until('it is another one', async () => 'everyMs' in (await flow.schedules.get('each')).when)
  await until('the new one has fired', async () => {
    const { when, last } = await flow.schedules.get('each')
    return 'everyMs' in when && when.everyMs === 2000 && last?.what === 'fired' && last.at.getTime() % 2000 === 0
  })
  // The old one again, as a worker of the old version that starts late would: it changes nothing.
  const old = await stage.connect()
  await old.register(version('1s'))
  expect((await flow.schedules.get('each')).when).toMatchObject({ everyMs: 2000 })
  await flow.register(version(undefined))
  await until('it has stopped', async () => (await flow.schedules.list()).length === 0)
  expect(await flow.schedules.list({ removed: true })).toMatchObject([{ state: 'removed', next: undefined }])
})

it('the input of a schedule has the types of its asset', () => {
  const order = input('order', z.object({ id: z.string() }))
  const invoice = asset('invoice', { dependsOn: [order], execute: (_, deps) => deps.order.id })
  const typed = schedule('s', { every: '1h', run: invoice, input: () => ({ order: { id: 'x' } }) })
  expectTypeOf(typed.name).toBeString()
  // @ts-expect-error: id must be text
  schedule('s', { every: '1h', run: invoice, input: { order: { id: 5 } } })
})
