import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { z } from 'zod'
import {
  asset,
  connect,
  type Flow,
  input,
  pipeline,
  type RunView,
  schedule,
  sensor,
  subscription,
} from '../../src/index.ts'
import { Publisher } from '../events/kit.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const order = input('order', z.object({ id: z.string() }))
const billed = asset('billed', { dependsOn: [order], execute: (_, deps) => deps.order.id })
const changes = input('changes', z.array(z.object({ id: z.string() })))
const listed = asset('listed', { dependsOn: [changes], execute: (_, deps) => deps.changes.map(({ id }) => id) })
const report = asset('report', { execute: ({ partition }) => partition ?? 'none' })
const found = asset('found', { execute: ({ partition }) => partition ?? 'none' })
const ordered = subscription('ordered', {
  from: { stream: 'ORDERS' },
  run: billed,
  partition: (message) => message.json().id,
})
const gathered = subscription('gathered', {
  from: { stream: 'ORDERS' },
  run: listed,
  batch: { maxItems: 4, maxWait: '1h' },
})
const ticks = schedule('ticks', { every: '1s', run: report, overlap: 'allow', catchUp: 'all' })
const counter = sensor('counter', {
  every: '1s',
  run: found,
  evaluate: (_ctx, cursor: number = 0) => ({ cursor: cursor + 1, runs: [{ partition: `n${cursor + 1}` }] }),
})
const times = pipeline('times', [order, billed, changes, listed, report, found], {
  schedules: [ticks],
  sensors: [counter],
  subscriptions: [ordered, gathered],
})

const ended = async (flow: Flow, target: string): Promise<RunView[]> =>
  (await flow.runs({ limit: 1000, target: `times/${target}` })).filter(({ finishedAt }) => finishedAt !== undefined)

it('schedules, sensors and subscriptions go on where an archive is imported: nothing twice, nothing missing', {
  timeout: 180_000,
}, async () => {
  using scratch = scratchFolder()
  const to = join(scratch.path, 'all.jsonl')
  await using publisher = await Publisher.connect(server.url)
  await publisher.stream('ORDERS', ['orders'])
  const before = await openStage(server.url, times, { shards: 2 })
  for (const id of ['a', 'b', 'c']) publisher.send('orders', { id })
  await until('orders are billed, and times have come', async () => {
    const all = await Promise.all(['billed', 'report', 'found'].map((target) => ended(before.flow, target)))
    return all.every((runs) => runs.length >= 3)
  })
  const { left, positions } = await before.flow.export({ to, all: true })
  // The messages that are gathered for a run are one of them.
  expect(positions).toBe(5)
  const plain = join(scratch.path, 'plain.jsonl')
  await before.flow.export({ to: plain, all: true, positions: false })
  await before[Symbol.asyncDispose]()
  // They come while nobody reads.
  for (const id of ['d', 'e']) publisher.send('orders', { id })

  const namespace = freshNamespace()
  await using bare = await connect({ servers: server.url, namespace })
  expect(await bare.import(to)).toMatchObject({ positions: 5 })
  const ids = new Set((await bare.runs({ limit: 1000 })).map(({ id }) => id))
  await using after = await openStage(server.url, times, { namespace, shards: 2 })
  const { flow } = after
  const partitions = async (target: string): Promise<string[]> =>
    (await flow.runs({ limit: 1000, target: `times/${target}` })).map(({ partition = '' }) => partition).toSorted()
  await until('all orders are billed', async () => (await ended(flow, 'billed')).length >= 5)
  await until('the first four are gathered', async () => (await ended(flow, 'listed')).length >= 1)
  await until('it ticks', async () => (await ended(flow, 'report')).filter(({ id }) => !ids.has(id)).length >= 3)
  await until(
    'the sensor goes on',
    async () => (await ended(flow, 'found')).filter(({ id }) => !ids.has(id)).length >= 2,
  )
  expect(await partitions('billed')).toEqual(['a', 'b', 'c', 'd', 'e'])
  const [run] = await ended(flow, 'listed')
  expect(await flow.run(run?.id ?? '').result()).toEqual(['a', 'b', 'c', 'd'])
  const numbers = (await partitions('found')).map((text) => Number(text.slice(1))).toSorted((a, b) => a - b)
  expect(new Set(numbers).size).toBe(numbers.length)
  // Those that had not ended are not in the archive.
  expect((numbers.at(-1) ?? 0) - numbers.length).toBeLessThanOrEqual(left)
  const reports = await flow.runs({ limit: 1000, target: 'times/report' })
  const seconds = reports.map(({ schedule: of }) => (of?.at.getTime() ?? 0) / 1000).toSorted((a, b) => a - b)
  expect(new Set(seconds).size).toBe(seconds.length)
  expect((seconds.at(-1) ?? 0) - (seconds[0] ?? 0) + 1 - seconds.length).toBeLessThanOrEqual(left)
  expect((await flow.verify()).findings).toEqual([])

  await using other = await connect({ servers: server.url, namespace: freshNamespace() })
  expect(await other.import(plain)).toMatchObject({ positions: 0 })
  await using third = await connect({ servers: server.url, namespace: freshNamespace() })
  expect(await third.import(to, { positions: false })).toMatchObject({ positions: 0 })
  expect(readFileSync(plain, 'utf8').slice(0, 40)).toContain('"v":1')
})

const nightly = schedule('nightly', { every: '1h', run: report })
const quiet = pipeline('times', [report, found], { schedules: [nightly], sensors: [counter] })

it('schedules and sensors that begin anew beside imported runs take none of those for theirs', {
  timeout: 180_000,
}, async () => {
  using scratch = scratchFolder()
  const to = join(scratch.path, 'plain.jsonl')
  const before = await openStage(server.url, quiet)
  const [hour] = await before.flow.schedules.preview('nightly')
  const from = new Date((hour?.getTime() ?? 0) - 3 * 3_600_000)
  const backfill = { from, to: new Date(from.getTime() + 1), key: 'hour' }
  const backfilled = async (flow: Flow): Promise<string[]> =>
    (await ended(flow, 'report')).filter(({ schedule: of }) => of?.by === 'backfill').map(({ id }) => id)
  const once = await before.flow.schedules.trigger('nightly', { key: 'once' })
  await once.result()
  await before.flow.schedules.backfill('nightly', backfill)
  await until('the backfill has ended', async () => (await backfilled(before.flow)).length === 1)
  await until('the sensor has found some', async () => (await ended(before.flow, 'found')).length >= 2)
  await before.flow.export({ to, all: true, positions: false })
  await before[Symbol.asyncDispose]()

  const namespace = freshNamespace()
  await using bare = await connect({ servers: server.url, namespace })
  await bare.import(to, { skipOpen: true })
  const old = new Set((await bare.runs({ limit: 1000 })).map(({ id }) => id))
  await using after = await openStage(server.url, quiet, { namespace })
  const { flow } = after
  await until('the sensor finds the same anew, without its cursor', async () => {
    const finds = (await ended(flow, 'found')).filter(({ id }) => !old.has(id)).map(({ partition }) => partition)
    return ['n1', 'n2', 'n3'].every((one) => finds.includes(one))
  })
  const again = await flow.schedules.trigger('nightly', { key: 'once' })
  expect([again.id, again.isNew]).toEqual([once.id, false])
  await flow.schedules.backfill('nightly', backfill)
  const decided = async () => (await flow.schedules.occurrences('nightly')).find(({ by }) => by === 'backfill')
  await until('the backfill is decided', async () => (await decided()) !== undefined)
  expect(await decided()).toMatchObject({ what: 'skipped', why: 'refused' })
  expect(await backfilled(flow)).toHaveLength(1)
  expect((await flow.verify()).findings).toEqual([])
})
