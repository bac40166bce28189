/**
 * Clocks of hosts that are an hour off, each in another direction: gates go by that of the server,
 * which is this host's true one.
 */
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { HistoryEntry, Run } from '../../src/index.ts'
import { gateOf } from '../gates/kit.ts'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'
import { clocked, gatedKills } from './programs/gated.ts'
import { type Rig, startRig } from './rig.ts'

const HOUR_MS = 3_600_000
const NEAR_MS = 2000

afterEach(() => {
  vi.unstubAllEnvs()
})
beforeEach(() => {
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `k1:${'s'.repeat(32)}`)
})

const trueNow = (): number => performance.timeOrigin + performance.now()

function expectNear(date: Date | undefined, wantedMs: number, what: string): void {
  expect(Math.abs((date?.getTime() ?? 0) - wantedMs), what).toBeLessThan(NEAR_MS * busy())
}

/** The timers that fired so far, when there are `count` of them. */
async function fired(rig: Rig, run: Run, count: number): Promise<HistoryEntry[]> {
  let found: HistoryEntry[] = []
  await until(`${count} timers have fired`, async () => {
    found = (await collect(rig.flow.history(run.id))).filter(({ kind }) => kind === 'gate.timer_fired')
    return found.length === count
  })
  return found
}

describe.each([HOUR_MS, -HOUR_MS])(
  'with the clocks of worker and engine %i ms off, and that of the client as much the other way',
  (skewMs) => {
    it('a gate opens, times out, waits on, is given more time and is answered by the clock of the server', async () => {
      await using rig = await startRig()
      await rig.engine({ skewMs })
      await rig.start('worker', { skewMs }, { KILL_GATES: '1' })
      const realNow = Date.now.bind(Date)
      vi.spyOn(Date, 'now').mockImplementation(() => realNow() - skewMs)
      onTestFinished(() => void vi.restoreAllMocks())
      const { gates } = rig.flow
      const start = async (key: string): Promise<Run> => await rig.materialize<unknown>(clocked, key, gatedKills)

      const run = await start('times out')
      const { id, openedAt } = await gateOf(rig.flow, run.id)
      const created = (await collect(rig.flow.history(run.id))).find(({ kind }) => kind === 'gate.created')
      const first = Number(created && 'deadlineMs' in created.data && created.data.deadlineMs)
      expectNear(openedAt, trueNow(), 'opened')
      expectNear(openedAt, first - 500, 'its first deadline')
      const [one, two] = await fired(rig, run, 2)
      expect(one?.at.getTime()).toBeGreaterThanOrEqual(first - 2)
      expectNear(one?.at, first, 'its first timeout')
      expectNear(two?.at, (one?.at.getTime() ?? 0) + 500, 'its second timeout')
      await until('it has an hour', async () => (await gates.get(id))?.timeouts === 2)
      expectNear((await gates.get(id))?.deadline, (two?.at.getTime() ?? 0) + HOUR_MS, 'its third deadline')

      expectNear(await gates.extend(id, '2h'), trueNow() + 2 * HOUR_MS, 'more time')
      const soon = await gates.extend(id, '500ms')
      expectNear(soon, trueNow() + 500, 'less time')
      expect(await run.result({ signal: within(20_000) })).toBe(3)
      const ended = await gates.get(id)
      expect(ended?.endedAt?.getTime()).toBeGreaterThanOrEqual(soon.getTime() - 2)
      expectNear(ended?.endedAt, soon.getTime(), 'its end')

      const other = await start('is answered')
      const gate = await gateOf(rig.flow, other.id)
      await gates.signalById(gate.id)
      expectNear(new Date(Number(await other.result())), trueNow(), 'answered')
    })
  },
)
