import { describe, expect, it } from 'vitest'
import { LIST_PAGE } from '../../projections/run/lists.ts'
import { asset, pipeline, type RunsOptions } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

const good = asset('good', { execute: () => 1 })
const bad = asset('bad', { execute: (ctx) => ctx.fail('as it is') })
const all = pipeline('mixed', [good, bad])
const COUNT = 2 * LIST_PAGE + 7

describe.each([1, 3])('with %i shard(s), runs', (shards) => {
  it('are found by target, tag, partition, status and time, page by page, the newest first', async () => {
    await using stage = await openStage(server.url, all, { shards })
    const { flow } = stage
    // Stored in the order in which they are asked for.
    const asking = Array.from({ length: COUNT }, (_, i) => {
      const tags = { tenant: i % 2 === 0 ? 'a' : 'b', nr: `${i}` }
      return flow.materialize(i % 10 === 0 ? bad : good, { tags, partition: `p${i % 3}` })
    })
    const asked = (await Promise.all(asking)).map(({ id }) => id).toReversed()
    const open = async (): Promise<unknown[]> => await flow.runs({ open: true })
    await until(
      'all have ended',
      async () => (await flow.runs({ limit: COUNT })).length === COUNT && (await open()).length === 0,
    )
    const paged = async (options: RunsOptions): Promise<string[]> => {
      const ids: string[] = []
      for (;;) {
        const after = ids.at(-1)
        const page = await flow.runs({ ...options, limit: 30, ...(after === undefined ? {} : { after }) })
        ids.push(...page.map(({ id }) => id))
        if (page.length < 30) return ids
      }
    }
    const nth = (wanted: (i: number) => boolean): string[] => asked.filter((_, k) => wanted(COUNT - 1 - k))
    // Servers give times in milliseconds, so runs of the same one have no order over shards.
    const same = (found: string[], wanted: string[]): void => {
      if (shards === 1) expect(found).toEqual(wanted)
      else expect(found.toSorted()).toEqual(wanted.toSorted())
    }
    same(await paged({}), asked)
    same(
      await paged({ target: bad }),
      nth((i) => i % 10 === 0),
    )
    same(
      await paged({ target: 'mixed/good', tag: { tenant: 'a' } }),
      nth((i) => i % 10 !== 0 && i % 2 === 0),
    )
    same(
      await paged({ partition: 'p2' }),
      nth((i) => i % 3 === 2),
    )
    same(
      await paged({ tag: { nr: '42' } }),
      nth((i) => i === 42),
    )
    same(
      await paged({ status: 'succeeded', partition: 'p0' }),
      nth((i) => i % 10 !== 0 && i % 3 === 0),
    )
    expect((await paged({ status: 'failed' })).toSorted()).toEqual(nth((i) => i % 10 === 0).toSorted())
    const views = await flow.runs({ limit: COUNT })
    const since = views[40]?.requestedAt ?? new Date(0)
    const later = views.filter(({ requestedAt }) => requestedAt >= since).map(({ id }) => id)
    expect(await paged({ since })).toEqual(later)
    expect(await flow.runs({ tag: { tenant: 'c' } })).toEqual([])
  })
})

it('runs that cannot be looked for are refused with the name of the option', async () => {
  await using stage = await openStage(server.url, all)
  const { flow } = stage
  const refusal = async (options: unknown): Promise<string> =>
    (await rejection(flow.runs(options as RunsOptions))).message
  expect(await refusal({ status: 'done' })).toMatch(/^runs: status must be one of .*, got "done"/)
  expect(await refusal({ limit: 0 })).toMatch(/^runs: limit must be/)
  expect(await refusal({ since: 'monday' })).toMatch(/^runs: since must be a Date/)
  expect(await refusal({ target: 'good' })).toMatch(/^runs: target: name a pipeline and an asset/)
  expect(await refusal({ after: '0-mgx3k2c1-9f2e' })).toMatch(/there is no run 0-mgx3k2c1-9f2e/)
})
