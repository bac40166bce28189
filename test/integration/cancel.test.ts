import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { headers } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, pipeline, RunFailedError } from '../../src/index.ts'
import { runIdForKey } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** Resolves when no task is left: neither held by a worker nor waiting for its time. */
async function noTasks(namespace: string): Promise<void> {
  const nc = await connectNats({ servers: server.url })
  try {
    const jsm = await jetstreamManager(nc)
    await until('WORK is empty', async () => (await jsm.streams.info(`${namespace}_WORK_0`)).state.messages === 0)
  } finally {
    await nc.close()
  }
}

describe('what was to begin later', () => {
  it('what was to begin later is taken away when its scatter is cancelled: instances of a slow rate limit', async () => {
    const slow = asset('slow', {
      scatter: () => Array.from({ length: 100 }, (_, i) => i),
      scatterOptions: { rateLimit: [1, 'hour'] },
      execute: () => 1,
    })
    await using stage = await openStage(server.url, pipeline('later', [slow]))
    const run = await stage.flow.materialize(slow)
    await until(
      'all but one wait for their turn',
      async () => (await stage.flow.scatter.status(`${run.id}.slow`)).waitingForRetry === 99,
    )
    await run.cancel()
    await rejection(run.result())
    await noTasks(stage.namespace)
  })

  it('what was to begin later is taken away when its run is cancelled: the next attempt of an asset', async () => {
    const failing = asset('failing', {
      retry: { maxAttempts: 3, backoff: '1d' },
      execute: () => {
        throw new Error('no')
      },
    })
    await using stage = await openStage(server.url, pipeline('retried', [failing]))
    const run = await stage.flow.materialize(failing)
    await until('it has failed once', async () => (await run.status())?.assets.failing?.attempt === 2)
    await run.cancel()
    await rejection(run.result())
    await noTasks(stage.namespace)
  })

  it('what was to begin later is dropped by the reconciler when a worker put it back after the end', async () => {
    const plain = asset('plain', { execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('put-back', [plain]), { reconcileMs: 200 })
    const run = await stage.flow.materialize(plain)
    await run.result()
    const nc = await connectNats({ servers: server.url })
    const names = namesOf(stage.namespace)
    const h = headers()
    h.set('Nats-Schedule', `@at ${new Date(Date.now() + 86_400_000).toISOString()}`)
    h.set('Nats-Schedule-Target', names.task(0, 'put-back', 'default', 5))
    await jetstream(nc).publish(names.taskSchedule(0, `${run.id}.plain.1~back`), 'x', { headers: h })
    await nc.close()
    await noTasks(stage.namespace)
  })
})

describe('cancelling a run', () => {
  it('says that there is none yet, and cancels it when it is there', async () => {
    const waits = asset('waits', {
      execute: ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', reject)),
    })
    await using stage = await openStage(server.url, pipeline('p', [waits]))
    const { flow } = stage
    const early = flow.run(runIdForKey('k', 1))
    expect(await rejection(early.cancel())).toMatchObject({ code: 'not_found' })
    const run = await flow.materialize(waits, { key: 'k' })
    expect(run.id).toBe(early.id)
    await early.cancel()
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
  })

  it('aborts what runs, drops what waits, keeps what is done, and ends the run as cancelled', async () => {
    const started = Promise.withResolvers<void>()
    const aborted = Promise.withResolvers<unknown>()
    let after = 0
    const first = asset('first', { execute: () => 1 })
    const running = asset('running', {
      dependsOn: [first],
      execute: ({ signal }) => {
        signal.addEventListener('abort', () => aborted.resolve(signal.reason))
        started.resolve()
        return new Promise<number>(() => undefined)
      },
    })
    const next = asset('next', { dependsOn: [running], execute: () => (after += 1) })
    await using stage = await openStage(server.url, pipeline('cancelled', [first, running, next]))
    const run = await stage.flow.materialize(next)
    await started.promise
    const other = await stage.connect()
    await other.run(run.id).cancel('changed my mind')
    const error = await rejection(run.result())
    expect(error).toBeInstanceOf(RunFailedError)
    expect(error.code).toBe('cancelled')
    expect(await aborted.promise).toMatchObject({ code: 'cancelled' })
    expect(after).toBe(0)
    await until('the state shows the end', async () => (await run.status())?.status === 'cancelled')
    const assets = (await run.status())?.assets
    expect([assets?.first?.status, assets?.running?.status, assets?.next?.status]).toEqual([
      'materialized',
      'cancelled',
      'cancelled',
    ])
    const cancelled = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'asset.cancelled')
    expect(cancelled.map(({ data }) => Reflect.get(data, 'reason'))).toEqual(['changed my mind', 'changed my mind'])
    await noTasks(stage.namespace)
  })

  it('cancelling a run does not run what is queued behind other work', async () => {
    const gate = Promise.withResolvers<void>()
    let ran = 0
    const busy = asset('busy', { execute: () => gate.promise })
    const queued = asset('queued', { execute: () => (ran += 1) })
    await using stage = await openStage(server.url, pipeline('queues', [busy, queued]), { worker: { concurrency: 1 } })
    const first = await stage.flow.materialize(busy)
    await until('the worker is busy', () => stage.worker?.busy === 1)
    const second = await stage.flow.materialize(queued)
    await second.cancel()
    expect((await rejection(second.result())).code).toBe('cancelled')
    gate.resolve()
    await first.result()
    await noTasks(stage.namespace)
    expect(ran).toBe(0)
  })

  it('cancelling a run does not run a retry that was due later', async () => {
    const calls: string[] = []
    const later = { maxAttempts: 5, backoff: '700ms' } as const
    const fails = asset('fails', {
      retry: later,
      execute: () => {
        calls.push('plain')
        throw new Error('once more')
      },
    })
    const scattered = asset('scattered', {
      retry: later,
      scatter: () => [1],
      execute: () => {
        calls.push('instance')
        throw new Error('once more')
      },
    })
    await using stage = await openStage(server.url, pipeline('later', [fails, scattered]))
    const runs = [await stage.flow.materialize(fails), await stage.flow.materialize(scattered)]
    await until('both have failed once', () => calls.length === 2)
    for (const run of runs) await run.cancel()
    for (const run of runs) expect((await rejection(run.result())).code).toBe('cancelled')
    await noTasks(stage.namespace)
    expect(calls.toSorted()).toEqual(['instance', 'plain'])
  })

  it('closes an open scatter, aborts its instances and starts no more of them', async () => {
    let started = 0
    let aborts = 0
    const many = asset('many', {
      scatter: () => Array.from({ length: 500 }, (_, i) => i),
      execute: ({ signal }) => {
        started += 1
        signal.addEventListener('abort', () => {
          aborts += 1
        })
        return new Promise<number>(() => undefined)
      },
    })
    await using stage = await openStage(server.url, pipeline('scatters', [many]), { worker: { concurrency: 5 } })
    const run = await stage.flow.materialize(many)
    await until('all slots are taken', () => started === 5)
    await run.cancel()
    expect((await rejection(run.result())).code).toBe('cancelled')
    await noTasks(stage.namespace)
    // Until its end is on the log, a lease that was on its way may begin, and is aborted as well.
    expect(aborts).toBe(started)
    expect(started).toBeLessThanOrEqual(20)
    const closed = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'scatter.closed')
    expect(closed.map(({ data }) => data)).toMatchObject([{ status: 'cancelled', succeeded: 0, failed: 0, total: 500 }])
  })

  it('changes nothing when the run has ended, and may be asked for twice', async () => {
    const quick = asset('quick', { execute: () => 'done' })
    await using stage = await openStage(server.url, pipeline('ended', [quick]))
    const run = await stage.flow.materialize(quick)
    await run.result()
    await run.cancel()
    await run.cancel('again')
    expect(await run.result()).toBe('done')
    await until('the state has caught up', async () => (await run.status())?.status === 'succeeded')
  })

  it('works before an engine has seen the request', async () => {
    // Code that ended by itself could be faster than the cancel.
    const waits = asset('waits', {
      execute: ({ signal }) =>
        new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    // A short ackWait: how often a worker looks whether what it runs is still wanted.
    await using stage = await openStage(server.url, pipeline('early', [waits]), {
      engine: false,
      worker: { ackWait: '3s' },
    })
    const run = await stage.flow.materialize(waits)
    await run.cancel()
    await stage.flow.engine()
    expect((await rejection(run.result())).code).toBe('cancelled')
    await noTasks(stage.namespace)
  })
})
