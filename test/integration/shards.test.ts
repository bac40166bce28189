import { describe, expect, it } from 'vitest'
import { Claim } from '../../src/engine/shard/claim.ts'
import { type AnyAsset, type Asset, asset, type Flow, pipeline } from '../../src/index.ts'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { assetName, runId, runIdForKey } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** An asset, and one that depends on it, whose value says which value it was given. */
function pair() {
  const counts = { made: 0 }
  const up = asset('up', { execute: () => ++counts.made })
  const down = asset('down', { dependsOn: [up], execute: (_, deps) => deps.up })
  return { counts, up, down, all: pipeline('pair', [up, down]) }
}

const shardOf = (id: string): number => Number(id.split('-')[0])

/** A key whose run falls into a shard. */
function keyIn(flow: Flow, shard: number, target: AnyAsset, partition: string) {
  for (let i = 0; ; i++) {
    const key = `${target.name} ${partition} ${i}`
    if (shardOf(runIdForKey(key, flow.shards)) === shard) return key
  }
}

describe('with three shards, a value that a caller has seen', () => {
  it('with three shards, a value that a caller has seen is found with `none`, not made again with `missing`, and is the newest of several, each time', async () => {
    const { counts, up, down, all } = pair()
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow } = stage
    const seen = { refused: 0, again: 0, stale: 0 }
    for (let i = 0; i < 40; i++) {
      await (await flow.materialize(up, { partition: `none ${i}` })).result()
      const none = await flow.materialize(down, { partition: `none ${i}`, upstream: 'none' })
      await none.result().catch(() => seen.refused++)
      await (await flow.materialize(up, { partition: `missing ${i}` })).result()
      const before = counts.made
      await (await flow.materialize(down, { partition: `missing ${i}`, upstream: 'missing' })).result()
      if (counts.made > before) seen.again++
      const newest = await (await flow.materialize(up, { partition: 'newest' })).result()
      if ((await (await flow.materialize(down, { partition: 'newest', upstream: 'missing' })).result()) !== newest)
        seen.stale++
    }
    expect(seen).toEqual({ refused: 0, again: 0, stale: 0 })
  })
})

/** A shard whose engine is away: this claim holds it, and what stands on its log is not folded. */
async function withoutEngine(namespace: string, shard: number) {
  const connection = await Connection.open({ servers: server.url })
  const names = namesOf(namespace)
  const claim = new Claim(connection, names, shard, 'somebody else')
  expect(await claim.tryTake()).toBe(true)
  claim.keep()
  const log = new Appender(connection, names.log(shard))
  return {
    /** The end of `up` in a run of this shard, as its worker puts it on the log. */
    made: async (run: string, partition: string | undefined, value: number): Promise<void> => {
      const ids = { pipeline: 'pair', asset: assetName('up'), run: runId(shard, run) }
      const data = {
        run: ids.run,
        asset: 'up',
        pipeline: 'pair',
        ...(partition === undefined ? {} : { partition }),
        attempt: 1,
        worker: 'w',
        value: { json: value },
        durationMs: 1,
      }
      await log.append(factEntry(names, shard, { name: 'asset.materialized', ids, data }))
    },
    async [Symbol.asyncDispose]() {
      await claim.release()
      await connection.close()
    },
  }
}

describe('with the engine of another shard away', () => {
  it('a plan finds the newest value on its log, among those of other shards', async () => {
    const { counts, up, down, all } = pair()
    const namespace = freshNamespace()
    await using stage = await openStage(server.url, all, { namespace, shards: 3, engine: false })
    const { flow } = stage
    await using away = await withoutEngine(namespace, 1)
    await flow.engine()
    const inShard0 = async (target: Asset<string, number>, partition: string, upstream: 'missing' | 'none') => {
      const key = keyIn(flow, 0, target, `${partition} ${upstream}`)
      return await (await flow.materialize(target, { key, partition, upstream })).result()
    }
    const own = await inShard0(up, 'a', 'missing')
    expect(own).toBe(1)
    expect(await inShard0(down, 'a', 'none')).toBe(1)
    await away.made('first', 'a', 100)
    await away.made('other', 'b', 200)
    await away.made('second', 'a', 101)
    await away.made('none', undefined, 300)
    expect(await inShard0(down, 'a', 'missing')).toBe(101)
    expect(await inShard0(down, 'b', 'none')).toBe(200)
    expect(counts.made).toBe(1)
    const key = keyIn(flow, 0, down, 'c')
    const none = await flow.materialize(down, { key, partition: 'c', upstream: 'none' })
    expect(await rejection(none.result())).toMatchObject({ code: 'missing_upstream' })
  })

  it('a plan finds a value behind thousands of others that nobody has folded', async () => {
    const { down, all } = pair()
    const namespace = freshNamespace()
    await using stage = await openStage(server.url, all, { namespace, shards: 2, engine: false })
    await using away = await withoutEngine(namespace, 1)
    await stage.flow.engine()
    await Promise.all(Array.from({ length: 3000 }, (_, i) => away.made(`run-${i}`, i === 1234 ? 'it' : `p${i}`, i)))
    const key = keyIn(stage.flow, 0, down, 'it')
    const run = await stage.flow.materialize(down, { key, partition: 'it', upstream: 'none' })
    expect(await run.result()).toBe(1234)
  })
})

describe.each([1, 3])('with %i shards, a redrive that is asked for when its run has just ended', (shards) => {
  it('with the engine of another shard away takes the values that the run had at its very end', async () => {
    const state = { made: 0, broken: true, closed: Promise.withResolvers<void>() }
    const late = asset('late', {
      execute: async () => {
        await state.closed.promise
        return ++state.made
      },
    })
    const work = asset('work', {
      scatter: () => [1, 2, 3],
      scatterOptions: { retry: { maxAttempts: 1 } },
      execute: ({ scatterKey }) => {
        if (state.broken && scatterKey === 2) throw new Error('broken')
        return scatterKey
      },
    })
    const both = asset('both', { dependsOn: [late, work], execute: (_, deps) => deps.late })
    await using stage = await openStage(server.url, pipeline('again', [late, work, both]), { shards })
    const { flow } = stage
    for (let i = 0; i < 10; i++) {
      state.broken = true
      state.closed = Promise.withResolvers()
      const first = await flow.materialize(both, { partition: `p${i}`, upstream: 'all' })
      const ended = rejection(first.result())
      await until('the scatter has failed', async () =>
        (await flow.scatter.list(first.id).catch(() => [])).some(({ status }) => status === 'failed'),
      )
      state.closed.resolve()
      await ended
      state.broken = false
      const second = await flow.scatter.redrive(`${first.id}.work`)
      expect(await second.result()).toBe(i + 1)
      expect(state.made).toBe(i + 1)
    }
  })
})
