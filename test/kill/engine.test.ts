import { describe, expect, it } from 'vitest'
import { parseRunId, runIdForKey } from '../../streams/ids.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'
import { list, stream } from './programs/pipelines.ts'
import { type Child, pair, startRig } from './rig.ts'

/**
 * Longest time without an active engine. The claim's time to live is 2 s. The standby waits 200 ms
 * more. The rest is for a machine that runs other tests beside this one.
 */
const TAKE_OVER_MAX_MS = 5000

function tookOverAfter(killedMs: number, heir: Child): number {
  return (heir.of('engine.active').at(-1)?.atMs ?? Number.NaN) - killedMs
}

/** A key whose run is in this partition of the log. */
function keyIn(shard: number, shards: number): string {
  for (let i = 1; ; i++) if (parseRunId(runIdForKey(`run ${i}`, shards)).shard === shard) return `run ${i}`
}

describe('an engine that is killed', () => {
  it.each([4600])('when %i instances are done is followed by its standby', async (done) => {
    await using rig = await startRig()
    const { victim, heir } = await pair(rig)
    const run = await rig.materialize(list)
    await rig.progress(run, 'list', done)
    expect(heir.of('engine.active')).toEqual([])
    const killedMs = Date.now()
    await victim.kill()
    await heir.has('engine.active')
    console.info(`take-over after ${tookOverAfter(killedMs, heir)} ms`)
    expect(tookOverAfter(killedMs, heir)).toBeLessThan(TAKE_OVER_MAX_MS * busy())
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('while keys still come in is followed by its standby, and that one by the next', async () => {
    await using rig = await startRig()
    const { victim, heir } = await pair(rig)
    const standbys = [heir, await rig.start('engine')]
    const run = await rig.materialize(stream)
    await until('some key chunks are stored', async () => ((await rig.barrier(run, 'stream'))?.keyChunks ?? 0) >= 2)
    await victim.kill()
    // Both wait for the same claim: which one gets it is chance.
    const active = (): Child[] => standbys.filter((standby) => standby.of('engine.active').length > 0)
    await until('one of the two is active', () => active().length > 0)
    const [next] = active()
    await next?.kill()
    await until('the other one is active', () => active().length === 2)
    await rig.expectWhole(run, 'stream')
    await rig.expectStateIsFold()
  })

  it('with nobody else there is followed by one that is started later', async () => {
    await using rig = await startRig()
    const [worker, victim] = await Promise.all([rig.start('worker'), rig.engine()])
    const run = await rig.materialize(list)
    await rig.progress(run, 'list', 1000)
    await victim.kill()
    // The worker runs dry: what was leased is done, and nobody feeds it.
    let seen = -1
    await until('the worker has run dry', async () => {
      const before = seen
      seen = worker.of('lease.stop').length
      return before === seen && worker.of('task.received').filter(({ kind }) => kind === 'lease').length === seen
    })
    await rig.start('engine')
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('with all three shards is followed by its standby in all three', async () => {
    await using rig = await startRig({ shards: 3 })
    const { victim, heir } = await pair(rig)
    await rig.start('worker')
    // Keys that fall into all three shards, and not ids that chance makes.
    const keys = [0, 1, 2].map((shard) => keyIn(shard, 3))
    const runs = await Promise.all(keys.map((key) => rig.materialize(list, key)))
    expect(new Set(runs.map(({ id }) => id.split('-')[0])).size).toBe(3)
    const done = async (): Promise<boolean> =>
      (await Promise.all(runs.map((run) => rig.barrier(run, 'list')))).every(
        (barrier) => (barrier?.succeeded ?? 0) > 100,
      )
    await until('all have begun', done)
    const killedMs = Date.now()
    await victim.kill()
    await until('the standby has all shards', () => heir.of('engine.active').length === 3)
    expect(tookOverAfter(killedMs, heir)).toBeLessThan(TAKE_OVER_MAX_MS * busy())
    for (const run of runs) await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })
})

it('an engine that was stopped changes nothing when it wakes up, stands by, and takes over when the other one is killed', async () => {
  await using rig = await startRig()
  const { victim: sleeper, heir } = await pair(rig)
  const run = await rig.materialize(list)
  await rig.progress(run, 'list', 1500)
  sleeper.signal('SIGSTOP')
  await heir.has('engine.active')
  await rig.expectWhole(run, 'list')
  const doc = heir.of('engine.active').at(-1)
  const before = await rig.state()
  const seqs = await rig.stateSeqs()

  sleeper.signal('SIGCONT')
  await sleeper.has('engine.standby')
  expect(sleeper.of('engine.standby').map(({ reason }) => reason)).toEqual([
    expect.stringMatching(/^(claim_lost|fenced)$/),
  ])
  expect(await rig.state()).toEqual(before)
  expect(await rig.stateSeqs(), 'nothing was written').toEqual(seqs)
  expect(heir.of('engine.standby'), 'the heir stays').toEqual([])
  expect(heir.of('engine.active')).toEqual([doc])

  const killedMs = Date.now()
  await heir.kill()
  await until('it is at work again', () => sleeper.of('engine.active').length === 2)
  expect(tookOverAfter(killedMs, sleeper)).toBeLessThan(TAKE_OVER_MAX_MS * busy())
  const next = await rig.materialize(list)
  await rig.expectWhole(next, 'list')
  await rig.expectStateIsFold()
})
