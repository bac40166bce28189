import { Objm } from '@nats-io/obj'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, type IoManager, memoryIo, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

/** How a value stands in its fact. */
async function storedAs(flow: Parameters<typeof factsOf>[0], run: string): Promise<Record<string, unknown>> {
  const fact = (await factsOf(flow, run)).find(({ kind }) => kind === 'asset.materialized')
  return Reflect.get(fact?.data ?? {}, 'value')
}

describe('a value', () => {
  it.each<[string, unknown]>([
    ['an object', { a: [1, 'zwei', null, true, { b: 1.5 }], ü: '🜚' }],
    ['null', null],
    ['an empty text', ''],
    ['a list of lists', [[], [[]]]],
  ])('that JSON can hold rides in the fact as JSON: %s', async (_, value) => {
    const made = asset('made', { execute: () => value })
    const read = asset('read', { dependsOn: [made], execute: (_, deps) => [deps.made] })
    await using stage = await openStage(server.url, pipeline('json', [made, read]))
    const run = await stage.flow.materialize(made)
    expect(await run.result()).toEqual(value)
    expect(await storedAs(stage.flow, run.id)).toEqual({ json: value })
    expect(await (await stage.flow.materialize(read)).result()).toEqual([value])
  })

  it.each<[string, unknown]>([
    ['a date', new Date('2026-11-23T12:00:00.123Z')],
    ['bytes', new Uint8Array([0, 1, 254, 255])],
    ['undefined', undefined],
    ['undefined in an object', { a: undefined, b: [undefined, 1] }],
    ['numbers JSON has no word for', [Number.NaN, Number.POSITIVE_INFINITY]],
    ['all of them', { at: new Date(0), bytes: new Uint8Array(0), none: undefined, nested: [{ at: new Date(1.7e12) }] }],
  ])('that JSON cannot hold comes back as it was: %s', async (_, value) => {
    const made = asset('made', { execute: () => value })
    const same = asset('same', { dependsOn: [made], scatter: () => [1], execute: (_, deps) => deps.made })
    await using stage = await openStage(server.url, pipeline('msgpack', [made, same]))
    const run = await stage.flow.materialize(made)
    const brought = await run.result()
    expect(brought).toEqual(value)
    if (value instanceof Uint8Array) expect(brought).toBeInstanceOf(Uint8Array)
    expect(Object.keys(await storedAs(stage.flow, run.id))).toEqual(['msgpack'])
    expect(await (await stage.flow.materialize(same)).result()).toEqual([{ key: 1, value }])
  })

  it('a value that is large goes to the object store, once for equal content, and comes back whole', async () => {
    const large = () => ({ text: 'x'.repeat(2_000_000), bytes: new Uint8Array(3_000_000).fill(7) })
    const one = asset('one', { execute: large })
    const two = asset('two', { execute: large })
    const size = asset('size', {
      dependsOn: [one, two],
      execute: (_, deps) => [deps.one.text.length + deps.two.bytes.length, deps.two.bytes[2_999_999]],
    })
    await using stage = await openStage(server.url, pipeline('large', [one, two, size]))
    expect(await (await stage.flow.materialize(size)).result()).toEqual([5_000_000, 7])
    const run = await stage.flow.materialize(one)
    expect((await run.result()).text.length).toBe(2_000_000)
    expect(await storedAs(stage.flow, run.id)).toMatchObject({ manager: 'nats', ref: { bytes: expect.any(Number) } })
    const nc = await connectNats({ servers: server.url })
    const blobs = await new Objm(nc).open(`${stage.namespace}_blobs`)
    expect(await blobs.list()).toHaveLength(1)
    await nc.close()
  })

  it('a value can be kept by memoryIo: never the same object, and known to this process only', async () => {
    const value = { list: [1] }
    const made = asset('made', { io: 'memory', execute: () => value })
    const changed = asset('changed', {
      dependsOn: [made],
      io: 'memory',
      execute: (_, deps) => ({ list: [...deps.made.list, 2] }),
    })
    await using stage = await openStage(server.url, pipeline('memory', [made, changed]), { io: { memory: memoryIo() } })
    const run = await stage.flow.materialize(changed)
    expect(await run.result()).toEqual({ list: [1, 2] })
    expect(await (await stage.flow.materialize(made)).result()).not.toBe(value)
    const other = await stage.connect({ io: { memory: memoryIo() } })
    expect((await rejection(other.run(run.id).result())).message).toContain('was not stored by this process')
    const without = await stage.connect()
    expect(await rejection(without.run(run.id).result())).toMatchObject({ code: 'unknown_io' })
  })

  it('a value can be kept by an I/O manager of one’s own, which gets the asset whose value it is', async () => {
    const shelf = new Map<string, unknown>()
    const own: IoManager = {
      store: async (value, { run, asset: name, partition }) => {
        const place = `${run}/${name}/${partition}`
        shelf.set(place, value)
        return { place }
      },
      load: async ({ place }) => shelf.get(String(place)),
    }
    const made = asset('made', { io: 'own', execute: () => new Map([['any', 'thing']]) })
    const read = asset('read', { dependsOn: [made], execute: (_, deps) => deps.made.get('any') })
    await using stage = await openStage(server.url, pipeline('own', [made, read]), { io: { own } })
    const run = await stage.flow.materialize(read, { partition: 'p' })
    expect(await run.result()).toBe('thing')
    expect([...shelf.keys()]).toEqual([`${run.id}/made/p`])
  })

  const circle: { self?: unknown } = {}
  circle.self = circle
  it.each<[string, unknown, string]>([
    ['a function', { list: [1, { callback: () => 1 }] }, 'value.list[1].callback is a function'],
    ['a cycle', { circle }, 'value.circle.self refers back'],
    ['a symbol', Symbol('s'), 'value is a symbol'],
    ['a promise', { later: Promise.resolve(1) }, 'value.later is a Promise; await it'],
    ['an error', [new Error('no')], 'value[0] is Error'],
  ])('that cannot be stored fails its asset at once, naming the place: %s', async (_, value, message) => {
    let calls = 0
    const made = asset('made', {
      execute: () => {
        calls += 1
        return value
      },
    })
    const scattered = asset('scattered', {
      scatter: () => ['k'],
      execute: () => {
        calls += 1
        return value
      },
    })
    const keys = asset('keys', { scatter: () => [value], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('unstorable', [made, scattered, keys]))
    for (const each of [made, scattered]) {
      const error = await rejection((await stage.flow.materialize<unknown>(each)).result())
      expect(error).toMatchObject({ code: 'invalid', asset: each.name })
      expect(error.message).toContain(message)
    }
    expect(calls).toBe(2)
    const error = await rejection((await stage.flow.materialize<unknown>(keys)).result())
    expect(error.message).toContain(message.replace('value', 'key[0]'))
  })

  it('a value that hides what cannot be stored fails its asset, and the worker lives on', async () => {
    const hiding = () => ({
      toJSON: () => {
        throw new Error('not for you')
      },
    })
    const retry = { maxAttempts: 2, backoff: '10ms' } as const
    const made = asset('made', { retry, execute: () => ({ hidden: hiding() }) })
    const scattered = asset('scattered', { retry, scatter: () => [1, 2], execute: () => hiding() })
    const fine = asset('fine', { execute: () => 'alive' })
    await using stage = await openStage(server.url, pipeline('hiding', [made, scattered, fine]))
    for (const each of [made, scattered]) {
      await rejection((await stage.flow.materialize<unknown>(each)).result({ signal: within(10_000) }))
    }
    expect(await (await stage.flow.materialize(fine)).result()).toBe('alive')
  })

  it.each<[string, unknown, string]>([
    ['of 2 MB', { blob: 'x'.repeat(2_000_000) }, 'a reference takes at most 16384 bytes'],
    ['undefined', undefined, 'object'],
    ['null', null, 'object'],
    ['a text', 'place', 'object'],
    ['a list', [], 'object'],
  ])(
    'whose I/O manager gives a reference that is %s fails its asset with that reason',
    async (_, reference, message) => {
      const bad: IoManager = { store: async () => reference as Record<string, unknown>, load: async () => 1 }
      const made = asset('made', { io: 'bad', retry: { maxAttempts: 2, backoff: '10ms' }, execute: () => 1 })
      await using stage = await openStage(server.url, pipeline('bad', [made]), { io: { bad } })
      const error = await rejection((await stage.flow.materialize(made)).result())
      expect(error).toMatchObject({ code: 'invalid', asset: 'made' })
      expect(error.message).toContain(message)
    },
  )

  it('a value whose I/O manager the worker does not have fails its asset, naming the manager', async () => {
    const made = asset('made', { io: 'elsewhere', retry: { maxAttempts: 1 }, execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('unknown', [made]))
    const error = await rejection((await stage.flow.materialize(made)).result())
    expect(error).toMatchObject({ code: 'unknown_io' })
    expect(error.message).toContain('there is no I/O manager elsewhere here; pass it to connect')
  })

  it('a value of a dependency that cannot be loaded fails what needs it', async () => {
    const lossy: IoManager = {
      store: async () => ({ id: 1 }),
      load: async () => {
        throw new Error('the shelf is empty')
      },
    }
    const made = asset('made', { io: 'lossy', execute: () => 1 })
    const read = asset('read', {
      dependsOn: [made],
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: (_, deps) => deps.made,
    })
    const instances = asset('instances', {
      dependsOn: [made],
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatter: () => [1],
      execute: (_, deps) => deps.made,
    })
    await using stage = await openStage(server.url, pipeline('lossy', [made, read, instances]), { io: { lossy } })
    for (const each of [read, instances]) {
      const error = await rejection((await stage.flow.materialize<unknown>(each)).result({ signal: within(10_000) }))
      expect(error).toMatchObject({ asset: each.name })
      expect(error.message).toContain('the shelf is empty')
    }
  })
})
