import { describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline, type ScatterStatus } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/**
 * A scatter over 0 … 9 of which `broken` fail, and whose gather fails while `gatherBroken` is set.
 */
function scatterOf(scatterOptions: object) {
  const state = { broken: new Set<number>(), gatherBroken: false, ran: [] as number[] }
  const work = asset('work', {
    retry: { maxAttempts: 1 },
    scatter: () => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    scatterOptions: { retry: { maxAttempts: 1 }, ...scatterOptions },
    execute: ({ scatterKey }) => {
      state.ran.push(scatterKey)
      if (state.broken.has(scatterKey)) throw new Error(`broken ${scatterKey}`)
      return scatterKey * 10
    },
    gather: async (results) => {
      if (state.gatherBroken) throw new Error('no gather')
      const list: [number, string][] = []
      for await (const { key, status } of results) list.push([key, status])
      return list
    },
  })
  return { state, work, all: pipeline('redriven', [work]) }
}

const everything = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
const except = (...failed: number[]) => everything.map((key) => [key, failed.includes(key) ? 'failed' : 'ok'])

/** The status of a scatter that has ended, once the state shows that. */
async function closed(flow: Flow, id: string): Promise<ScatterStatus> {
  await until('the state shows the end', async () => (await flow.scatter.status(id)).status !== 'open')
  return await flow.scatter.status(id)
}

describe('a redrive', () => {
  it('measures its failure threshold against the whole scatter', async () => {
    const { state, work, all } = scatterOf({ failureMode: 'partial', failureThreshold: 0.2 })
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    state.broken = new Set([1, 2, 3, 4])
    const first = await flow.materialize(work)
    expect(await rejection(first.result())).toMatchObject({ code: 'threshold_passed' })
    // Two of ten are allowed; two of the four that are run again would be half of them.
    state.broken = new Set([1, 2])
    const second = await flow.scatter.redrive(`${first.id}.work`)
    expect(second.isNew).toBe(true)
    expect(await second.result()).toEqual(except(1, 2))
    expect(await closed(flow, `${second.id}.work`)).toMatchObject({ failed: 2, failuresLeft: 0 })
  })

  it('a redrive that fails keeps what it recovered, and is asked for again under the same id', async () => {
    const { state, work, all } = scatterOf({ failureMode: 'partial', failureThreshold: { count: 1 }, maxConcurrent: 1 })
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow } = stage
    state.broken = new Set([1, 2, 3, 4])
    const first = await flow.materialize(work)
    await rejection(first.result())
    const id = `${first.id}.work`
    const left = await closed(flow, id)
    state.broken = new Set([8, 9])
    const second = await flow.scatter.redrive(id)
    expect(await rejection(second.result())).toMatchObject({ code: 'threshold_passed' })
    const recovered = (await closed(flow, `${second.id}.work`)).succeeded
    expect(recovered).toBeGreaterThan(0)

    state.broken = new Set()
    state.ran = []
    const [third, same] = await Promise.all([flow.scatter.redrive(id), flow.scatter.redrive(id)])
    expect([third.id === second.id, third.id === same.id, third.isNew !== same.isNew]).toEqual([false, true, true])
    expect(await third.result()).toEqual(except())
    expect(state.ran).toHaveLength(10 - left.succeeded - recovered)
    const after = await flow.scatter.redrive(id)
    expect([after.id, after.isNew]).toEqual([third.id, false])
  })

  it('a redrive whose instances have all succeeded, and whose gather has failed, runs the gather again', async () => {
    const { state, work, all } = scatterOf({})
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    state.broken = new Set([5])
    const first = await flow.materialize(work)
    await rejection(first.result())
    const id = `${first.id}.work`
    state.broken = new Set()
    state.gatherBroken = true
    const second = await flow.scatter.redrive(id)
    expect((await rejection(second.result())).message).toContain('no gather')
    state.gatherBroken = false
    state.ran = []
    const third = await flow.scatter.redrive(id)
    expect(third.id).not.toBe(second.id)
    expect(await third.result()).toEqual(except())
    expect(state.ran).toEqual([])
    expect((await rejection(flow.scatter.redrive(`${third.id}.work`))).message).toContain('nothing that failed')
  })

  it('a redrive that was cancelled before its scatter began is asked for again', async () => {
    const { state, work, all } = scatterOf({})
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    state.broken = new Set([5])
    const first = await flow.materialize(work)
    await rejection(first.result())
    state.broken = new Set()
    await stage.worker?.stop()
    const second = await flow.scatter.redrive(`${first.id}.work`)
    await second.cancel()
    await rejection(second.result())
    await flow.worker(all)
    const third = await flow.scatter.redrive(`${first.id}.work`)
    expect([third.id === second.id, third.isNew]).toEqual([false, true])
    expect(await third.result()).toEqual(except())
  })
})
