/** A state bucket that somebody deletes while a rebuild or an engine works with it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Store } from '../../src/engine/shard/store.ts'
import { asset, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { runId } from '../../streams/ids.ts'
import { ensureStateBucket, ensureTopology, type Topology } from '../../streams/topology.ts'
import { keyOn } from '../gates/kit.ts'
import { deleteStream, foldAndForget } from '../kit/engine.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
import { busy, within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
let connection: Connection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
  connection = await Connection.open({ servers: server.url })
})
afterAll(async () => {
  await connection.close()
  await nc.close()
})

const first = asset('first', { execute: () => 1 })
const second = asset('second', { dependsOn: [first], execute: (_, deps) => deps.first + 1 })
const spread = asset('spread', {
  scatter: () => Array.from({ length: 300 }, (_, i) => i),
  execute: ({ index }) => index,
})
const both = pipeline('both', [first, second, spread])

/**
 * A stream that is being deleted may take a message and answer nothing: the answer is waited for 5
 * s, then looked for.
 */
const SOON_MS = 12_000

describe('a rebuild', () => {
  it('a rebuild ends soon whenever a bucket is deleted meanwhile, and the next one rebuilds all', {
    timeout: 90_000,
  }, async () => {
    await using stage = await openStage(server.url, both)
    const { flow, namespace } = stage
    const runs = [await flow.materialize(second, { upstream: 'all' }), await flow.materialize(spread)]
    for (const run of runs) await run.result()
    await stage.worker?.stop()
    await stage.engine?.stop()
    const jsm = await jetstreamManager(nc)
    let failures = 0
    for (const bucket of ['state_0', 'control'])
      for (let waitMs = 0; waitMs < 60; waitMs += 2) {
        const rebuilding = flow.rebuild().catch(() => {
          failures += 1
        })
        await sleep(waitMs)
        await jsm.streams.delete(`KV_${namespace}_${bucket}`).catch(() => false)
        const ended = await Promise.race([rebuilding, sleep(SOON_MS, 'late', { ref: false })])
        expect(ended, `${bucket}, deleted after ${waitMs} ms`).not.toBe('late')
      }
    expect(failures).toBeGreaterThan(0)
    await flow.rebuild()
    for (const run of runs) expect((await run.status())?.status).toBe('succeeded')
  })

  it('plans a run of one shard while the state of another shard is lost', async () => {
    await using stage = await openStage(server.url, both, { shards: 2 })
    const { flow, namespace } = stage
    const made = await flow.materialize(first, { key: keyOn(1, 2, 'made') })
    await made.result()
    await stage.worker?.stop()
    await stage.engine?.stop()
    const run = await flow.materialize(second, { key: keyOn(0, 2, 'builds'), upstream: 'none' })
    await foldAndForget(server.url, namespace, 0)
    await deleteStream(server.url, `KV_${namespace}_state_1`)
    await flow.rebuild()
    await flow.engine()
    await flow.worker(both)
    expect(await run.result({ signal: within(15_000) })).toBe(2)
  })
})

describe('an engine whose state bucket is deleted', () => {
  const key = stateKey.run(runId(0, 'run'))
  async function atWork(): Promise<{ topology: Topology; checkpointer: Checkpointer; store: Store }> {
    const topology = await ensureTopology(nc, { namespace: freshNamespace() })
    await ensureStateBucket(nc, topology, 0)
    const checkpointer = new Checkpointer(connection, topology.names, 0, 'one')
    const store = new Store(connection, topology.names, 0, checkpointer)
    await checkpointer.takeOver()
    store.put(key, { id: 'run' } as never)
    await checkpointer.write(store.takeTouched(), 0, undefined)
    return { topology, checkpointer, store: new Store(connection, topology.names, 0, checkpointer) }
  }
  const bucketOf = ({ names }: Topology): string => names.kvStream(names.stateBucket(0))

  it('an engine whose state bucket is deleted is fenced at its next checkpoint, at once', async () => {
    const { topology, checkpointer } = await atWork()
    await deleteStream(server.url, bucketOf(topology))
    const sinceMs = performance.now()
    expect(await rejection(checkpointer.write([], 1, undefined))).toMatchObject({ code: 'fenced' })
    expect(performance.now() - sinceMs).toBeLessThan(10_000 * busy())
  })

  it('an engine whose state bucket is deleted is fenced when it reads what another engine has not folded again yet', async () => {
    const { topology, checkpointer, store } = await atWork()
    await store.load([key])
    await deleteStream(server.url, bucketOf(topology))
    await ensureStateBucket(nc, topology, 0)
    await new Checkpointer(connection, topology.names, 0, 'two').takeOver()
    // What is not there is no answer: it is not folded yet.
    const late = new Store(connection, topology.names, 0, checkpointer)
    expect(await rejection(late.load([key]))).toMatchObject({ code: 'fenced' })
    expect(await rejection(late.read(key))).toMatchObject({ code: 'fenced' })
    expect(await rejection(checkpointer.look())).toMatchObject({ code: 'fenced' })
  })
})
