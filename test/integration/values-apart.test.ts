import { describe, expect, it } from 'vitest'
import { asset, type IoManager, pipeline, TerminalError } from '../../src/index.ts'
import { itemReader } from '../../src/items/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const retry = { maxAttempts: 3, backoff: 10 } as const
const ADVICE = /is read-only, because other executions use it too: change a copy of it, such as structuredClone/

describe('a value that several executions use', () => {
  const made = () =>
    asset('made', { execute: () => ({ list: ['b', 'a'], when: new Date(5), tags: new Map([['a', 1]]) }) })

  it('a value that several executions use cannot be changed: a write to it is an error that says what to do', async () => {
    const d = made()
    const writes: [string, (value: { list: string[]; when: Date; tags: Map<string, number> }) => unknown][] = [
      ['push', ({ list }) => list.push('x')],
      ['sort', ({ list }) => list.sort()],
      [
        'member',
        (value) => {
          value.list = []
        },
      ],
      ['date', ({ when }) => when.setTime(0)],
      ['map', ({ tags }) => tags.set('b', 2)],
    ]
    const wrong = asset('wrong', {
      dependsOn: [d],
      scatter: () => writes.map(([name]) => name),
      scatterOptions: { retry: { maxAttempts: 1 }, failureMode: 'partial', failureThreshold: 1 },
      execute: ({ scatterKey }, deps) => writes.find(([name]) => name === scatterKey)?.[1](deps.made),
      gather: async (results) =>
        (await collect(results)).map((result) =>
          result.status === 'failed' ? result.error.message : `${result.key} went through`,
        ),
    })
    const right = asset('right', {
      dependsOn: [d, wrong],
      execute: (_, deps) => [deps.made.list.toSorted(), structuredClone(deps.made).list.push('x'), deps.made],
    })
    await using stage = await openStage(server.url, pipeline('readonly', [d, wrong, right]))
    const messages = await (await stage.flow.materialize(wrong)).result()
    expect(messages).toHaveLength(writes.length)
    for (const message of messages) expect(message).toMatch(ADVICE)
    const value = await (await stage.flow.materialize(right)).result()
    expect(value).toEqual([['a', 'b'], 3, { list: ['b', 'a'], when: new Date(5), tags: new Map([['a', 1]]) }])
  })

  it('a value that several executions use is for each instance its own where it holds bytes', async () => {
    const bytes = asset('bytes', {
      execute: () => ({ raw: new Uint8Array([1, 2, 3]), vectors: [{ v: new Float32Array([1, 2]) }], name: 'x' }),
    })
    const user = asset('user', {
      dependsOn: [bytes],
      scatter: () => [0, 1, 2, 3, 4],
      execute: (_, deps) => {
        const { raw, vectors } = deps.bytes
        const seen = [raw[0], vectors[0]?.v[1]]
        raw.fill(9)
        vectors[0]?.v.fill(9)
        return seen
      },
    })
    await using stage = await openStage(server.url, pipeline('bytes', [bytes, user]))
    const value = await (await stage.flow.materialize(user)).result()
    expect(value.map((one) => one.value)).toEqual(Array.from({ length: 5 }, () => [1, 2]))
  })

  it('a value that several executions use is copied from an I/O manager that keeps it, or loaded for each execution', async () => {
    class Model {
      rows = ['a']
    }
    const kept = new Map<string, unknown>()
    const cache: IoManager = {
      store: async (value, { asset: name }) => {
        kept.set(name, value)
        return { name }
      },
      load: async ({ name }) =>
        name === 'model' ? Object.assign(new Model(), structuredClone(kept.get('model'))) : kept.get(String(name)),
    }
    const plain = asset('plain', { io: 'cache', execute: () => ({ list: [1] }) })
    const model = asset('model', { io: 'cache', execute: () => new Model() })
    const user = asset('user', {
      dependsOn: [plain, model],
      scatter: () => [0, 1, 2],
      execute: (_, deps) => {
        deps.model.rows.push('more')
        return [deps.model.rows.length, deps.model instanceof Model, Object.isFrozen(deps.plain)]
      },
    })
    await using stage = await openStage(server.url, pipeline('cache', [plain, model, user]), { io: { cache } })
    const value = await (await stage.flow.materialize(user)).result()
    expect(value.map((one) => one.value)).toEqual([
      [2, true, true],
      [2, true, true],
      [2, true, true],
    ])
    const brought = await (await stage.flow.materialize(plain, { upstream: 'none' })).result()
    brought.list.push(2)
    expect(Object.isFrozen(kept.get('plain'))).toBe(false)
    expect(kept.get('plain')).toEqual({ list: [1] })
  })

  it('a value that several executions use is what it was when it was returned, or given as a key', async () => {
    const late: unknown[] = []
    const plain = asset('plain', {
      execute: () => {
        const list = [1]
        late.push(list)
        queueMicrotask(() => list.push(2))
        return { list }
      },
    })
    const inst = asset('inst', {
      scatter: () => [0, 1, 2],
      execute: ({ scatterKey }) => {
        const list = [scatterKey]
        queueMicrotask(() => list.push(99))
        return { list }
      },
    })
    const keys = asset('keys', {
      scatter: function* () {
        const key = { n: 0 }
        for (let n = 0; n < 3; n++) {
          key.n = n
          yield key
        }
      },
      execute: ({ scatterKey }) => scatterKey.n,
    })
    const read = asset('read', {
      scatter: () =>
        itemReader({
          name: 'r',
          read: async function* () {
            const cursor = { at: 0 }
            for (let n = 0; n < 3; n++) {
              cursor.at = n
              yield { items: [{ n }], cursor }
            }
          },
        }),
      execute: ({ scatterKey }) => scatterKey.n,
    })
    await using stage = await openStage(server.url, pipeline('late', [plain, inst, keys, read]))
    expect(await (await stage.flow.materialize(plain)).result()).toEqual({ list: [1] })
    const values = (list: readonly { value: unknown }[]): unknown[] => list.map(({ value }) => value)
    expect(values(await (await stage.flow.materialize(inst)).result())).toEqual([
      { list: [0] },
      { list: [1] },
      { list: [2] },
    ])
    expect(values(await (await stage.flow.materialize(keys)).result())).toEqual([0, 1, 2])
    expect(values(await (await stage.flow.materialize(read)).result())).toEqual([0, 1, 2])
  })

  it('a value that several executions use and a key are the same in every attempt', async () => {
    const seen: string[] = []
    const url = asset('url', {
      scatter: () => [{ url: 'x', tags: [1], raw: new Uint8Array([1]) }],
      scatterOptions: { retry },
      execute: ({ scatterKey, attempt }) => {
        seen.push(JSON.stringify(scatterKey))
        scatterKey.raw[0] = 9
        if (attempt < 3) throw new Error('flaky')
        return scatterKey.raw[0]
      },
      gather: async (results) => (await collect(results))[0],
    })
    await using stage = await openStage(server.url, pipeline('keys', [url]))
    const result = await (await stage.flow.materialize(url)).result()
    expect(new Set(seen).size).toBe(1)
    expect(result).toEqual({ key: { url: 'x', tags: [1], raw: new Uint8Array([1]) }, index: 0, status: 'ok', value: 9 })
  })
})

describe('what cannot be stored, or cannot be looked at,', () => {
  it('what cannot be stored, or cannot be looked at, fails alone, at once, with its place, and costs its neighbours nothing', async () => {
    const getter = (name: string): unknown =>
      Object.defineProperty({}, name, {
        enumerable: true,
        get: () => {
          throw new Error(`no ${name}`)
        },
      })
    let deep: unknown = 1
    for (let i = 0; i < 2000; i++) deep = [deep]
    const bad = new Map<number, () => unknown>([
      [
        3,
        () => ({
          m: new (class Model {
            id = 1
            toJSON(): never {
              throw new Error('relation not loaded')
            }
          })(),
        }),
      ],
      [
        5,
        () => {
          throw Object.defineProperty(new Error('x'), 'code', {
            get: () => {
              throw new Error('no code')
            },
          })
        },
      ],
      [7, () => ({ deep })],
      [9, () => getter('x')],
      [
        11,
        () => {
          throw new Proxy(
            {},
            {
              get: () => {
                throw new Error('no')
              },
              getPrototypeOf: () => {
                throw new Error('no')
              },
            },
          )
        },
      ],
      [
        13,
        () => {
          throw null
        },
      ],
      [
        15,
        () =>
          new Proxy(
            {},
            {
              ownKeys: () => {
                throw new Error('hands off')
              },
            },
          ),
      ],
      [17, () => Object.assign(new Array(3), { 0: 1, 2: 3 })],
    ])
    const attempts = new Map<number, number>()
    const a = asset('a', {
      scatter: () => Array.from({ length: 40 }, (_, i) => i),
      scatterOptions: { retry, failureMode: 'partial', failureThreshold: 1 },
      execute: async ({ scatterKey, attempt }) => {
        await new Promise((resolve) => setTimeout(resolve, scatterKey % 5))
        attempts.set(scatterKey, attempt)
        return bad.has(scatterKey) ? bad.get(scatterKey)?.() : 1
      },
      gather: async (results) =>
        (await collect(results)).flatMap(({ index, ...one }) =>
          one.status === 'failed' ? [[index, one.error.code, one.error.message]] : [],
        ),
    })
    await using stage = await openStage(server.url, pipeline('hostile', [a]), { worker: { concurrency: 5 } })
    const failed = await (await stage.flow.materialize(a)).result()
    expect(failed).toEqual([
      [3, 'invalid', expect.stringContaining('value.m is a Model, which would not come back as one')],
      [5, 'error', 'x'],
      [7, 'invalid', expect.stringMatching(/^value\.deep(\[0\])+.*is nested deeper than 200 levels/)],
      [9, 'invalid', 'value.x cannot be read: no x'],
      [11, 'thrown_non_error', 'a thrown object that cannot be shown'],
      [13, 'thrown_non_error', 'null'],
      [15, 'invalid', 'value cannot be read: hands off'],
      [17, 'invalid', expect.stringContaining('value[1] is a hole in the list')],
    ])
    for (const [key, attempt] of attempts) if (![5, 11, 13].includes(key)) expect([key, attempt]).toEqual([key, 1])
  })

  it('what cannot be stored, or cannot be looked at, fails a plain asset at once, as does an I/O manager whose reference is no JSON', async () => {
    const odd: IoManager = { store: async () => ({ at: new Date(0), n: 1n }), load: async () => 1 }
    const model = asset('model', { retry, execute: () => ({ a: { toJSON: 1, b: [new WeakMap()] } }) })
    const ref = asset('ref', { retry, io: 'odd', execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('plain', [model, ref]), { io: { odd } })
    for (const [one, message] of [
      [model, 'value.a.b[0] is a WeakMap'],
      [ref, 'I/O manager odd: reference.at is no JSON'],
    ] as const) {
      const run = await stage.flow.materialize<unknown>(one)
      expect(await rejection(run.result())).toMatchObject({
        code: 'invalid',
        message: expect.stringContaining(message),
      })
      expect((await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'attempt.ended')).toHaveLength(1)
    }
  })
})

describe('the cause of an error', () => {
  it('the cause of an error is on the log, in the status and in what a caller gets', async () => {
    const down = asset('down', {
      retry: { maxAttempts: 1 },
      execute: async () => (await fetch('http://127.0.0.1:9/')).text(),
    })
    const each = asset('each', {
      scatter: () => [1],
      scatterOptions: { retry: { maxAttempts: 1 } },
      execute: () => {
        throw new Error('outer', { cause: new AggregateError([new TerminalError('inner')], 'several') })
      },
    })
    await using stage = await openStage(server.url, pipeline('causes', [down, each]))
    const run = await stage.flow.materialize(down)
    const error = await rejection(run.result())
    expect(error).toMatchObject({ message: expect.stringMatching(/: fetch failed \(cause: .*bad port/) })
    expect(error).toMatchObject({ cause: { message: 'bad port' } })
    const failed = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'asset.failed')
    expect(failed?.data).toMatchObject({ error: { message: 'fetch failed', cause: { message: 'bad port' } } })
    await until('the run has ended', async () => (await run.status())?.finishedAt !== undefined)
    const status = await run.status()
    expect(status?.assets.down?.error).toMatchObject({ cause: { message: 'bad port' } })
    const scatter = await stage.flow.materialize(each)
    const cause = { message: 'several', errors: [{ code: 'terminal', message: 'inner' }] }
    expect(await rejection(scatter.result())).toMatchObject({
      message: expect.stringContaining('outer (cause: several (cause: terminal: inner))'),
    })
    const listed = async () => (await stage.flow.scatter.list(scatter.id))[0]
    await until('the scatter is closed', async () => (await listed())?.closedAt !== undefined)
    expect((await listed())?.error).toMatchObject({
      message: expect.stringContaining('outer'),
      cause,
    })
    expect((await collect(stage.flow.scatter.failures(`${scatter.id}.each`)))[0]?.error).toMatchObject({
      message: 'outer',
      cause,
    })
  })
})
