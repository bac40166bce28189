import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import { RunFailedError } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { beside, besidePlain, deadly, kills, list, POISONOUS, poison, poisonous3 } from './programs/pipelines.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const CONCURRENCY = 20
const CONSUMER = 'kills=default=1'

/** Keeps `count` workers alive until `until` has ended: what a supervisor does. */
async function supervised<T>(
  rig: Rig,
  count: number,
  env: Record<string, string>,
  work: () => Promise<T>,
): Promise<{ result: T; died: number }> {
  let over = false
  let died = 0
  const keep = async (): Promise<void> => {
    while (!over) {
      // Not so short that a worker which starts on a busy machine is taken for dead: its instances
      // would run twice, and die twice. It is not waited until it is ready: its first task may kill
      // it before.
      const child = rig.spawn('worker', { concurrency: CONCURRENCY, ackWaitMs: 2000 }, env)
      await Promise.race([child.ended, ended])
      if (!over) died += 1
    }
  }
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  const keepers = Promise.all(Array.from({ length: count }, keep))
  try {
    return { result: await work(), died }
  } finally {
    over = true
    resolve()
    await keepers
  }
}

describe('code that kills its worker', () => {
  it('each time: its scatter fails with worker_lost after maxAttempts', async () => {
    await using rig = await startRig()
    await rig.engine()
    const run = await rig.materialize(poison)
    const { result, died } = await supervised(rig, 2, {}, () => run.result().catch((error: unknown) => error))
    expect(result).toBeInstanceOf(RunFailedError)
    expect(result).toMatchObject({ code: 'worker_lost', asset: 'poison' })
    expect(died).toBe(3)
    expect(rig.noted()).toEqual(['poison 1', 'poison 2', 'poison 3'])
    await until('the state says so', async () => (await rig.barrier(run, 'poison'))?.status !== 'open')
    expect(await rig.barrier(run, 'poison')).toMatchObject({
      status: 'failed',
      error: { code: 'worker_lost', message: expect.stringContaining('while it ran instance 40, attempt 3') },
    })
    await rig.expectStateIsFold()
  })

  it.each([poisonous3])(
    'fails alone in a scatter of 200, two of which are poisonous, and takes nothing with it of what stood beside them: $name',
    async (poisonous) => {
      await using rig = await startRig()
      await rig.engine()
      const others = await Promise.all([
        rig.materialize(beside),
        ...['a', 'b', 'c'].map((key) => rig.materialize(besidePlain, key)),
      ])
      const run = await rig.materialize(poisonous)
      const { result } = await supervised(rig, 3, {}, async () => {
        const found = await run.result({ signal: within(60_000) })
        expect(await Promise.all(others.map((other) => other.result({ signal: within(30_000) })))).toEqual([
          { count: 60, sum: (60 * 59) / 2, inOrder: true },
          'well',
          'well',
          'well',
        ])
        return found
      })
      expect(result).toEqual({ succeeded: 198, failed: POISONOUS.map((index) => [index, 'worker_lost']) })
      await until(
        'the state says so',
        async () => (await rig.barrier(run, poisonous.name))?.status === 'partial_failure',
      )
      await rig.expectStateIsFold()
    },
  )

  it('in a plain asset fails that with worker_lost after maxAttempts', async () => {
    await using rig = await startRig()
    await rig.engine()
    const run = await rig.materialize(deadly)
    const { result } = await supervised(rig, 1, {}, () => run.result().catch((error: unknown) => error))
    expect(result).toMatchObject({ code: 'worker_lost', asset: 'deadly' })
    expect(rig.noted()).toEqual(['deadly 1', 'deadly 2', 'deadly 3'])
    await rig.expectStateIsFold()
  })
})

describe('what gets lost on WORK', () => {
  it('tasks that were purged are enqueued again by the reconciler, and the run ends', async () => {
    await using rig = await startRig()
    const [engine, worker] = await Promise.all([rig.engine({ reconcileMs: 500 }), rig.start('worker')])
    const run = await rig.materialize(list)
    // Not by the state, which may show it when all is done.
    await until('some leases are done', () => worker.of('lease.stop').length >= 3)
    // Stopped, so that the purge finds tasks that nobody has in hands, and some that somebody has.
    worker.signal('SIGSTOP')
    const jsm = await jetstreamManager(rig.nc)
    // The engine may not have folded yet what the worker reported last.
    await until('tasks wait', async () => (await jsm.streams.info(rig.names.work(0))).state.messages > 5)
    expect((await jsm.streams.purge(rig.names.work(0))).purged).toBeGreaterThan(5)
    worker.signal('SIGCONT')
    await engine.has('engine.repaired')
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('a consumer that was deleted is made again by the workers', async () => {
    await using rig = await startRig()
    const [workers] = await Promise.all([Promise.all([rig.start('worker'), rig.start('worker')]), rig.engine()])
    const run = await rig.materialize(list)
    await rig.progress(run, 'list', 500)
    const jsm = await jetstreamManager(rig.nc)
    await jsm.consumers.delete(rig.names.work(0), CONSUMER)
    await rig.expectWhole(run, 'list')

    // Also while they are idle.
    await until(
      'they wait',
      async () => (await jsm.consumers.info(rig.names.work(0), CONSUMER)).num_waiting === workers.length,
    )
    await jsm.consumers.delete(rig.names.work(0), CONSUMER)
    const next = await rig.flow.materialize(list, { pipeline: kills, key: 'next' })
    await rig.expectWhole(next, 'list')
    expect(workers.every((worker: Child) => worker.isAlive)).toBe(true)
    await rig.expectStateIsFold()
  })
})
