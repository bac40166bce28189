import { describe, expect, it } from 'vitest'
import { asset, type HistoryEntry, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })

const splitsOf = (facts: readonly HistoryEntry[]) =>
  facts.filter(({ kind }) => kind === 'lease.returned').map(({ data }) => data)

describe('instances that wait behind long ones', () => {
  it.each([
    ['of a lease that runs side by side', undefined],
    ['of a lease that runs one by one', 2],
  ])('%s are handed back, and a worker with room runs them, each once', async (_, maxConcurrent) => {
    const total = 20
    const ran: number[] = []
    const othersRan = Promise.withResolvers<void>()
    const each = asset('each', {
      scatter: () => Array.from({ length: total }, (_, i) => i),
      ...(maxConcurrent === undefined ? {} : { scatterOptions: { maxConcurrent } }),
      execute: async ({ index, attempt }) => {
        ran.push(index)
        // The first one ends only when all the others have: it must not keep those behind it.
        if (ran.length >= total) othersRan.resolve()
        if (index === 0) await othersRan.promise
        return attempt
      },
    })
    await using stage = await openStage(server.url, pipeline('each', [each]), { worker: { concurrency: 1 } })
    const other = await stage.connect()
    await other.worker(pipeline('each', [each]), { concurrency: 1 })
    const run = await stage.flow.materialize(each)
    const result = await run.result()
    expect(result.map(({ value }) => value)).toEqual(Array.from({ length: total }, () => 1))
    expect(ran.toSorted((a, b) => a - b)).toEqual(Array.from({ length: total }, (_, i) => i))
    const splits = splitsOf(await factsOf(stage.flow, run.id))
    expect(splits).toContainEqual(expect.objectContaining({ from: 1 }))
  })
})
