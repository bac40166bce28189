import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { encodePosition } from '../../src/engine/shard/position.ts'
import { stagedEntries } from '../../src/engine/shard/staged.ts'
import { DELETED, Store } from '../../src/engine/shard/store.ts'
import { asset, type Flow, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { readDoc } from '../../src/log/documents.ts'
import { publish, publishBatch, streamBounds } from '../../src/log/nats.ts'
import { ensureStateBucket, ensureTopology, type Topology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let connection: Connection
beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
})
afterAll(async () => {
  await connection.close()
})

async function freshTopology(): Promise<Topology> {
  const topology = await ensureTopology(connection.nc, { namespace: freshNamespace() })
  await ensureStateBucket(connection.nc, topology, 0)
  return topology
}

const owner = (i: number): ReturnType<typeof stateKey.limitedQueues> => stateKey.limitedQueues('large', `q${i}`)
const COUNT = 2500

function manyDocuments(topology: Topology, text: string): Store {
  const store = new Store(connection, topology.names, 0, new Checkpointer(connection, topology.names, 0, 'one'))
  for (let i = 0; i < COUNT; i++) store.put(owner(i), { seq: i, limitedQueues: {}, text } as never)
  return store
}

async function textsOf({ names }: Topology): Promise<Set<unknown>> {
  const bucket = names.stateBucket(0)
  const some = [0, 1, 998, 999, 1000, 1998, 2499]
  const docs = await Promise.all(some.map((i) => readDoc(connection, names, bucket, owner(i))))
  return new Set(docs.map((doc) => (typeof doc === 'object' && doc !== null ? Reflect.get(doc, 'text') : undefined)))
}

async function stagedCount({ names }: Topology): Promise<number> {
  const { messages } = await streamBounds(connection.nc, names.kvStream(names.stateBucket(0)))
  return messages - COUNT - 1
}

describe('a checkpoint of more documents than fit one batch', () => {
  it('a checkpoint of more documents than fit one batch is stored whole, and leaves nothing beside', async () => {
    const topology = await freshTopology()
    const checkpointer = new Checkpointer(connection, topology.names, 0, 'one')
    await checkpointer.takeOver()
    await checkpointer.write(manyDocuments(topology, 'first').takeTouched(), 0, undefined)
    await checkpointer.write(manyDocuments(topology, 'second').takeTouched(), 0, undefined)
    expect(await textsOf(topology)).toEqual(new Set(['second']))
    expect(await stagedCount(topology)).toBe(0)
  })

  it('a checkpoint of an engine that was followed by another one changes nothing', async () => {
    const topology = await freshTopology()
    const [one, two] = ['one', 'two'].map((name) => new Checkpointer(connection, topology.names, 0, name))
    await one?.takeOver()
    await one?.write(manyDocuments(topology, 'first').takeTouched(), 0, undefined)
    await two?.takeOver()
    await expect(one?.write(manyDocuments(topology, 'second').takeTouched(), 0, undefined)).rejects.toMatchObject({
      code: 'fenced',
    })
    expect(await textsOf(topology)).toEqual(new Set(['first']))
  })

  it.each(['staged in part', 'committed'])('of an engine that died when it was %s counts or does not', async (how) => {
    const topology = await freshTopology()
    const { names } = topology
    const bucket = names.stateBucket(0)
    const one = new Checkpointer(connection, names, 0, 'one')
    await one.takeOver()
    await one.write(manyDocuments(topology, 'first').takeTouched(), 0, undefined)
    const documents = [...manyDocuments(topology, 'second').takeTouched()]
    documents.push({ subject: names.kvSubject(bucket, 'open.gone'), payload: new Uint8Array(), headers: DELETED })
    const parts = how === 'committed' ? [0, 900, 1800] : [0, 900]
    for (const from of parts) {
      const staged = stagedEntries(names, bucket, 'dead', from, documents.slice(from, from + 900))
      const entries = staged.map((entry) => ({ entry, unit: undefined }))
      const ack = await publishBatch(connection.nc, entries, randomBytes(8).toString('hex'), 5000)
      expect(ack.error).toBeUndefined()
    }
    if (how === 'committed') {
      const redo = { id: 'dead', count: documents.length, seq: 0 }
      const payload = encodePosition({ seq: 0, recoverTo: 0, redo })
      await publish(connection.nc, { subject: names.kvSubject(bucket, 'engine'), payload }, undefined, 5000)
    }
    expect(await textsOf(topology)).toEqual(new Set(['first']))
    const two = new Checkpointer(connection, names, 0, 'two')
    expect(await two.takeOver()).not.toHaveProperty('redo')
    expect(await textsOf(topology)).toEqual(new Set([how === 'committed' ? 'second' : 'first']))
    // The mark of what was deleted goes by itself.
    expect(await stagedCount(topology)).toBe(how === 'committed' ? 1 : 0)
  })
})

describe('a document that is larger than a message may be', () => {
  it('a document that is larger than a message may be is stored in parts, read back whole, and leaves no part when it shrinks', async () => {
    const topology = await freshTopology()
    const { names } = topology
    const checkpointer = new Checkpointer(connection, names, 0, 'one')
    await checkpointer.takeOver()
    const text = randomBytes(2_500_000).toString('base64')
    const store = new Store(connection, names, 0, checkpointer)
    store.put(owner(1), { seq: 1, limitedQueues: {}, text } as never)
    await checkpointer.write(store.takeTouched(), 0, undefined)
    const bucket = names.stateBucket(0)
    expect(await readDoc(connection, names, bucket, owner(1))).toEqual({ seq: 1, limitedQueues: {}, text })
    const other = new Store(connection, names, 0, checkpointer)
    await other.load([owner(1)])
    other.put(owner(1), { seq: 2, limitedQueues: {} })
    await checkpointer.write(other.takeTouched(), 0, undefined)
    expect(await readDoc(connection, names, bucket, owner(1))).toEqual({ seq: 2, limitedQueues: {} })
    for (const n of [1, 2, 3]) expect(await readDoc(connection, names, bucket, `part.${n}.${owner(1)}`)).toBeUndefined()
  })
})

describe('a run of more assets than fit one checkpoint', () => {
  const wide = (flow: Flow, count: number): { run: () => Promise<unknown>; all: ReturnType<typeof pipeline> } => {
    const members = Array.from({ length: count }, (_, i) => asset(`w${i}`, { execute: () => i }))
    const last = asset('last', { dependsOn: members.slice(0, 20), execute: () => 'last' })
    const all = pipeline(`wide${count}`, [...members, last])
    const signal = within(25_000)
    return { all, run: async () => (await flow.materialize(last)).result({ signal }) }
  }

  it('a run of more assets than fit one checkpoint is registered, runs, and holds up nobody; a rebuild brings it back', async () => {
    const small = asset('small', { execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('small', [small]))
    const { flow } = stage
    const pipelines = [350, 351, 352, 1500].map((count) => wide(flow, count))
    for (const { all } of pipelines) await flow.register(all)
    expect(await (await flow.materialize(small)).result()).toBe(1)
    for (const { all } of pipelines.slice(2)) await flow.worker(all)
    for (const { run } of pipelines.slice(2)) expect(await run()).toBe('last')
    await stage.engine?.stop()
    expect((await flow.rebuild()).facts).toBeGreaterThan(40)
    await (await flow.engine()).active
    expect(await (await flow.materialize(small)).result()).toBe(1)
    await until('all runs are there', async () => (await flow.runs()).length === 4)
    expect(stage.lines.filter((line) => line.includes('starts again'))).toEqual([])
  })
})
