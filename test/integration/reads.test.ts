import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Facts } from '../../src/engine/shard/facts.ts'
import { Store } from '../../src/engine/shard/store.ts'
import { resolveEntry } from '../../src/gates/entries.ts'
import { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { GroupGet } from '../../src/log/group-get.ts'
import { messagesUnder } from '../../src/log/messages-under.ts'
import type { StoredMessage } from '../../src/log/nats.ts'
import { Reader } from '../../src/log/reader.ts'
import { startServer } from '../../src/server/index.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { ensureStateBucket, ensureTopology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const server = useServer()
let connection: Connection
beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
})
afterAll(async () => {
  await connection?.close()
})

const text = (message: StoredMessage | undefined): string | undefined =>
  message && new TextDecoder().decode(message.payload)

/** A stream with messages `one` to `count`, and a count of the requests for them. */
async function streamOf(
  count: number,
): Promise<{ gets: GroupGet; subject: (i: number) => string; asked: () => number }> {
  const name = freshNamespace()
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name, subjects: [`${name}.>`], allow_direct: true })
  const subject = (i: number): string => `${name}.${i}`
  await Promise.all(Array.from({ length: count }, (_, i) => connection.nc.request(subject(i), `body ${i}`)))
  let asked = 0
  connection.nc.subscribe(`$JS.API.*.GET.${name}`, { callback: () => void asked++ })
  connection.nc.subscribe(`$JS.API.STREAM.MSG.GET.${name}`, { callback: () => void asked++ })
  await connection.nc.flush()
  return { gets: new GroupGet(connection, name), subject, asked: () => asked }
}

describe('reads of callers that come at once', () => {
  it('leave as one request, and each caller gets its own message', async () => {
    const { gets, subject, asked } = await streamOf(100)
    const found = await Promise.all(Array.from({ length: 100 }, (_, i) => gets.last(subject(i))))
    expect(found.map(text)).toEqual(Array.from({ length: 100 }, (_, i) => `body ${i}`))
    await connection.nc.flush()
    expect(asked()).toBe(1)
  })

  it('reads of callers that come at once are as many requests as there are groups', async () => {
    const { gets, subject, asked } = await streamOf(600)
    const found = await Promise.all(Array.from({ length: 600 }, (_, i) => gets.last(subject(i))))
    expect(found.map(text)).toEqual(Array.from({ length: 600 }, (_, i) => `body ${i}`))
    await connection.nc.flush()
    expect(asked()).toBe(3)
  })

  it('may ask for the same message, and for what is not there', async () => {
    const { gets, subject } = await streamOf(2)
    const wanted = [0, 7, 0, 1, 8, 0]
    const found = await Promise.all(wanted.map((i) => gets.last(subject(i))))
    expect(found.map(text)).toEqual(['body 0', undefined, 'body 0', 'body 1', undefined, 'body 0'])
    expect(await Promise.all([gets.last(subject(7)), gets.last(subject(8))])).toEqual([undefined, undefined])
  })

  it('come though the server goes away meanwhile', async () => {
    using scratch = scratchFolder()
    const dir = join(scratch.path, 'nats')
    let own = await startServer({ dir })
    const to = await Connection.open({ servers: own.url })
    try {
      const jsm = await jetstreamManager(to.nc)
      await jsm.streams.add({ name: 'kept', subjects: ['kept.>'], allow_direct: true })
      await Promise.all(Array.from({ length: 50 }, (_, i) => to.nc.request(`kept.${i}`, `body ${i}`)))
      const gets = new GroupGet(to, 'kept')
      const killed = own.kill()
      const all = Promise.all(Array.from({ length: 50 }, (_, i) => gets.last(`kept.${i}`)))
      await killed
      own = await startServer({ dir, port: own.port })
      expect((await all).map(text)).toEqual(Array.from({ length: 50 }, (_, i) => `body ${i}`))
    } finally {
      await to.close()
      await own.stop()
    }
    const late = new GroupGet(to, 'kept')
    const told = await Promise.allSettled([late.last('kept.1'), late.last('kept.2')])
    expect(told.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  })
})

describe('marks of gates that have ended', () => {
  const gate = (i: number) => ({ run: 'r', asset: 'a', gate: `a1n${i}` })
  const marked = (i: number, deadlineMs: number | undefined = 1000 * (i + 1)) => stateKey.waiting(deadlineMs, gate(i))
  const keysOf = (store: Store): string[] => store.takeTouched().map(({ subject }) => subject)

  it('marks of gates that have ended are deleted when a checkpoint has room for it, and nothing else waits for that', async () => {
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const store = new Store(connection, names, 0, new Checkpointer(connection, names, 0, 'engine'))
    for (let i = 0; i < 1000; i++) store.put(marked(i), { since: 0 })
    expect(keysOf(store)).toHaveLength(1000)
    for (let i = 0; i < 1000; i++) store.delete(marked(i))
    for (let i = 0; i < 700; i++) store.put(stateKey.gateAlone({ run: 'r', asset: 'a', gate: `b${i}` }), {} as never)
    expect(store.touched).toBe(700)
    const first = keysOf(store)
    expect(first.filter((key) => key.includes('.gate.'))).toHaveLength(700)
    expect(first).toHaveLength(800)
    expect(store.hasMore).toBe(true)
    const rest = [...keysOf(store), ...keysOf(store)]
    expect(new Set([...first, ...rest]).size).toBe(1700)
    expect(store.hasMore).toBe(false)
  })

  it('marks of gates that have ended are there again when they are put again, and go at once where nobody would look for them later', async () => {
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const store = new Store(connection, names, 0, new Checkpointer(connection, names, 0, 'engine'))
    store.delete(marked(1))
    store.put(marked(1), { since: 1 })
    store.delete(stateKey.waiting(undefined, gate(2)))
    expect(store.touched).toBe(2)
    const entries = store.takeTouched()
    expect(entries.map(({ payload }) => payload.length > 0)).toEqual([true, false])
    expect(store.hasMore).toBe(false)
  })
})

describe('facts whose documents are not in memory', () => {
  it('facts whose documents are not in memory are loaded together with those of the facts behind them', async () => {
    const topology = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const { names } = topology
    await ensureStateBucket(connection.nc, topology, 0)
    const run = runId(0, 'run')
    const asset = assetName('opens')
    const gates = Array.from({ length: 300 }, (_, i) => ({ run, asset, gate: `a1n${i + 1}` }))
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    const before = new Store(connection, names, 0, checkpointer)
    before.put(stateKey.run(run), {
      id: run,
      pipeline: 'gates',
      version: '1',
      assets: { opens: { gated: 'rows' } },
    } as never)
    for (const at of gates) before.edit(stateKey.gates(at), () => ({ gates: {} })).gates[at.gate] = at as never
    await checkpointer.takeOver()
    await checkpointer.write(before.takeTouched(), 1, undefined)

    const store = new Store(connection, names, 0, checkpointer)
    const facts = new Facts(store, names, 0)
    const loads = vi.spyOn(store, 'load')
    const messages = gates.map((at, i): StoredMessage => {
      const { subject, payload, contentType = '' } = resolveEntry(names, 0, at, { outcome: 'cancelled' })
      return { subject, payload, headers: new Map([['Content-Type', contentType]]), seq: i + 2, timeMs: 0 }
    })
    // What is no fact, and what only the server reads, is passed over.
    const bad = factEntry(names, 0, { name: 'gate.correlated', ids: { hash: 'h' }, data: { run, asset, gate: 'a1n1' } })
    messages.splice(5, 0, { ...messages[0], ...bad, payload: new Uint8Array([1]), seq: 999 } as StoredMessage)
    for (const [i, message] of messages.entries()) {
      if (message.seq === 999) continue
      const fact = facts.decode(message)
      await facts.load(fact, messages, i + 1)
      expect(fact.seq).toBe(message.seq)
      const at = { run, asset, gate: 'gate' in fact.ids ? fact.ids.gate : '' }
      expect(store.get(stateKey.gates(at))?.gates[at.gate]).toEqual(at)
    }
    // The run, then what it leads to; then what is beyond the facts that are looked at ahead.
    expect(loads.mock.calls.length).toBeLessThanOrEqual(4)
  })
})

it('a document that is read slowly is not taken for one that was changed, stored and dropped meanwhile', async () => {
  const topology = await ensureTopology(connection.nc, { namespace: freshNamespace() })
  const { names } = topology
  await ensureStateBucket(connection.nc, topology, 0)
  const checkpointer = new Checkpointer(connection, names, 0, 'engine')
  await checkpointer.takeOver()
  const key = stateKey.limitedQueues('shop', 'slow')
  const other = (i: number) => stateKey.limitedQueues('shop', `other-${i}`)
  let seq = 0
  const write = async (store: Store): Promise<void> => checkpointer.write(store.takeTouched(), ++seq, undefined)
  const before = new Store(connection, names, 0, checkpointer)
  before.put(key, 'old' as never)
  await write(before)

  const [looks, goes] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let isSlow = true
  const look = async (): Promise<void> => {
    if (isSlow) {
      isSlow = false
      looks.resolve()
      await goes.promise
    }
    await checkpointer.look()
  }
  const store = new Store(connection, names, 0, { look }, { keeps: 2 })
  const slow = store.load([key])
  await looks.promise
  await store.load([key])
  store.put(key, 'new' as never)
  await write(store)
  for (let i = 0; i < 3; i++) store.put(other(i), 'other' as never)
  await write(store)
  expect(store.has(key)).toBe(false)
  goes.resolve()
  await slow
  expect(store.get(key)).toBe('new')
})

it('a load of no document looks whether the bucket is still that of its engine', async () => {
  const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
  const look = vi.fn(async () => {
    throw new Error('it is not')
  })
  await expect(new Store(connection, names, 0, { look }).load([])).rejects.toThrow('it is not')
  expect(look).toHaveBeenCalledTimes(1)
})

describe('messages under some subjects', () => {
  it('are all that there were when the reading began', async () => {
    const { stream, subject } = await filled(700)
    const found: number[] = []
    for await (const { seq } of messagesUnder(connection, stream, [`${stream}.>`], 11)) {
      if (found.length === 0) await connection.nc.request(subject(0), 'one more')
      found.push(seq)
    }
    expect(found).toEqual(Array.from({ length: 690 }, (_, i) => 11 + i))
  })

  it('are an error when the connection is closed before the last one', async () => {
    const { stream } = await filled(700)
    const own = await Connection.open({ servers: server.url })
    const found: number[] = []
    const read = async (): Promise<void> => {
      for await (const { seq } of messagesUnder(own, stream, [`${stream}.>`])) {
        found.push(seq)
        if (seq === 1) await own.close()
      }
    }
    expect(await rejection(read())).toMatchObject({ code: 'closed', message: expect.stringContaining(stream) })
    expect(found.length).toBeLessThan(700)
  })

  it('come whole and soon when the consumer of their reading is deleted in the middle', async () => {
    const { stream } = await filled(3000)
    const jsm = await jetstreamManager(connection.nc)
    const startedMs = performance.now()
    const found: number[] = []
    for await (const { seq } of messagesUnder(connection, stream, [`${stream}.*`], 11)) {
      found.push(seq)
      if (seq === 11) for await (const { name } of jsm.consumers.list(stream)) await jsm.consumers.delete(stream, name)
    }
    expect(found).toEqual(Array.from({ length: 2990 }, (_, i) => 11 + i))
    expect(performance.now() - startedMs).toBeLessThan(10_000 * busy())
  })

  it('are an error at once where the server refuses the filters', async () => {
    const { stream } = await filled(3)
    const reading = messagesUnder(connection, stream, [`${stream}.>`, `${stream}.1`])
    expect(await rejection(reading.next())).toMatchObject({
      code: 'jetstream',
      message: expect.stringMatching(/overlap/),
    })
  })

  it('are never those of two streams: one that is made anew meanwhile, or deleted, is an error', async () => {
    const jsm = await jetstreamManager(connection.nc)
    for (const isMadeAnew of [true, false]) {
      const { stream } = await filled(3000)
      const { config } = await jsm.streams.info(stream)
      const read = async (): Promise<void> => {
        for await (const { seq } of messagesUnder(connection, stream, [`${stream}.>`])) {
          if (seq !== 1) continue
          await jsm.streams.delete(stream)
          if (!isMadeAnew) continue
          await jsm.streams.add(config)
          for (let i = 0; i < 3000; i++) connection.nc.publish(`${stream}.${i}`, 'another')
        }
      }
      expect(await rejection(read())).toMatchObject({ code: isMadeAnew ? 'reader_stopped' : 'no_stream' })
    }
  })
})

describe('a reader', () => {
  it('a reader that waits for messages ends with an error when its connection is closed', async () => {
    const { stream } = await filled(3)
    const own = await Connection.open({ servers: server.url })
    const error = rejection(new Reader(own, stream, 4).take(10))
    await own.close()
    expect(await error).toMatchObject({ code: 'closed', message: expect.stringContaining(stream) })
    // What is there and was not delivered is not taken for nothing.
    expect(await rejection(new Reader(own, stream, 1).take(10, 3))).toMatchObject({ code: 'closed' })
  })
})

async function filled(count: number): Promise<{ stream: string; subject: (i: number) => string }> {
  const stream = freshNamespace()
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name: stream, subjects: [`${stream}.>`], allow_direct: true })
  const subject = (i: number): string => `${stream}.${i}`
  for (let i = 0; i < count; i++) connection.nc.publish(subject(i), `body ${i}`)
  await until('all are stored', async () => (await jsm.streams.info(stream)).state.messages === count)
  return { stream, subject }
}
