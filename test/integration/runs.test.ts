import { describe, expect, expectTypeOf, it } from 'vitest'
import { asset, ConflictError, pipeline, RunFailedError } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { kindsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** numbers → doubled → sum, counting how often each was made. */
function sums() {
  const made = { numbers: 0, doubled: 0, sum: 0 }
  const numbers = asset('numbers', {
    execute: ({ partition }) => {
      made.numbers += 1
      return partition === 'big' ? [100, 200] : [1, 2, 3]
    },
  })
  const doubled = asset('doubled', {
    dependsOn: [numbers],
    execute: (_, deps) => {
      made.doubled += 1
      return deps.numbers.map((n) => n * 2)
    },
  })
  const sum = asset('sum', {
    dependsOn: [doubled, numbers],
    execute: async (_, deps) => {
      made.sum += 1
      return { sum: [...deps.doubled, ...deps.numbers].reduce((a, b) => a + b, 0) }
    },
  })
  return { made, numbers, doubled, sum, sums: pipeline('sums', [numbers, doubled, sum]) }
}

describe('a run', () => {
  it('makes an asset and all that it depends on, and brings its value with its type', async () => {
    const { sum, sums: all, made } = sums()
    await using stage = await openStage(server.url, all)
    const run = await stage.flow.materialize(sum)
    const value = await run.result()
    expectTypeOf(value).toEqualTypeOf<{ sum: number }>()
    expect(value).toEqual({ sum: 18 })
    expect(made).toEqual({ numbers: 1, doubled: 1, sum: 1 })
    expect(await kindsOf(stage.flow, run.id)).toEqual([
      'run.requested',
      'asset.materialized',
      'asset.materialized',
      'asset.materialized',
      'run.finished',
    ])
  })

  it('a run can be asked for before there is an engine or a worker, and is made when they come', async () => {
    const { sum, sums: all } = sums()
    await using stage = await openStage(server.url, all, { engine: false, worker: false })
    const run = await stage.flow.materialize(sum)
    expect(await run.status()).toMatchObject({
      status: 'requested',
      waitingFor: [expect.stringMatching(/^an engine: none/)],
    })
    await stage.flow.engine()
    await stage.flow.worker(all)
    expect(await run.result()).toEqual({ sum: 18 })
  })

  it('a run takes upstream values that are there (missing), makes all again (all, the default), or nothing else (none)', async () => {
    const { sum, numbers, sums: all, made } = sums()
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    await (await flow.materialize(numbers)).result()
    await (await flow.materialize(sum, { upstream: 'missing' })).result()
    expect(made).toEqual({ numbers: 1, doubled: 1, sum: 1 })
    await (await flow.materialize(sum)).result()
    expect(made).toEqual({ numbers: 2, doubled: 2, sum: 2 })
    await (await flow.materialize(sum, { upstream: 'none' })).result()
    expect(made).toEqual({ numbers: 2, doubled: 2, sum: 3 })
  })

  it('a run keeps values of data partitions apart, whatever text names them', async () => {
    const { sum, doubled, sums: all, made } = sums()
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    expect(await (await flow.materialize(sum, { partition: 'big' })).result()).toEqual({ sum: 900 })
    expect(await (await flow.materialize(sum, { partition: 'a.b *> ü/\n' })).result()).toEqual({ sum: 18 })
    expect(made.numbers).toBe(2)
    await (await flow.materialize(sum, { partition: 'a.b *> ü/\n', upstream: 'missing' })).result()
    expect(made).toEqual({ numbers: 2, doubled: 2, sum: 3 })
    const error = await rejection((await flow.materialize(doubled, { partition: 'new', upstream: 'none' })).result())
    expect(error).toMatchObject({ code: 'missing_upstream' })
    expect(error.message).toContain('doubled needs numbers')
  })

  it('a name is refused that its pipeline does not have; a pipeline that is not there may come', async () => {
    const { sums: all } = sums()
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    const value = (name: string) => flow.value(name)
    const partitions = (name: string) => flow.partitions(name)
    for (const ask of [value, partitions, (target: string) => flow.runs({ target })]) {
      expect(await rejection(ask(`${all.name}/doubeld`))).toMatchObject({
        code: 'not_found',
        message: `pipeline ${all.name} has no asset doubeld; did you mean doubled?`,
      })
      expect((await ask(`${all.name}/doubled`)) ?? []).toEqual([])
      expect((await ask('later/doubeld')) ?? []).toEqual([])
    }
  })

  it('a run is the same run for the same key, and another request with that key is a conflict', async () => {
    const { sum, doubled, sums: all, made } = sums()
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    const other = await stage.connect()
    const runs = await Promise.all([
      flow.materialize(sum, { key: 'once', partition: 'p' }),
      flow.materialize(sum, { key: 'once', partition: 'p' }),
      other.materialize(sum, { key: 'once', partition: 'p' }),
    ])
    expect(new Set(runs.map(({ id }) => id)).size).toBe(1)
    await runs[0].result()
    expect((await flow.materialize(sum, { key: 'once', partition: 'p' })).id).toBe(runs[0].id)
    expect(made.sum).toBe(1)
    const error = await rejection(flow.materialize(doubled, { key: 'once', partition: 'p' }))
    expect(error).toBeInstanceOf(ConflictError)
    expect(error.message).toContain('key "once" was used for')
    expect(await rejection(flow.materialize(sum, { key: 'once' }))).toBeInstanceOf(ConflictError)
  })

  it('a run can be followed from another connection, by its id alone', async () => {
    const { sum, sums: all } = sums()
    await using stage = await openStage(server.url, all)
    const run = await stage.flow.materialize(sum, { partition: 'p' })
    const other = await stage.connect()
    expect(await other.run(run.id).result()).toEqual({ sum: 18 })
    await until('the state shows the end', async () => (await other.run(run.id).status())?.finishedAt !== undefined)
    expect(await other.run(run.id).status()).toMatchObject({
      id: run.id,
      pipeline: 'sums',
      target: 'sum',
      partition: 'p',
      status: 'succeeded',
      assets: { numbers: { status: 'materialized', attempt: 1 }, sum: { status: 'materialized' } },
    })
  })

  it('a run is listed, newest first, and as open until it has ended', async () => {
    const gate = Promise.withResolvers<void>()
    const quick = asset('quick', { execute: () => 1 })
    const held = asset('held', { execute: () => gate.promise })
    const both = pipeline('both', [quick, held])
    await using stage = await openStage(server.url, both)
    const { flow } = stage
    const first = await flow.materialize(quick)
    await first.result()
    const second = await flow.materialize(held)
    await until('both are listed', async () => (await flow.runs()).length === 2)
    expect((await flow.runs()).map(({ id }) => id)).toEqual([second.id, first.id])
    expect((await flow.runs({ limit: 1 })).map(({ id }) => id)).toEqual([second.id])
    await until('one is open', async () => (await flow.runs({ open: true })).length === 1)
    expect((await flow.runs({ open: true }))[0]?.id).toBe(second.id)
    gate.resolve()
    await second.result()
    await until('none is open', async () => (await flow.runs({ open: true })).length === 0)
    expect(await flow.runs()).toHaveLength(2)
  })

  it('a run is watched: updates come while it goes on, and end with it', async () => {
    const gate = Promise.withResolvers<void>()
    const first = asset('first', { execute: () => 1 })
    const second = asset('second', {
      dependsOn: [first],
      scatter: () => [1, 2, 3, 4],
      execute: async ({ scatterKey }) => {
        if (scatterKey === 4) await gate.promise
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('watched', [first, second]))
    const run = await stage.flow.materialize(second)
    const other = await stage.connect()
    const seen: string[] = []
    let succeeded = 0
    for await (const { run: view, scatters } of other.run(run.id).watch()) {
      seen.push(`${view.status}/${view.assets.first?.status}/${view.assets.second?.status}`)
      succeeded = Math.max(succeeded, scatters[0]?.succeeded ?? 0)
      if (scatters[0]?.succeeded === 3) gate.resolve()
    }
    expect(seen.at(-1)).toBe('succeeded/materialized/materialized')
    expect(seen.length).toBeGreaterThan(1)
    expect(succeeded).toBe(4)
    // Watching what has ended brings the one update, and ends.
    expect((await collect(run.watch())).map(({ run: { status } }) => status)).toEqual(['succeeded'])
  })

  it('a run can be watched and awaited no longer, without ending it', async () => {
    const gate = Promise.withResolvers<number>()
    const slow = asset('slow', { execute: () => gate.promise })
    await using stage = await openStage(server.url, pipeline('patience', [slow]))
    const run = await stage.flow.materialize(slow)
    const patience = new AbortController()
    const waiting = rejection(run.result({ signal: patience.signal }))
    const watching = collect(run.watch({ signal: patience.signal }))
    patience.abort(new Error('enough'))
    expect((await waiting).message).toBe('enough')
    await watching
    gate.resolve(7)
    expect(await run.result()).toBe(7)
  })

  it('rejects with the code and asset of what failed, and skips what depends on it', async () => {
    let after = 0
    const fine = asset('fine', { execute: () => 1 })
    const broken = asset('broken', {
      dependsOn: [fine],
      retry: { maxAttempts: 1 },
      execute: () => {
        throw Object.assign(new Error('no such host'), { code: 'ENOTFOUND' })
      },
    })
    const next = asset('next', { dependsOn: [broken], execute: () => (after += 1) })
    const last = asset('last', { dependsOn: [next, fine], execute: () => (after += 1) })
    await using stage = await openStage(server.url, pipeline('breaks', [fine, broken, next, last]))
    const run = await stage.flow.materialize(last)
    const error = await rejection(run.result())
    expect(error).toBeInstanceOf(RunFailedError)
    expect(error).toMatchObject({ code: 'ENOTFOUND', asset: 'broken', runId: run.id })
    expect(error.message).toContain('no such host')
    expect(after).toBe(0)
    await until('the state shows the end', async () => (await run.status())?.status === 'failed')
    expect((await run.status())?.assets).toMatchObject({
      fine: { status: 'materialized' },
      broken: { status: 'failed', error: { code: 'ENOTFOUND', message: 'no such host' } },
      next: { status: 'skipped' },
      last: { status: 'skipped' },
    })
  })

  it('skips all that hangs on a failed asset, also when assets are named by numbers', async () => {
    const broken = asset('30', {
      retry: { maxAttempts: 1 },
      execute: () => {
        throw new Error('broken')
      },
    })
    const next = asset('20', { dependsOn: [broken], execute: () => 1 })
    const last = asset('10', { dependsOn: [next], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('numbered', [broken, next, last]))
    const run = await stage.flow.materialize(last)
    expect(await rejection(run.result())).toMatchObject({ asset: '30' })
  })

  it('a run takes the pipeline by name for an asset that is in several', async () => {
    const shared = asset('shared', { execute: () => 'made' })
    const one = pipeline('one', [shared])
    const two = pipeline('two', [shared])
    await using stage = await openStage(server.url, [one, two])
    expect((await rejection(stage.flow.materialize(shared))).message).toContain('several pipelines (one, two)')
    const run = await stage.flow.materialize(shared, { pipeline: two })
    expect(await run.result()).toBe('made')
    await until('the state has it', async () => (await run.status())?.pipeline === 'two')
  })
})
