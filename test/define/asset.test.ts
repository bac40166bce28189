import { describe, expect, expectTypeOf, it } from 'vitest'
import { declaredPipelines, pipelinesOf } from '../../src/define/pipeline.ts'
import { type Asset, asset, pipeline, type ScatterResult, type ValueOf } from '../../src/index.ts'
import { InvalidError } from '../../streams/errors.ts'
import { pipelineRegistered } from '../../streams/schemas.ts'

/** As JavaScript calls it: with whatever. */
const declare = (...args: unknown[]): unknown => Reflect.apply(asset, undefined, args)
const declarePipeline = (...args: unknown[]): unknown => Reflect.apply(pipeline, undefined, args)
const execute = (): number => 1

describe('asset', () => {
  it('has defaults', () => {
    expect(asset('a', { execute }).definition.spec).toEqual({
      shape: expect.stringMatching(/^[0-9a-f]{12}$/),
      name: 'a',
      dependsOn: [],
      queue: 'default',
      priority: 1,
      retry: { maxAttempts: 3, backoffMinMs: 1000, backoffMaxMs: 60_000 },
    })
  })

  it('has its options in milliseconds, fit for the log', () => {
    const options = {
      execute,
      queue: 'gpu',
      priority: 0,
      timeout: '30s',
      retry: { maxAttempts: 1, backoff: '2s..1m' },
    } as const
    const { spec } = asset('a', options).definition
    expect(spec).toMatchObject({
      queue: 'gpu',
      priority: 0,
      timeoutMs: 30_000,
      retry: { maxAttempts: 1, backoffMinMs: 2000, backoffMaxMs: 60_000 },
    })
    expect(pipelineRegistered.parse(pipeline('p', [asset('a', options)]).spec).assets).toEqual([spec])
  })

  const dependency = asset('dependency', { execute })
  const wrong: [string, unknown, unknown, RegExp][] = [
    ['a name with a dot', 'a.b', { execute }, /^asset name must be 1 to 128 characters .* got "a\.b"/],
    ['no options', 'a', undefined, /^asset a: options must be an object with execute/],
    [
      'an option there is not',
      'a',
      { execute, dependOn: [] },
      /there is no option dependOn; did you mean dependsOn\?; allowed are dependsOn, queue, priority, timeout, retry, io, slots, codeVersion, volatile, retention, payloadSchema, execute, onSignal, onTimeout, onRun, scatter, scatterOptions, gather/,
    ],
    ['no execute', 'a', {}, /execute must be a function, got undefined/],
    ['a scatter that is none', 'a', { execute, scatter: [1] }, /scatter must be a function, got object/],
    ['a gather that is none', 'a', { execute, scatter: execute, gather: 1 }, /gather must be a function, got number/],
    ['a gather without scatter', 'a', { execute, gather: execute }, /gather needs scatter/],
    ['dependsOn that is no list', 'a', { execute, dependsOn: dependency }, /dependsOn must be an array of assets/],
    ['a dependency by name', 'a', { execute, dependsOn: ['dependency'] }, /dependsOn\[0\] is no asset \(string\)/],
    [
      'a dependency declared further down',
      'a',
      { execute, dependsOn: [dependency, undefined] },
      /dependsOn\[1\] is no asset \(undefined: is it declared further down/,
    ],
    ['a dependency twice', 'a', { execute, dependsOn: [dependency, dependency] }, /dependsOn names dependency twice/],
    ['a queue with a dot', 'a', { execute, queue: 'a.b' }, /^asset a: queue must be 1 to 128 characters/],
    ['a priority of 4', 'a', { execute, priority: 4 }, /priority must be 0, 1, 2 or 3, got 4/],
    ['a timeout of 0', 'a', { execute, timeout: 0 }, /timeout must be more than 0 and at most 24 days/],
    ['a timeout of a year', 'a', { execute, timeout: '365d' }, /timeout must be more than 0 and at most 24 days/],
    ['a timeout in words', 'a', { execute, timeout: 'soon' }, /timeout must be milliseconds or text such as/],
    [
      'maxAttempts of 0',
      'a',
      { execute, retry: { maxAttempts: 0 } },
      /retry.maxAttempts must be a whole number from 1, got 0/,
    ],
    [
      'maxAttempts of 1.5',
      'a',
      { execute, retry: { maxAttempts: 1.5 } },
      /retry.maxAttempts must be a whole number from 1, got 1.5/,
    ],
    [
      'a retry option there is not',
      'a',
      { execute, retry: { max: 1 } },
      /retry: there is no option max.*; allowed are maxAttempts, backoff/,
    ],
    [
      'a backoff that goes down',
      'a',
      { execute, retry: { backoff: '2s..1s' } },
      /retry.backoff: the first wait must not be longer/,
    ],
  ]
  it.each(wrong)('with %s is refused, and the error says what is allowed', (_, name, options, message) => {
    expect(() => declare(name, options)).toThrow(InvalidError)
    expect(() => declare(name, options)).toThrow(message)
  })
})

describe('pipeline', () => {
  const a = asset('a', { execute })
  const b = asset('b', { dependsOn: [a], execute })

  it('has a version that follows from its graph and options, and not from the order of the list', () => {
    expect(pipeline('p', [a, b]).spec.version).toBe(pipeline('p', [b, a]).spec.version)
    expect(pipeline('p', [asset('a', { execute })]).spec.version).toBe(
      pipeline('p', [asset('a', { execute: () => 2 })]).spec.version,
    )
    expect(pipeline('p', [asset('a', { execute, queue: 'x' })]).spec.version).not.toBe(pipeline('p', [a]).spec.version)
  })

  it('refuses a circle, and names it', () => {
    const c = asset('c', { dependsOn: [b], execute })
    const round = { ...a, definition: { ...a.definition, dependsOn: [c] } }
    const bb = { ...b, definition: { ...b.definition, dependsOn: [round] } }
    const cc = { ...c, definition: { ...c.definition, dependsOn: [bb] } }
    Object.assign(round.definition, { dependsOn: [cc] })
    expect(() => pipeline('p', [round, bb, cc])).toThrow(
      'pipeline p: its assets depend on each other in a circle: a → c → b → a',
    )
  })

  const wrong: [string, unknown[], RegExp][] = [
    ['a name with a space', ['my pipe', [a]], /^pipeline name must be/],
    ['no assets', ['p', []], /^pipeline p: give it at least one asset/],
    ['no list', ['p', a], /give it at least one asset/],
    ['what is no asset', ['p', [a, 'b']], /assets\[1\] is no asset; declare it with asset\(name, options\)/],
    ['two of one name', ['p', [a, asset('a', { execute })]], /there are two assets named a/],
    ['a dependency that is not in it', ['p', [b]], /b depends on a, which is not in the pipeline; add it to the list$/],
    [
      'another asset of a dependency’s name',
      ['p', [asset('a', { execute }), b]],
      /b depends on another asset that is also named a/,
    ],
  ]
  it.each(wrong)('with %s is refused', (_, args, message) => {
    expect(() => declarePipeline(...args)).toThrow(InvalidError)
    expect(() => declarePipeline(...args)).toThrow(message)
  })
})

describe('types', () => {
  const orders = asset('orders', { execute: async () => [{ id: 1, cents: 5 }] })
  const rate = asset('rate', { execute: () => 1.5 })

  it('of a plain asset: its value is what execute resolves to, its deps are values by name', () => {
    expectTypeOf(orders).toEqualTypeOf<Asset<'orders', { id: number; cents: number }[]>>()
    const total = asset('total', {
      dependsOn: [orders, rate],
      execute: (ctx, deps) => {
        expectTypeOf(deps.orders).toEqualTypeOf<{ id: number; cents: number }[]>()
        expectTypeOf(deps.rate).toEqualTypeOf<number>()
        expectTypeOf(ctx.signal).toEqualTypeOf<AbortSignal>()
        // @ts-expect-error there is no such dependency
        void deps.customers
        return `${deps.rate}`
      },
    })
    expectTypeOf<ValueOf<typeof total>>().toEqualTypeOf<string>()
  })

  it('of a scatter without gather: the list of keys and values', () => {
    const checked = asset('checked', {
      dependsOn: [orders],
      scatter: ({ orders }) => orders.map(({ id }) => `${id}`),
      execute: async (ctx, deps) => {
        expectTypeOf(ctx.scatterKey).toEqualTypeOf<string>()
        expectTypeOf(ctx.index).toEqualTypeOf<number>()
        return deps.orders.length > 0
      },
    })
    expectTypeOf<ValueOf<typeof checked>>().toEqualTypeOf<{ key: string; value: boolean }[]>()
  })

  it('of a scatter whose options stand elsewhere', () => {
    const retry = { maxAttempts: 3, backoff: '1s..2s' } as const
    const checked = asset('checked', {
      scatter: () => ['a'],
      scatterOptions: { retry },
      execute: (ctx) => {
        expectTypeOf(ctx.scatterKey).toEqualTypeOf<string>()
        return ctx.scatterKey.length
      },
    })
    expectTypeOf<ValueOf<typeof checked>>().toEqualTypeOf<{ key: string; value: number }[]>()
  })

  it('of a scatter with gather: what gather makes of the results', () => {
    const summed = asset('summed', {
      dependsOn: [orders, rate],
      scatter: async function* ({ orders }) {
        for (const { cents } of orders) yield { cents }
      },
      execute: (ctx, { rate }) => ctx.scatterKey.cents * rate,
      gather: async (results) => {
        expectTypeOf(results).toEqualTypeOf<AsyncIterable<ScatterResult<{ cents: number }, number>>>()
        const sums: number[] = []
        for await (const { value } of results) sums.push(value)
        return new Date(sums.length)
      },
    })
    expectTypeOf<ValueOf<typeof summed>>().toEqualTypeOf<Date>()
  })
})

it('a pipeline that another copy of the package declared is known to this one', async () => {
  const copy = '../../src/define/pipeline.ts?copy'
  const other: typeof import('../../src/define/pipeline.ts') = await import(copy)
  const member = asset('member', { execute: () => 1 })
  const declared = other.pipeline('of-another-copy', [member])
  expect(pipelinesOf(member)).toEqual([declared])
  expect(declaredPipelines()).toContain(declared)
})

it('a pipeline is declared beside a copy of an older version, which knew less of its pipelines', async () => {
  const key = Symbol.for('flowstone.pipelines')
  const realm: Record<symbol, unknown> = Object(globalThis)
  const here = realm[key]
  const older = { declared: [], owners: new WeakMap() }
  try {
    realm[key] = older
    const copy = '../../src/define/pipeline.ts?beside-older'
    const newer: typeof import('../../src/define/pipeline.ts') = await import(copy)
    const declared = newer.pipeline('beside-older', [asset('member', { execute: () => 1 })])
    expect(older.declared).toEqual([declared])
    newer.giveHooks('worker: hooks', declared, { onRunFailed: () => undefined })
    expect(declared.spec.hooks).toBeDefined()
  } finally {
    realm[key] = here
  }
})
