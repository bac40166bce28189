import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import type { Run } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import { rows, three } from './programs/rows.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const ROWS = { KILL_ROWS: '1' }
const SLOW = { ...ROWS, KILL_STEP_MS: '400' }
const WHOLE = 'one two three'

async function begun(rig: Rig, env: Record<string, string>, name: string): Promise<{ victim: Child; run: Run }> {
  const [victim] = await Promise.all([rig.start('worker', {}, env), rig.engine()])
  const run = await rig.materialize(three, undefined, rows)
  await until(`${name} runs`, () => rig.noted().some((line) => line.startsWith(name)))
  return { victim, run }
}

describe('a worker in the middle of assets that follow one another', () => {
  it.each([
    ['one', ['one 1', 'one 2', 'two 1', 'three 1']],
    ['two', ['one 1', 'two 1', 'two 2', 'three 1']],
    ['three', ['one 1', 'two 1', 'three 1', 'three 2']],
  ])('that is killed in %s leaves that and the rest to another one', async (name, ran) => {
    await using rig = await startRig()
    const { victim, run } = await begun(rig, SLOW, name)
    await victim.kill()
    await rig.start('worker', {}, ROWS)
    expect(await run.result()).toBe(WHOLE)
    expect(rig.noted()).toEqual(ran)
    await rig.expectStateIsFold()
  })

  it('that was stopped for long, and wakes up, makes nothing count twice', async () => {
    await using rig = await startRig()
    const { victim, run } = await begun(rig, SLOW, 'two')
    victim.signal('SIGSTOP')
    await rig.start('worker', {}, ROWS)
    expect(await run.result()).toBe(WHOLE)
    victim.signal('SIGCONT')
    await until('it has let go of its task', async () => (await left(rig)) === 0)
    expect(await rig.facts('asset.rows.*.*.end.*')).toBe(3)
    await rig.expectStateIsFold()
  })

  it('goes on while the engine is killed and another one takes over', async () => {
    await using rig = await startRig()
    const [engine] = await Promise.all([rig.engine(), rig.start('worker', {}, SLOW)])
    const run = await rig.materialize(three, undefined, rows)
    await until('two runs', () => rig.noted().includes('two 1'))
    await engine.kill()
    await rig.engine()
    expect(await run.result()).toBe(WHOLE)
    expect(rig.noted()).toEqual(['one 1', 'two 1', 'three 1'])
    await rig.expectStateIsFold()
  })
})

async function left(rig: Rig): Promise<number> {
  const jsm = await jetstreamManager(rig.nc)
  return (await jsm.streams.info(`${rig.flow.namespace}_WORK_0`)).state.messages
}
