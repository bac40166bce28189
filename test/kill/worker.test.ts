import { describe, expect, it } from 'vitest'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { list, slow, slowGather, stream } from './programs/pipelines.ts'
import { type Child, startRig } from './rig.ts'

describe('a worker that is killed', () => {
  it.each([4600])('when %i instances are done leaves the rest to the other one', async (done) => {
    await using rig = await startRig()
    const [victim] = await Promise.all([rig.start('worker'), rig.start('worker'), rig.engine()])
    const run = await rig.materialize(list)
    await rig.progress(run, 'list', done)
    await victim.kill()
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('three times over, with nobody else there, leaves the rest to the one started after it', async () => {
    await using rig = await startRig()
    await rig.engine()
    const run = await rig.materialize(list)
    for (const done of [300, 2000, 4000]) {
      const victim = await rig.start('worker')
      await rig.progress(run, 'list', done)
      await victim.kill()
    }
    await rig.start('worker')
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('between two key chunks of its scatter function leaves no key out and none twice', async () => {
    await using rig = await startRig()
    const [victim] = await Promise.all([rig.start('worker'), rig.engine()])
    const run = await rig.materialize(stream)
    const stored = async (fact: string): Promise<number> =>
      (await collect(rig.flow.history(run.id))).filter(({ kind }) => kind === fact).length
    // By the log: the state may show them when there are more, or all.
    await until('some key chunks are stored', async () => (await stored('scatter.items')) >= 3)
    await victim.kill()
    expect(await stored('scatter.sized')).toBe(0)
    await rig.start('worker')
    await rig.expectWhole(run, 'stream')
    expect(rig.noted().filter((line) => line === 'scatter')).toHaveLength(2)
    await rig.expectStateIsFold()
  })

  it('during its gather leaves that to the other one', async () => {
    await using rig = await startRig()
    const [workers] = await Promise.all([Promise.all([rig.start('worker'), rig.start('worker')]), rig.engine()])
    const run = await rig.materialize(slowGather)
    const gathers = (worker: Child): boolean =>
      worker.of('materialization.start').some(({ phase }) => phase === 'gather')
    await until('the gather has begun', () => workers.some(gathers) && rig.noted().includes('gather'))
    const victim = workers.find(gathers)
    await victim?.kill()
    expect(victim).toBeDefined()
    await rig.expectWhole(run, 'slow_gather')
    expect(rig.noted()).toEqual(['gather', 'gather'])
    await rig.expectStateIsFold()
  })
})

it('a worker that was stopped, and wakes up after its leases were split, counts nothing twice', async () => {
  await using rig = await startRig()
  const [sleeper] = await Promise.all([rig.start('worker'), rig.engine()])
  const run = await rig.materialize(slow)
  await until('it has leases in its hands', () => rig.noted().length >= 10)
  sleeper.signal('SIGSTOP')
  await rig.start('worker')
  await rig.progress(run, 'slow', 30)
  const split = async (): Promise<boolean> => {
    for await (const { kind } of rig.flow.history(run.id)) if (kind === 'lease.lost') return true
    return false
  }
  await until('a lease was split', split)
  sleeper.signal('SIGCONT')
  await rig.expectWhole(run, 'slow', 60)
  // The sleeper lives, and its late outcomes are on the log by now, or were refused.
  expect(sleeper.isAlive).toBe(true)
  await rig.expectStateIsFold()
})
