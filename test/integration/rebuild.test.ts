import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, ConflictError, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

/** All keys of all state buckets with their bytes, without the engines' positions. */
async function snapshot(namespace: string, shards: number): Promise<Map<string, string>> {
  const nc = await connectNats({ servers: server.url })
  try {
    const jsm = await jetstreamManager(nc)
    const found = new Map<string, string>()
    for (let shard = 0; shard < shards; shard++) {
      const stream = `KV_${namespace}_state_${shard}`
      const { state } = await jsm.streams.info(stream, { subjects_filter: '>' })
      for (const subject of Object.keys(state.subjects ?? {}).toSorted()) {
        const message = await jsm.streams.getMessage(stream, { last_by_subj: subject })
        if (!message || message.header.has('KV-Operation') || subject.endsWith('.engine')) continue
        found.set(subject, Buffer.from(message.data).toString('latin1'))
      }
    }
    return found
  } finally {
    await nc.close()
  }
}

/** An asset that brings how often its code has begun, and the runs that it began for. */
function counting() {
  const begun: string[] = []
  const counted = asset('counted', { execute: ({ runId }) => begun.push(runId) })
  return { begun, counted }
}

const numbers = asset('numbers', { execute: () => [3, 1, 2] })
const flaky = asset('flaky', {
  dependsOn: [numbers],
  retry: { maxAttempts: 3, backoff: '10ms' },
  execute: ({ attempt }) => {
    if (attempt === 1) throw new Error('not yet')
    return attempt
  },
})
const many = asset('many', {
  dependsOn: [numbers],
  retry: { maxAttempts: 2, backoff: '10ms' },
  scatter: function* () {
    for (let i = 0; i < 2000; i++) yield { i, padding: 'x'.repeat(200) }
  },
  execute: ({ scatterKey, attempt }) => {
    if (scatterKey.i % 100 === 9 && attempt === 1) throw new Error('not yet')
    return scatterKey.i
  },
  gather: async (results) => {
    let sum = 0
    for await (const { value } of results) sum += value
    return sum
  },
})
const broken = asset('broken', {
  dependsOn: [numbers],
  retry: { maxAttempts: 1 },
  scatter: () => [1, 2, 3],
  execute: ({ scatterKey }) => {
    if (scatterKey === 2) throw new Error('broken')
    return scatterKey
  },
})
const waits = asset('waits', {
  execute: ({ signal }) =>
    new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
})
const last = asset('last', { dependsOn: [flaky, many], execute: (_, deps) => deps.flaky + deps.many })
const skipped = asset('skipped', { dependsOn: [broken], execute: () => 1 })
const all = pipeline('all', [numbers, flaky, many, broken, waits, last, skipped])

describe('a rebuild', () => {
  it.each([1, 3])('brings all documents back, byte for byte, with %i shard(s)', async (shards) => {
    await using stage = await openStage(server.url, all, { shards, worker: { concurrency: 20, drainTimeout: 0 } })
    const { flow, namespace } = stage
    const lasts = await Promise.all(
      ['a', 'b', 'c', 'd'].map((partition) => flow.materialize(last, { partition, key: `last ${partition}` })),
    )
    for (const run of lasts) expect(await run.result()).toBe(2 + (2000 * 1999) / 2)
    await rejection((await flow.materialize(skipped, { upstream: 'all' })).result())
    const cancelled = await flow.materialize(waits, { key: 'cancelled' })
    await until('it waits', async () => (await cancelled.status())?.assets.waits?.status === 'running')
    await cancelled.cancel()
    await rejection(cancelled.result())
    // One that is open, in the middle of its work.
    const open = await flow.materialize(waits, { key: 'open' })
    await until('that waits', async () => (await open.status())?.assets.waits?.status === 'running')

    expect(await rejection(flow.rebuild())).toBeInstanceOf(ConflictError)
    await stage.worker?.stop()
    await stage.engine?.stop()
    const before = await snapshot(namespace, shards)
    expect(before.size).toBeGreaterThan(20)
    const report = await flow.rebuild()
    expect(report.facts).toBeGreaterThan(100)
    const after = await snapshot(namespace, shards)
    expect([...after.keys()]).toEqual([...before.keys()])
    for (const [key, bytes] of before) expect(after.get(key), key).toBe(bytes)

    // And an engine continues from that state.
    await (await flow.engine()).active
    await flow.worker(all, { drainTimeout: 0 })
    expect(await (await flow.materialize(last, { partition: 'a' })).result()).toBe(2 + (2000 * 1999) / 2)
    await open.cancel()
    expect(await rejection(open.result())).toMatchObject({ code: 'cancelled' })
  })

  it('a rebuild is refused while an engine is active, and says what to do', async () => {
    await using stage = await openStage(server.url, all, { worker: false })
    const error = await rejection(stage.flow.rebuild())
    expect(error).toBeInstanceOf(ConflictError)
    expect(error.message).toContain('an engine is active on shard 0; stop all engines of the namespace, then rebuild')
    await stage.engine?.stop()
    expect((await stage.flow.rebuild()).facts).toBe(0)
  })

  it('a rebuild leaves what no engine has folded yet to the next one, with all that it decides of it', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    await (await flow.materialize(numbers, { partition: 'before' })).result()
    await stage.engine?.stop()
    // A run whose plan needs a look at what is there, and one that an outsider asks for.
    const run = await flow.materialize(last, { partition: 'after' })
    const nc = await connectNats({ servers: server.url })
    await jetstream(nc).publish(`${namespace}.trigger.all.numbers`, '{"partition":"outside","key":"outside"}')
    await nc.close()
    await flow.rebuild()
    expect(await run.status()).toMatchObject({ status: 'requested', assets: {} })
    await flow.engine()
    expect(await run.result({ signal: within(10_000) })).toBe(2 + (2000 * 1999) / 2)
    const outside = await flow.materialize(numbers, { partition: 'outside', key: 'outside' })
    expect(await outside.result()).toEqual([3, 1, 2])
    await until('both have been seen', async () => (await flow.runs()).length === 3)
  })

  it('after an engine that died before its checkpoint does not run again what that one had begun', async () => {
    const { begun, counted } = counting()
    await using stage = await openStage(server.url, pipeline('counts', [counted]), { worker: { concurrency: 1 } })
    const { flow, namespace } = stage
    const nc = await connectNats({ servers: server.url })
    const runs = [await flow.materialize(counted, { key: 'one' })]
    await runs[0]?.result()
    const [bucket, key] = [`KV_${namespace}_state_0`, `$KV.${namespace}_state_0.engine`]
    const jsm = await jetstreamManager(nc)
    await until('it is folded', async () => (await flow.runs())[0]?.status === 'succeeded')
    const earlier = await jsm.streams.getMessage(bucket, { last_by_subj: key })
    runs.push(await flow.materialize(counted, { key: 'two' }))
    await runs[1]?.result()
    await stage.engine?.stop()
    // As if that had not come to a checkpoint any more.
    await jetstream(nc).publish(key, earlier?.data)
    await nc.close()
    await flow.rebuild()
    await flow.engine()
    runs.push(await flow.materialize(counted, { key: 'three' }))
    expect(await runs[2]?.result({ signal: within(10_000) })).toBe(3)
    expect(begun).toEqual(runs.map(({ id }) => id))
  })

  it('brings back a state bucket that somebody deleted', async () => {
    const namespace = freshNamespace()
    await using stage = await openStage(server.url, all, { namespace })
    const run = await stage.flow.materialize(numbers)
    await run.result()
    await stage.worker?.stop()
    await stage.engine?.stop()
    const before = await snapshot(namespace, 1)
    const nc = await connectNats({ servers: server.url })
    // With the bucket of claims.
    for (const bucket of ['state_0', 'control'])
      await (await jetstreamManager(nc)).streams.delete(`KV_${namespace}_${bucket}`)
    await nc.close()
    await stage.flow.rebuild()
    expect(await snapshot(namespace, 1)).toEqual(before)
    expect((await run.status())?.status).toBe('succeeded')
  })

  it('a rebuild of an empty log gives empty buckets', async () => {
    await using stage = await openStage(server.url, all, { engine: false, worker: false })
    expect(await stage.flow.rebuild()).toMatchObject({ facts: 0 })
    expect((await snapshot(stage.namespace, 1)).size).toBe(0)
  })
})

it('an engine that follows long after one that died before its checkpoint runs nothing again', async () => {
  const { begun, counted } = counting()
  await using stage = await openStage(server.url, pipeline('counts', [counted]), { worker: { concurrency: 1 } })
  const { flow, namespace } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const one = await flow.materialize(counted, { key: 'one' })
  await one.result()
  await until('it is folded', async () => (await one.status())?.status === 'succeeded')
  const bucket = `KV_${namespace}_state_0`
  await jsm.streams.update(`${namespace}_WORK_0`, { duplicate_window: 1_000_000_000 })
  // From now on no checkpoint can be stored: the engine folds, enqueues, and fails.
  await jsm.streams.update(bucket, { max_msg_size: 8 })
  const two = await flow.materialize(counted, { key: 'two' })
  await until('its code has run', () => begun.length === 2)
  const sinceMs = performance.now()
  await until('WORK has forgotten its task', () => performance.now() - sinceMs > 1500)
  await jsm.streams.update(bucket, { max_msg_size: -1 })
  await nc.close()
  await until('the next engine has come so far', async () => (await two.status())?.status === 'succeeded')
  const three = await flow.materialize(counted, { key: 'three' })
  expect(await three.result({ signal: within(20_000) })).toBe(3)
  expect(begun).toEqual([one.id, two.id, three.id])
})

describe('an engine whose state bucket was lost', () => {
  /** How often the code of each asset was called. */
  const calls = new Map<string, number>()
  const counted = (name: string): void => void calls.set(name, (calls.get(name) ?? 0) + 1)
  const first = asset('first', {
    execute: () => {
      counted('first')
      return 1
    },
  })
  const spread = asset('spread', {
    dependsOn: [first],
    scatter: () => Array.from({ length: 500 }, (_, i) => i),
    execute: ({ index }) => {
      counted('spread')
      return index
    },
  })
  const waiting = asset('waiting', {
    dependsOn: [spread],
    execute: async ({ partition, signal }) => {
      counted('waiting')
      if (partition === 'open' && calls.get('waiting') === 2)
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      return 2
    },
  })
  const lost = pipeline('lost', [first, spread, waiting])

  it.each(['deleted', 'half rebuilt'])('(%s) folds the log again, runs nothing twice, and goes on', async (how) => {
    calls.clear()
    const namespace = freshNamespace()
    await using stage = await openStage(server.url, lost, { namespace, worker: { drainTimeout: 0 } })
    const { flow } = stage
    await (await flow.materialize(waiting, { partition: 'done', upstream: 'all' })).result()
    const open = await flow.materialize(waiting, { partition: 'open', upstream: 'all' })
    await until('the open one is at work', () => calls.get('waiting') === 2)
    // Handed back: its next attempt waits on WORK, which the new engine must not enqueue once more.
    await stage.worker?.stop()
    await stage.engine?.stop()
    const before = await snapshot(namespace, 1)

    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const bucket = `KV_${namespace}_state_0`
    const engineKey = `$KV.${namespace}_state_0.engine`
    const { seq } = decodeMsg(await jsm.streams.getMessage(bucket, { last_by_subj: engineKey }))
    await jsm.streams.purge(bucket)
    if (how === 'half rebuilt') await jetstream(nc).publish(engineKey, JSON.stringify({ v: 1, seq: 0, recoverTo: seq }))
    else await jsm.streams.delete(bucket)
    await nc.close()

    const engine = await flow.engine()
    await engine.active
    await flow.worker(lost)
    expect(await open.result({ signal: within(20_000) })).toBe(2)
    expect(Object.fromEntries(calls)).toEqual({ first: 2, spread: 1000, waiting: 3 })
    await engine.stop()
    const after = await snapshot(namespace, 1)
    const kept = [...before.keys()].filter((key) => !key.includes('_0.open.'))
    for (const key of kept) expect([...after.keys()], key).toContain(key)
    expect(stage.lines.join()).toContain('the state of shard 0 was lost')
  })
})

function decodeMsg(message: { data: Uint8Array } | null): { seq: number } {
  return JSON.parse(new TextDecoder().decode(message?.data)) as { seq: number }
}
