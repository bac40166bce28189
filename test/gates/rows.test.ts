import { expect, it } from 'vitest'
import { asset, type GateView, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const COUNT = 40
const LARGE = 'm'.repeat(2000)
/** Opens many gates, some of them with much metadata. Waits at the first. */
const opens = asset('opens', {
  execute: async (ctx) => {
    const first = await ctx.openGate({ metadata: 'first' })
    const open = (i: number): unknown => ctx.openGate({ metadata: i % 5 === 0 ? LARGE : i, timeout: `${1 + (i % 3)}h` })
    await Promise.all(Array.from({ length: COUNT - 1 }, (_, i) => open(i)))
    await opened
    return first.wait()
  },
})
const listed = Promise.withResolvers<void>()
const opened = listed.promise

it('many gates of one asset are listed page by page with their metadata, and end with its execution', async () => {
  await using stage = await openStage(server.url, pipeline('rows', [opens]), { gates: GATES })
  const { gates } = stage.flow
  const run = await stage.flow.materialize(opens)
  await until('all are open', async () => (await gates.waiting()).length === COUNT)
  const found: GateView[] = []
  for (let page = await gates.waiting({ limit: 7 }); page.length > 0; ) {
    found.push(...page)
    page = await gates.waiting({ limit: 7, after: found.at(-1) as GateView })
  }
  const all = await gates.list(run.id)
  expect(found.toSorted(byId)).toEqual(all.toSorted(byId))
  expect(found.filter(({ metadata }) => metadata === LARGE)).toHaveLength(8)
  const deadlines = found.map(({ deadline }) => deadline?.getTime() ?? Number.POSITIVE_INFINITY)
  expect(deadlines).toEqual(deadlines.toSorted((a, b) => a - b))
  listed.resolve()
  await until('the first is left', async () => (await gates.waiting()).length === 1)
  await gates.signalById(all.find(({ metadata }) => metadata === 'first')?.id ?? '', 1)
  expect(await run.result()).toBe(1)
  await until('none waits', async () => (await gates.waiting()).length === 0)
})

function byId(a: GateView, b: GateView): number {
  return a.id < b.id ? -1 : 1
}
