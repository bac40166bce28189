import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { type Asset, asset, type Flow, input, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const order = input('order', z.object({ id: z.string(), total: z.number() }))
const invoice = asset('invoice', { dependsOn: [order], execute: (_, { order }) => `${order.id}: ${order.total}` })
const broken = asset('broken', { retry: { maxAttempts: 1 }, execute: (ctx) => ctx.fail('no paper') })
const letter = asset('letter', { dependsOn: [broken], execute: () => 'never' })
const orders = pipeline('orders', [order, invoice, broken, letter])

/** Waits until a test lets it go on. */
const held = asset('held', { execute: (ctx) => ctx.signalGate({ correlationKey: `${ctx.partition}` }) })
const holding = pipeline('holding', [held])
const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }

const given = { input: { order: { id: 'o-1', total: 12.5 } } }

async function childOf(flow: Flow, run: string, name: string): Promise<string> {
  let child: string | undefined
  await until('it waits for a run', async () => {
    child = (await flow.run(run).view())?.assets[name]?.waitsForRun
    return child !== undefined
  })
  return child ?? ''
}

describe('a run that an asset starts', () => {
  it('gives its value to the asset, by object and by name, and to onRun', async () => {
    let goneOn = 0
    const plain = asset('plain', { execute: (ctx) => ctx.run(invoice, given) })
    const named = asset('named', { execute: (ctx) => ctx.run<string>('orders/invoice', given) })
    const followed = asset('followed', {
      dependsOn: [plain],
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: async (ctx, { plain }) => ctx.run(invoice, { input: { order: { id: plain, total: 2 } } }),
      onRun: (_, { run, value }, { plain }) => {
        goneOn += 1
        if (goneOn === 1) throw new Error('not yet')
        return { run, value, plain }
      },
    })
    const twice = asset('twice', {
      execute: (ctx) => ctx.run(invoice, given),
      onRun: (ctx, { value }) =>
        value.length > 20 ? value : ctx.run(invoice, { input: { order: { id: `${value},`.repeat(3), total: 3 } } }),
    })
    expectTypeOf(plain).toEqualTypeOf<Asset<'plain', string>>()
    expectTypeOf(named).toEqualTypeOf<Asset<'named', string>>()
    expectTypeOf(followed).toEqualTypeOf<Asset<'followed', { run: string; value: string; plain: string }>>()
    expectTypeOf(twice).toEqualTypeOf<Asset<'twice', string>>()
    const all = pipeline('values', [plain, named, followed, twice])
    await using stage = await openStage(server.url, [orders, all], { shards: 3, worker: { concurrency: 1 } })
    const { flow } = stage
    expect(await (await flow.materialize(plain)).result()).toBe('o-1: 12.5')
    expect(await (await flow.materialize(named)).result()).toBe('o-1: 12.5')
    const run = await flow.materialize(followed)
    const { run: child, ...rest } = await run.result()
    expect(rest).toEqual({ value: 'o-1: 12.5: 2', plain: 'o-1: 12.5' })
    await until('the state has its end', async () => (await flow.run(child).view())?.status === 'succeeded')
    expect(await flow.run(child).view()).toMatchObject({
      target: 'invoice',
      parent: { run: run.id, asset: 'followed' },
    })
    expect(goneOn).toBe(2)
    const facts = await factsOf(flow, run.id)
    expect(facts.filter(({ kind, ids }) => kind === 'child.requested' && ids.asset === 'followed')).toHaveLength(1)
    expect(await (await flow.materialize(twice)).result()).toBe('o-1: 12.5,o-1: 12.5,o-1: 12.5,: 3')
  })

  it('fails the asset when it fails, with its id, its asset and its error, and is not started again', async () => {
    let started = 0
    const parent = asset('parent', {
      retry: { maxAttempts: 3, backoff: '10ms' },
      execute: (ctx) => {
        started += 1
        return ctx.run(letter)
      },
    })
    await using stage = await openStage(server.url, [orders, pipeline('failing', [parent])])
    const { flow } = stage
    const run = await flow.materialize(parent)
    const error = await rejection(run.result())
    const asked = (await factsOf(flow, run.id)).find(({ kind }) => kind === 'child.requested')
    expect(error.message).toContain(`run ${Object(asked?.data).child} of orders/letter, which it waited for, failed`)
    expect(error.message).toContain('at broken: no paper')
    await until('it has failed', async () => (await run.view())?.assets.parent?.status === 'failed')
    const failed = (await run.view())?.assets.parent?.error
    expect(failed).toMatchObject({ code: 'child_failed', cause: { code: 'terminal' } })
    expect(started).toBe(1)
  })

  it('is cancelled with the run that waits for it, and its cancellation fails the asset', async () => {
    const parent = asset('parent', { execute: (ctx) => ctx.run(held, { partition: `${ctx.partition}` }) })
    await using stage = await openStage(server.url, [holding, pipeline('cancelling', [parent])], { gates, shards: 2 })
    const { flow } = stage
    const [down, up] = await Promise.all(['down', 'up'].map((partition) => flow.materialize(parent, { partition })))
    if (!down || !up) throw new Error('no runs')
    const [first, second] = await Promise.all([down, up].map(({ id }) => childOf(flow, id, 'parent')))
    expect((await down.status())?.assets.parent?.waitingFor).toEqual([`run ${first}`])
    expect(await flow.gates.list(down.id)).toEqual([])
    const gate = `${down.id}.parent.a1n1`
    expect(await rejection(flow.gates.signalById(gate, 'x'))).toMatchObject({ reason: 'not_found' })
    expect(await rejection(flow.gates.cancel(gate))).toMatchObject({ code: 'not_found' })
    await down.cancel('not needed')
    await until('the child is cancelled', async () => (await flow.run(first ?? '').view())?.status === 'cancelled')
    await flow.run(second ?? '').cancel()
    const error = await rejection(up.result())
    expect(error.message).toContain(`run ${second} of holding/held, which it waited for, was cancelled`)
    await until('no run is open', async () => (await flow.runs({ open: true })).length === 0)
  })

  it('is refused for bad options, and for input that does not fit, before it exists', async () => {
    const bad: Record<string, (run: (target: never, options?: never) => never) => never> = {
      option: (run) => run('orders/invoice' as never, { partitions: 'x' } as never),
      target: (run) => run('invoice' as never),
      input: (run) => run(invoice as never, { input: { order: { id: 1 } } } as never),
      missing: (run) => run('orders/invoice' as never),
      itself: (run) => run('refused/parent' as never, { key: 'own' } as never),
      retry: (run) => run('orders/invoice' as never, { onFailed: 'retry' } as never),
      dropped: (run) => {
        run(invoice as never, given as never)
        return 5 as never
      },
    }
    const parent = asset('parent', { execute: (ctx) => bad[`${ctx.partition}`]?.(ctx.run as never) })
    await using stage = await openStage(server.url, [orders, pipeline('refused', [parent])])
    const { flow } = stage
    const problem = async (partition: string, key?: string): Promise<string> =>
      (await rejection((await flow.materialize(parent, { partition, ...(key ? { key } : {}) })).result())).message
    expect(await problem('option')).toContain('partitions')
    expect(await problem('target')).toContain("ctx.run: name a pipeline and an asset, such as 'orders/invoice'")
    expect(await problem('input')).toContain('ctx.run: input.order')
    expect(await problem('missing')).toContain('ctx.run: input: order is missing')
    expect(await problem('itself', 'own')).toContain('would wait for itself')
    expect(await problem('retry')).toContain('onFailed needs key')
    expect(await problem('dropped')).toContain('wait only where what they give is returned')
    expect((await flow.runs()).every(({ pipeline }) => pipeline === 'refused')).toBe(true)
  })
})

describe('a run under a key', () => {
  it('wakes all that wait for it, ends with the last of them, and is taken when it has ended before', async () => {
    const parent = asset('parent', {
      execute: (ctx) => ctx.run(held, { partition: 'shared', key: `${ctx.partition}` }),
    })
    await using stage = await openStage(server.url, [holding, pipeline('sharing', [parent])], { gates, shards: 3 })
    const { flow } = stage
    const two = await Promise.all([1, 2].map(() => flow.materialize(parent, { partition: 'a' })))
    const [child, other] = await Promise.all(two.map(({ id }) => childOf(flow, id, 'parent')))
    expect(child).toBe(other)
    await two[0]?.cancel()
    await rejection(two[0]?.result() ?? Promise.resolve())
    await flow.gates.signalByCorrelationKey('shared', 'done', { keepFor: '1m' })
    expect(await two[1]?.result()).toBe('done')
    expect(await (await flow.materialize(parent, { partition: 'a' })).result()).toBe('done')
    const gone = await Promise.all([1, 2].map(() => flow.materialize(parent, { partition: 'b' })))
    const [last] = await Promise.all(gone.map(({ id }) => childOf(flow, id, 'parent')))
    for (const run of gone) await run.cancel()
    await until('nobody waits', async () => (await flow.run(last ?? '').view())?.status === 'cancelled')
    // Somebody else started this one, so it goes on.
    const kept = await flow.materialize(held, { partition: 'shared', key: 'c' })
    const waits = await flow.materialize(parent, { partition: 'c' })
    expect(await childOf(flow, waits.id, 'parent')).toBe(kept.id)
    await waits.cancel()
    await until('it was told', async () => (await factsOf(flow, kept.id)).some(({ kind }) => kind === 'run.abandoned'))
    await flow.gates.signalByCorrelationKey('shared', 'kept', { keepFor: '1m' })
    expect(await kept.result()).toBe('kept')
  })

  it('that stands for another request fails the asset', async () => {
    const parent = asset('parent', { execute: (ctx) => ctx.run(held, { partition: 'x', key: 'taken' }) })
    await using stage = await openStage(server.url, [holding, pipeline('conflict', [parent])], { gates })
    const { flow } = stage
    await flow.materialize(held, { partition: 'y', key: 'taken' })
    const error = await rejection((await flow.materialize(parent)).result())
    expect(error.message).toContain('key "taken" was used for another request')
  })
})

describe('runs that would wait for each other', () => {
  it.each([1, 4])('by their keys are found out, with %i shards, and the error names them', async (shards) => {
    const a: Asset<'a', string> = asset('a', { execute: (ctx) => ctx.run<string>('round/b', { key: 'b' }) })
    const b: Asset<'b', string> = asset('b', { execute: (ctx) => ctx.run<string>('round/c', { key: 'c' }) })
    const c: Asset<'c', string> = asset('c', { execute: (ctx) => ctx.run<string>('round/a', { key: 'a' }) })
    await using stage = await openStage(server.url, pipeline('round', [a, b, c]), { shards })
    const { flow } = stage
    const run = await flow.materialize(a, { key: 'a' })
    const failed = await rejection(run.result())
    expect(failed.code).toBe('child_failed')
    // The list lags behind the log: each shard has a checkpoint of its own.
    await until('all three are listed', async () => (await flow.runs()).length === 3)
    const [[ofB], [ofC]] = [await flow.runs({ target: 'round/b' }), await flow.runs({ target: 'round/c' })]
    const finished = (await factsOf(flow, ofC?.id ?? '')).find(({ kind }) => kind === 'run.finished')
    expect(finished?.data).toMatchObject({ error: { code: 'child_failed', cause: { code: 'wait_cycle' } } })
    const wanted = `it may not wait for run ${run.id} of round/a: it waits for run ${ofB?.id}, which waits for run ${ofC?.id}, which would wait for it`
    expect(JSON.stringify(finished?.data)).toContain(wanted)
  })

  it('is no circle when two wait for the same run, or one waits that has ended', async () => {
    let turn = 0
    const shared = asset('shared', { execute: (ctx) => ctx.signalGate({ correlationKey: 'shared' }) })
    const first = asset('first', { execute: (ctx) => ctx.run(shared, { key: 's' }) })
    const second = asset('second', {
      execute: (ctx) => ctx.run(first, { key: 'f' }),
      onRun: (ctx, { value }) => (++turn === 1 ? ctx.run(shared, { key: 's' }) : value),
    })
    await using stage = await openStage(server.url, pipeline('tree', [shared, first, second]), { gates })
    const { flow } = stage
    const one = await flow.materialize(first, { key: 'f' })
    const two = await flow.materialize(second)
    await childOf(flow, one.id, 'first')
    await childOf(flow, two.id, 'second')
    await flow.gates.signalByCorrelationKey('shared', 'done')
    expect(await one.result()).toBe('done')
    expect(await two.result()).toBe('done')
  })
})

it('a parent that waits goes on after it and its run were adopted, and the state was rebuilt', async () => {
  const version = (n: number) => {
    const leaf = asset('leaf', { execute: (ctx) => ctx.signalGate({ correlationKey: 'leaf' }) })
    const parent = asset('parent', { execute: (ctx) => ctx.run(leaf), onRun: (_, { value }) => `${n}: ${value}` })
    const top = asset('top', { dependsOn: [parent], execute: (_, deps) => `${n}: ${deps.parent}`, codeVersion: `${n}` })
    return { top, all: pipeline('adopting', [leaf, parent, top]) }
  }
  await using stage = await openStage(server.url, version(1).all, { gates, shards: 2 })
  const { flow } = stage
  const run = await flow.materialize(version(1).top, { pipeline: 'adopting' })
  const child = await childOf(flow, run.id, 'parent')
  await until('the child waits', async () => (await flow.gates.list(child)).length === 1)
  await stage.worker?.stop()
  await flow.worker(version(2).all)
  const { version: newest } = version(2).all.spec
  for (const id of [child, run.id]) expect(await flow.adopt(id)).toMatchObject({ version: newest })
  await stage.engine?.stop()
  await flow.rebuild()
  await flow.engine()
  await flow.gates.signalByCorrelationKey('leaf', 'done')
  expect(await run.result()).toBe('2: 2: done')
  await until('no run is open', async () => (await flow.runs({ open: true })).length === 0)
  expect(await flow.runs()).toHaveLength(2)
})

it('a run with the concurrency key of one that waits for it runs within its place', async () => {
  const concurrency = { key: 'one', limit: 1 }
  const leaf = asset('leaf', { execute: () => 'leaf' })
  const middle = asset('middle', { execute: (ctx) => ctx.run(leaf, { concurrency }) })
  const root = asset('root', { execute: (ctx) => ctx.run(middle) })
  await using stage = await openStage(server.url, pipeline('nested', [leaf, middle, root]), { shards: 2 })
  const run = await stage.flow.materialize(root, { concurrency })
  expect(await run.result()).toBe('leaf')
})

describe('instances that start runs', () => {
  it.each([
    [200, 16],
    [20, 1],
  ])(
    '%i of them with maxConcurrent %i share as many slots of a worker with their runs',
    {
      timeout: 180_000,
    },
    async (count, slots) => {
      const child = asset('child', { execute: ({ partition }) => Number(partition) * 2 })
      const many = asset('many', {
        scatter: () => Array.from({ length: count }, (_, i) => i),
        scatterOptions: { maxConcurrent: slots },
        execute: (ctx) => ctx.run(child, { partition: `${ctx.scatterKey}` }),
        onRun: (ctx, { value }) => value + (ctx.scatterKey === 0 ? 1 : 0),
        gather: async (results) => {
          let sum = 0
          for await (const { value } of results) sum += value
          return sum
        },
      })
      expectTypeOf(many).toEqualTypeOf<Asset<'many', number>>()
      const worker = { concurrency: slots }
      await using stage = await openStage(server.url, pipeline('many', [child, many]), { worker })
      const run = await stage.flow.materialize(many)
      expect(await run.result()).toBe(count * (count - 1) + 1)
    },
  )

  it('fail by themselves, and cancel their runs when the scatter ends early', async () => {
    const some = asset('some', {
      scatter: () => ['ok', 'bad', 'slow'],
      scatterOptions: { failureMode: 'partial', failureThreshold: 1 },
      execute: (ctx) => {
        if (ctx.scatterKey === 'slow') return 'slow'
        return ctx.scatterKey === 'bad' ? ctx.run(broken) : ctx.run(invoice, given)
      },
      gather: async (results) => {
        const seen: string[] = []
        for await (const one of results) seen.push(one.status === 'ok' ? one.value : one.error.code)
        return seen
      },
    })
    const early = asset('early', {
      scatter: () => ['slow', 'bad'],
      execute: async (ctx) => {
        if (ctx.scatterKey === 'slow') return ctx.run(held, { partition: 'early' })
        return ctx.run(broken)
      },
    })
    await using stage = await openStage(server.url, [orders, holding, pipeline('some', [some, early])], { gates })
    const { flow } = stage
    expect(await (await flow.materialize(some)).result()).toEqual(['o-1: 12.5', 'child_failed', 'slow'])
    const run = await flow.materialize(early)
    expect((await rejection(run.result())).message).toContain('no paper')
    await until('no run is left', async () => (await flow.runs({ open: true })).length === 0)
  })
})
