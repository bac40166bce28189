import { describe, expect, it } from 'vitest'
import { asset, type HistoryEntry, pipeline } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const dataOf = (facts: readonly HistoryEntry[], kind: string) =>
  facts.filter((fact) => fact.kind === kind).map(({ data }) => data)

describe('a scatter', () => {
  const sources: [string, () => Iterable<number> | AsyncIterable<number>][] = [
    ['a list', () => [10, 20, 30]],
    ['a set', () => new Set([10, 20, 30])],
    [
      'a generator',
      function* () {
        yield* [10, 20, 30]
      },
    ],
    [
      'an async generator',
      async function* () {
        for (const n of [10, 20, 30]) yield await Promise.resolve(n)
      },
    ],
  ]
  it.each(sources)('runs once for each key of %s, and brings key and value in order', async (_, source) => {
    const indices: number[] = []
    const each = asset('each', {
      scatter: source,
      execute: ({ scatterKey, index, attempt }) => {
        indices.push(index)
        return { doubled: scatterKey * 2, attempt }
      },
    })
    await using stage = await openStage(server.url, pipeline('each', [each]))
    const run = await stage.flow.materialize(each)
    expect(await run.result()).toEqual([
      { key: 10, value: { doubled: 20, attempt: 1 } },
      { key: 20, value: { doubled: 40, attempt: 1 } },
      { key: 30, value: { doubled: 60, attempt: 1 } },
    ])
    expect(indices.toSorted()).toEqual([0, 1, 2])
    const closed = dataOf(await factsOf(stage.flow, run.id), 'scatter.closed')
    expect(closed).toMatchObject([{ status: 'completed', total: 3, succeeded: 3, failed: 0 }])
  })

  it('a scatter starts instances while a slow source still gives keys', async () => {
    const firstRan = Promise.withResolvers<void>()
    const slow = asset('slow', {
      scatter: async function* () {
        yield 'first'
        // Gives the second key only when the first one's instance has run.
        await firstRan.promise
        yield 'second'
      },
      execute: ({ scatterKey }) => {
        if (scatterKey === 'first') firstRan.resolve()
        return scatterKey.length
      },
    })
    await using stage = await openStage(server.url, pipeline('slow', [slow]))
    const run = await stage.flow.materialize(slow)
    expect(await run.result()).toEqual([
      { key: 'first', value: 5 },
      { key: 'second', value: 6 },
    ])
    const kinds = (await factsOf(stage.flow, run.id))
      .map(({ kind }) => kind)
      .filter((kind) => kind.startsWith('scatter'))
    expect(kinds.indexOf('scatter.outcomes')).toBeLessThan(kinds.indexOf('scatter.sized'))
    expect(kinds.filter((kind) => kind === 'scatter.items')).toHaveLength(2)
  })

  it.each<[string, () => Iterable<number> | AsyncIterable<number>]>([
    ['an empty list', () => []],
    ['an empty generator', async function* () {}],
  ])('of %s is complete at once, and what follows runs with an empty list', async (_, source) => {
    const none = asset('none', { scatter: source, execute: () => 1 })
    const counted = asset('counted', { dependsOn: [none], execute: (_ctx, deps) => deps.none.length })
    await using stage = await openStage(server.url, pipeline('empty', [none, counted]))
    const run = await stage.flow.materialize(counted)
    expect(await run.result()).toBe(0)
    const closed = dataOf(await factsOf(stage.flow, run.id), 'scatter.closed')
    expect(closed).toMatchObject([{ status: 'completed', total: 0, succeeded: 0, failed: 0 }])
  })

  it('a scatter of one key runs one instance', async () => {
    const one = asset('one', { scatter: () => [{ id: 'only' }], execute: ({ scatterKey }) => scatterKey.id })
    await using stage = await openStage(server.url, pipeline('single', [one]))
    expect(await (await stage.flow.materialize(one)).result()).toEqual([{ key: { id: 'only' }, value: 'only' }])
  })

  it('a scatter of 20,000 keys runs each once, and gathers in the order of the keys', async () => {
    const count = 20_000
    const ran = new Uint8Array(count)
    const many = asset('many', {
      scatter: () => Array.from({ length: count }, (_, i) => ({ n: i })),
      execute: ({ scatterKey, index }) => {
        ran[index] = (ran[index] ?? 0) + 1
        return scatterKey.n * 2
      },
      gather: async (results) => {
        let sum = 0
        let next = 0
        for await (const { key, index, value } of results) {
          if (index !== next || key.n !== index || value !== index * 2) throw new Error(`out of order at ${next}`)
          next += 1
          sum += value
        }
        return { sum, next }
      },
    })
    await using stage = await openStage(server.url, pipeline('many', [many]), { worker: { concurrency: 50 } })
    const run = await stage.flow.materialize(many)
    expect(await run.result()).toEqual({ sum: count * (count - 1), next: count })
    expect(ran.every((times) => times === 1)).toBe(true)
    await until('the state shows all of them', async () => {
      const [update] = await collect(run.watch())
      const [scatter] = update?.scatters ?? []
      return scatter?.succeeded === count && scatter.pending === 0
    })
  })

  it('a scatter of keys that fill many key chunks gives each instance its own key', async () => {
    const count = 3000
    const wide = asset('wide', {
      // 3,000 keys of 1 KB: some 15 key chunks.
      scatter: function* () {
        for (let i = 0; i < count; i++) yield { i, padding: String(i).padEnd(1000, '.') }
      },
      execute: ({ scatterKey, index }) => scatterKey.i === index && scatterKey.padding.startsWith(`${index}.`),
      gather: async (results) => {
        let right = 0
        for await (const { key, index, value } of results) if (value && key.i === index) right += 1
        return right
      },
    })
    await using stage = await openStage(server.url, pipeline('wide', [wide]), { worker: { concurrency: 20 } })
    const run = await stage.flow.materialize(wide)
    expect(await run.result()).toBe(count)
    expect(dataOf(await factsOf(stage.flow, run.id), 'scatter.items').length).toBeGreaterThan(10)
  })

  it('a scatter keeps large values of instances by reference', async () => {
    const large = asset('large', {
      scatter: () => [16_000, 20_000, 300_000],
      execute: ({ scatterKey }) => 'x'.repeat(scatterKey),
    })
    await using stage = await openStage(server.url, pipeline('refs', [large]))
    const run = await stage.flow.materialize(large)
    expect((await run.result()).map(({ value }) => value.length)).toEqual([16_000, 20_000, 300_000])
    const outcomes = dataOf(await factsOf(stage.flow, run.id), 'scatter.outcomes')
    const refs = outcomes.flatMap((data) => ('refs' in data ? (data.refs ?? []) : []))
    expect(refs.map(([, stored]) => 'manager' in stored && stored.ref.bytes)).toHaveLength(2)
  })

  it('a scatter reports values that come all at once in messages that the server takes', async () => {
    // A hundred instances of 15 KB end in the same moment: 1.5 MB, and a message holds 1 MiB.
    const together = Promise.withResolvers<void>()
    let waiting = 0
    const burst = asset('burst', {
      retry: { maxAttempts: 1 },
      scatter: () => Array.from({ length: 400 }, (_, i) => i),
      execute: async ({ scatterKey }) => {
        waiting += 1
        if (waiting === 200) together.resolve()
        if (scatterKey < 200) await together.promise
        return String(scatterKey).padEnd(15_000, '.')
      },
      gather: async (results) => {
        let right = 0
        for await (const { key, value } of results) if (Number.parseInt(value, 10) === key) right += 1
        return right
      },
    })
    await using stage = await openStage(server.url, pipeline('burst', [burst]), { worker: { concurrency: 200 } })
    expect(await (await stage.flow.materialize(burst)).result()).toBe(400)
    expect(stage.lines).toEqual([])
  })

  it('a scatter goes on beside another one: neither waits for the other to end', async () => {
    const counts = { a: 0, b: 0 }
    const bothHalf = Promise.withResolvers<void>()
    const instance = (name: 'a' | 'b') => async () => {
      counts[name] += 1
      // Nobody gets past half before both are there.
      if (counts.a >= 100 && counts.b >= 100) bothHalf.resolve()
      if (counts[name] > 100) await bothHalf.promise
      return counts[name]
    }
    const keys = () => Array.from({ length: 200 }, (_, i) => i)
    const a = asset('a', { scatter: keys, execute: instance('a') })
    const b = asset('b', { scatter: keys, execute: instance('b') })
    const both = asset('both', { dependsOn: [a, b], execute: (_, deps) => deps.a.length + deps.b.length })
    await using stage = await openStage(server.url, pipeline('beside', [a, b, both]), { worker: { concurrency: 150 } })
    expect(await (await stage.flow.materialize(both)).result()).toBe(400)
  })

  it('a scatter is shared by workers', async () => {
    const by = new Map<string, number>()
    const two = Promise.withResolvers<void>()
    const shared = asset('shared', {
      scatter: () => Array.from({ length: 300 }, (_, i) => i),
      execute: async ({ resources }) => {
        const name = String(Reflect.get(resources, 'name'))
        by.set(name, (by.get(name) ?? 0) + 1)
        if (by.size === 2) two.resolve()
        // Not before the other one has some, too.
        await two.promise
        return name
      },
      gather: async (results) => {
        let count = 0
        for await (const _ of results) count += 1
        return count
      },
    })
    const all = pipeline('shared', [shared])
    await using stage = await openStage(server.url, all, { worker: { concurrency: 4, resources: { name: 'one' } } })
    const other = await stage.connect()
    await other.worker(all, { concurrency: 4, resources: { name: 'two' } })
    expect(await (await stage.flow.materialize(shared)).result()).toBe(300)
    expect([...by.keys()].toSorted()).toEqual(['one', 'two'])
    expect((by.get('one') ?? 0) + (by.get('two') ?? 0)).toBe(300)
  })

  it('gathers by a function, which may use what the asset depends on, and leave before the end', async () => {
    const offset = asset('offset', { execute: () => 100 })
    const first = asset('first', {
      dependsOn: [offset],
      scatter: ({ offset: by }) => [by + 1, by + 2, by + 3],
      execute: ({ scatterKey }, deps) => scatterKey + deps.offset,
      gather: async (results, ctx, deps) => {
        for await (const { value } of results) return [value, deps.offset, ctx.asset]
        return []
      },
    })
    await using stage = await openStage(server.url, pipeline('gathers', [offset, first]))
    expect(await (await stage.flow.materialize(first)).result()).toEqual([201, 100, 'first'])
  })
})
