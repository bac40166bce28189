import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, type InstanceOptions, pipeline } from '../../src/index.ts'
import { deafNats } from '../kit/deaf-nats.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const limit = () => ({ signal: within(20_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)
const AT_ONCE = 6

/**
 * Many instances, of which the one that begins first fails for good once `AT_ONCE` run. The others
 * wait to be aborted.
 */
function doomed(options: InstanceOptions) {
  const seen = { started: 0, abortedMs: [] as number[] }
  const full = Promise.withResolvers<void>()
  const work = asset('work', {
    retry: { maxAttempts: 1 },
    scatterOptions: options,
    scatter: () => range(3000),
    execute: async ({ signal }) => {
      seen.started += 1
      const isFirst = seen.started === 1
      if (seen.started === AT_ONCE) full.resolve()
      await full.promise
      if (isFirst) throw new Error('broken')
      return await new Promise<number>((_, reject) =>
        signal.addEventListener('abort', () => {
          seen.abortedMs.push(Date.now())
          reject(signal.reason)
        }),
      )
    },
  })
  return { work, seen }
}

async function onWork(url: string, namespace: string): Promise<number> {
  const nc = await connectNats({ servers: url })
  try {
    return (await (await jetstreamManager(nc)).streams.info(`${namespace}_WORK_0`)).state.messages
  } finally {
    await nc.close()
  }
}

/**
 * Runs it, and says how long after its end the last instance was aborted, and what was left on WORK
 * a second later.
 */
async function closeEarly(
  url: string,
  options: InstanceOptions,
): Promise<{ abortedAfterMs: number; beganLater: number }> {
  const { work, seen } = doomed(options)
  await using stage = await openStage(url, pipeline('doomed', [work]), { worker: { concurrency: AT_ONCE } })
  const run = await stage.flow.materialize(work)
  expect(await rejection(run.result(limit()))).toMatchObject({ asset: 'work' })
  const closed = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'scatter.closed')
  const began = seen.started
  await until('what ran is aborted', () => seen.abortedMs.length === began - 1, 8000)
  const abortedAfterMs = Math.max(...seen.abortedMs) - (closed?.at.getTime() ?? 0)
  await until('nothing of it is queued', async () => (await onWork(url, stage.namespace)) === 0, 10_000)
  return { abortedAfterMs, beganLater: seen.started - began }
}

describe('a scatter that is closed early', () => {
  it.each<[string, InstanceOptions]>([
    ['at its first failure', {}],
    ['at its threshold', { failureMode: 'partial', failureThreshold: { count: 0 } }],
    ['with a limited queue of its own', { maxConcurrent: AT_ONCE }],
  ])('%s stops what runs within two seconds, and what is queued at once', async (_, options) => {
    const { abortedAfterMs, beganLater } = await closeEarly(server.url, options)
    expect(abortedAfterMs).toBeLessThan(2000 * busy())
    expect(beganLater).toBe(0)
  })

  it('a scatter that is closed early stops what runs within some seconds also when no worker hears of it', async () => {
    await using deaf = await deafNats(['*.notify.abort.*', '*.notify.pause.*'])
    const { abortedAfterMs, beganLater } = await closeEarly(deaf.url, {})
    expect(abortedAfterMs).toBeLessThan(8000 * busy())
    expect(beganLater).toBe(0)
  })
})

describe('a scatter that is paused where no worker hears of it', () => {
  it('a scatter that is paused where no worker hears of it begins nothing more after some seconds', async () => {
    await using deaf = await deafNats(['*.notify.abort.*', '*.notify.pause.*'])
    let done = 0
    const work = asset('work', {
      scatter: () => range(100_000),
      execute: async ({ index }) => {
        await new Promise((resolve) => setImmediate(resolve))
        done += 1
        return index
      },
    })
    await using stage = await openStage(deaf.url, pipeline('deaf', [work]), { worker: { concurrency: 2 } })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('it is under way', () => done > 50)
    await scatter.pause(id)
    await until('nothing is out', async () => {
      const status = await scatter.status(id).catch(() => undefined)
      return status?.paused !== undefined && status.leased === 0
    })
    const before = done
    expect(before).toBeLessThan(100_000)
    await scatter.resume(id)
    await until('it goes on', () => done > before + 50)
    await scatter.cancel(id)
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled' })
  })
})

describe('what comes due after the end', () => {
  it('what comes due after the end is not begun: a retry that was scheduled before its run was cancelled', async () => {
    let started = 0
    const work = asset('work', {
      retry: { maxAttempts: 3, backoff: '300ms' },
      scatter: () => range(5),
      execute: () => {
        started += 1
        throw new Error('not yet')
      },
    })
    await using stage = await openStage(server.url, pipeline('late', [work]))
    const run = await stage.flow.materialize(work)
    await until('all failed once', () => started === 5)
    await run.cancel()
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled' })
    await until('what was scheduled came and went', async () => (await onWork(server.url, stage.namespace)) === 0)
    expect(started).toBe(5)
  })
})
