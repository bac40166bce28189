import { describe, expect, it } from 'vitest'
import { asset, pipeline, type ScatterStatus } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const limit = () => ({ signal: within(20_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe('why a scatter does not go on', () => {
  it('why a scatter does not go on is reported by its workers: what runs, since when and where, and that all slots are taken', async () => {
    const gate = Promise.withResolvers<void>()
    let begun = 0
    const work = asset('work', {
      scatter: () => range(40),
      execute: async ({ index }) => {
        begun += 1
        await gate.promise
        return index
      },
    })
    const all = pipeline('slots', [work])
    const options = { worker: { concurrency: 2, drainTimeout: '1s' } } as const
    await using stage = await openStage(server.url, all, options)
    const other = await stage.connect()
    const second = await other.worker(all, { concurrency: 3, drainTimeout: '1s' })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('five are at work', () => begun === 5)
    // The state may lag, and a worker whose process is busy may not answer in time.
    let found: ScatterStatus | undefined
    await until('state and workers tell', async () => {
      found = await scatter.status(id).catch(() => undefined)
      return found?.pending === 40 && found.running === 5 && found.longest.length === 5
    })
    const status = found ?? (await scatter.status(id))
    expect(status).toMatchObject({ running: 5, pending: 40, progress: 0, estimatedEnd: undefined })
    expect(status.leased + status.waiting + status.waitingForRetry).toBe(40)
    expect(status.waitingFor).toContain(`a slot: ${status.leased - 5} leased instances wait; slots: 5, of 2 workers`)
    expect(status.longest).toHaveLength(5)
    expect(new Set(status.longest.map(({ worker }) => worker))).toEqual(new Set([stage.worker?.id, second.id]))
    for (const { from, to, since } of status.longest) {
      expect(to - from).toBe(1)
      expect(Math.abs(Date.now() - since.getTime())).toBeLessThan(20_000)
    }
    gate.resolve()
    await run.result(limit())
  })

  it('a scatter does not go on: the status says that no worker serves its queue', async () => {
    const work = asset('work', {
      scatterOptions: { queue: 'gpu', totalTimeout: '1h' },
      scatter: () => range(10),
      execute: ({ index }) => index,
    })
    await using stage = await openStage(server.url, pipeline('nobody', [work]), { worker: { queues: ['default'] } })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('it is open', async () => (await scatter.status(id).catch(() => undefined))?.total === 10)
    const status = await scatter.status(id)
    expect(status).toMatchObject({
      leased: 10,
      running: 0,
      waitingFor: [expect.stringMatching(/^a worker: none answers that serves queue nobody\/gpu/)],
    })
    expect(status.deadline?.getTime()).toBe(status.startedAt.getTime() + 3_600_000)
    await stage.worker?.stop()
    expect((await scatter.status(id)).waitingFor).toEqual([expect.stringMatching(/^a worker: none /)])
    await stage.flow.worker(pipeline('nobody', [work]))
    await run.result(limit())
  })

  it('why a scatter does not go on has nothing to do with what can be run again once it is closed', async () => {
    const work = asset('work', {
      scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
      scatter: () => range(10),
      execute: ({ index }) => {
        if (index % 4 === 0) throw new Error('broken')
        return index
      },
    })
    await using stage = await openStage(server.url, pipeline('redrivable', [work]))
    const run = await stage.flow.materialize(work)
    await run.result(limit())
    const status = async () => await stage.flow.scatter.status(`${run.id}.work`)
    await until('it is closed', async () => (await status().catch(() => undefined))?.status === 'partial_failure')
    expect(await status()).toMatchObject({
      redrivable: 3,
      resultsStored: 7,
      cancelled: 0,
      progress: 100,
      waitingFor: [],
    })
  })

  it('why a scatter does not go on is not asked of a plain asset: the error says so, and where its state is', async () => {
    const plain = asset('plain', { execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('plain', [plain]))
    const run = await stage.flow.materialize(plain)
    await run.result(limit())
    await until('the state has the run', async () => (await run.status())?.status === 'succeeded')
    await expect(stage.flow.scatter.status(`${run.id}.plain`)).rejects.toThrow(
      `asset plain of run ${run.id} is plain: it has no scatter; its state is in the run's status`,
    )
  })
})
