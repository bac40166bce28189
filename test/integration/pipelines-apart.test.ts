import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, type IoContext, memoryIo, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

/** A pipeline whose asset `customers` is its own, under a name that others use too. */
function team(name: string, io = 'nats') {
  let made = 0
  const customers = asset('customers', { io, execute: () => `${name} ${++made}` })
  const sum = asset('sum', { dependsOn: [customers], io, execute: (_, deps) => `sum of ${deps.customers}` })
  return { customers, sum, all: pipeline(name, [customers, sum]) }
}

describe('two pipelines with assets of the same names', () => {
  it('two pipelines with assets of the same names have values of their own', async () => {
    const [a, b] = [team('teamA'), team('teamB')]
    await using stage = await openStage(server.url, [a.all, b.all])
    const { flow } = stage
    expect(await (await flow.materialize(a.sum)).result()).toBe('sum of teamA 1')
    const none = await rejection((await flow.materialize(b.sum, { upstream: 'none' })).result())
    expect(none).toMatchObject({ code: 'missing_upstream' })
    expect(await (await flow.materialize(b.sum)).result()).toBe('sum of teamB 1')
    expect(await (await flow.materialize(b.sum, { upstream: 'none' })).result()).toBe('sum of teamB 1')
    expect(await (await flow.materialize(a.sum, { upstream: 'none' })).result()).toBe('sum of teamA 1')
  })

  it('two pipelines with assets of the same names are distinct on the feed and in triggers', async () => {
    const [a, b] = [team('teamA'), team('teamB')]
    await using stage = await openStage(server.url, [a.all, b.all])
    await jetstream(nc).publish(`${stage.namespace}.trigger.teamB.sum`)
    await until('it is made', async () => (await stage.flow.runs())[0]?.finishedAt !== undefined)
    expect((await stage.flow.runs())[0]).toMatchObject({ pipeline: 'teamB', status: 'succeeded' })
    await (await stage.flow.materialize(a.sum)).result()
    const subjects = async (): Promise<string[]> => {
      const info = await (await jetstreamManager(nc)).streams.info(`${stage.namespace}_FEED`, { subjects_filter: '>' })
      return Object.keys(info.state.subjects ?? {}).filter((subject) => subject.includes('.asset.'))
    }
    await until('all is on the feed', async () => (await subjects()).length === 4)
    expect((await subjects()).map((subject) => subject.slice(stage.namespace.length)).toSorted()).toEqual([
      '.feed.asset.teamA.customers.materialized',
      '.feed.asset.teamA.sum.materialized',
      '.feed.asset.teamB.customers.materialized',
      '.feed.asset.teamB.sum.materialized',
    ])
  })

  it('two pipelines with assets of the same names can be distinguished by an I/O manager that names places after assets', async () => {
    const io = memoryIo()
    const seen: IoContext[] = []
    const noting = {
      ...io,
      store: (value: unknown, context: IoContext) => {
        seen.push(context)
        return io.store(value, context)
      },
    }
    const [a, b] = [team('teamA', 'mine'), team('teamB', 'mine')]
    await using stage = await openStage(server.url, [a.all, b.all], { io: { mine: noting } })
    await (await stage.flow.materialize(a.customers, { partition: 'p' })).result()
    await (await stage.flow.materialize(b.customers, { partition: 'p' })).result()
    expect(seen.map(({ pipeline: of, asset: name, partition }) => [of, name, partition])).toEqual([
      ['teamA', 'customers', 'p'],
      ['teamB', 'customers', 'p'],
    ])
  })

  it('get tasks of their own, also where names and queues read the same in a row', async () => {
    const one = asset('x', { queue: 'c', execute: () => 'a__b / c' })
    const two = asset('x', { queue: 'b__c', execute: () => 'a / b__c' })
    await using stage = await openStage(server.url, [pipeline('a__b', [one]), pipeline('a', [two])])
    const limit = { signal: within(5000) }
    expect(await (await stage.flow.materialize(one)).result(limit)).toBe('a__b / c')
    expect(await (await stage.flow.materialize(two)).result(limit)).toBe('a / b__c')
  })
})

describe('one asset in two pipelines', () => {
  it('one asset in two pipelines is one asset in each, with a value in each, and who asks says in which', async () => {
    let made = 0
    const shared = asset('shared', { execute: () => ++made })
    const left = asset('left', { dependsOn: [shared], execute: (_, deps) => `left ${deps.shared}` })
    const right = asset('right', { dependsOn: [shared], execute: (_, deps) => `right ${deps.shared}` })
    const [lefts, rights] = [pipeline('lefts', [shared, left]), pipeline('rights', [shared, right])]
    await using stage = await openStage(server.url, [lefts, rights])
    const { flow } = stage
    expect(await (await flow.materialize(left)).result()).toBe('left 1')
    expect(await (await flow.materialize(right)).result()).toBe('right 2')
    const unclear = await rejection(flow.materialize(shared))
    expect(unclear).toMatchObject({ code: 'invalid' })
    expect(unclear.message).toBe(
      "asset shared is in several pipelines (lefts, rights), and each has values of its own; say which: materialize(shared, { pipeline: 'lefts' })",
    )
    expect(await (await flow.materialize(shared, { pipeline: rights })).result()).toBe(3)
    expect(await (await flow.materialize(shared, { pipeline: 'lefts' })).result()).toBe(4)
    expect(await (await flow.materialize(right, { upstream: 'none' })).result()).toBe('right 3')
    expect(await (await flow.materialize(left, { upstream: 'none' })).result()).toBe('left 4')
    const wrong = await rejection(flow.materialize(left, { pipeline: 'rights' }))
    expect(wrong.message).toBe('asset left is in no pipeline rights; there are: lefts')
  })
})
