import { describe, expect, it } from 'vitest'
import { until } from '../kit/until.ts'
import { list, SUM, stream } from './programs/pipelines.ts'
import { pair, type Rig, startRig } from './rig.ts'

/** From the start of the new server to the first lease that is done again. */
async function gapAfterRestart(rig: Rig, worker: { of(event: string): readonly { atMs: number }[] }): Promise<number> {
  await rig.killServer()
  await rig.startServer()
  const readyMs = Date.now()
  await until('leases are run again', () => (worker.of('lease.stop').at(-1)?.atMs ?? 0) > readyMs + 5)
  return (worker.of('lease.stop').find(({ atMs }) => atMs > readyMs + 5)?.atMs ?? Number.NaN) - readyMs
}

describe('a server that is killed and started again', () => {
  it.each([4500])(
    'when %i instances are done: engine and workers go on, and a waiting client gets its result',
    async (done) => {
      await using rig = await startRig({ killsServer: true })
      await rig.engine()
      const worker = await rig.start('worker')
      const run = await rig.materialize(list)
      const result = run.result()
      await rig.progress(run, 'list', done)
      await rig.killServer()
      await rig.startServer()
      const startedMs = Date.now()
      expect(await result).toMatchObject({ sum: SUM })
      console.info(`result ${Date.now() - startedMs} ms after the restart`)
      await rig.expectWhole(run, 'list')
      expect(worker.isAlive).toBe(true)
      await rig.expectStateIsFold()
    },
  )

  it('three times in one run', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.engine()
    const [worker] = await Promise.all([
      rig.start('worker', {}, { KILL_INSTANCE_MS: '10' }),
      rig.start('worker', {}, { KILL_INSTANCE_MS: '10' }),
    ])
    const run = await rig.materialize(list)
    await rig.progress(run, 'list', 200)
    for (let i = 0; i < 3; i++) console.info(`gap ${await gapAfterRestart(rig, worker)} ms`)
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })

  it('while keys still come in: none is left out, none is there twice', async () => {
    await using rig = await startRig({ killsServer: true })
    await Promise.all([rig.start('worker'), rig.engine()])
    const run = await rig.materialize(stream)
    await until('some key chunks are stored', async () => ((await rig.barrier(run, 'stream'))?.keyChunks ?? 0) >= 2)
    await rig.killServer()
    await rig.startServer()
    await rig.expectWhole(run, 'stream')
    await rig.expectStateIsFold()
  })
})

it('a server that is killed while the standby takes over, and the engine before it is dead, is no end either', async () => {
  await using rig = await startRig({ killsServer: true })
  const { victim, heir } = await pair(rig)
  const run = await rig.materialize(list)
  await rig.progress(run, 'list', 2000)
  await victim.kill()
  await heir.has('engine.active')
  await rig.killServer()
  await rig.startServer()
  await rig.expectWhole(run, 'list')
  await rig.expectStateIsFold()
})

it('a server that is killed together with the active engine leaves all to the standby', async () => {
  await using rig = await startRig({ killsServer: true })
  const { victim, heir } = await pair(rig)
  const run = await rig.materialize(list)
  await rig.progress(run, 'list', 2000)
  await Promise.all([victim.kill(), rig.killServer()])
  await rig.startServer()
  await heir.has('engine.active')
  // And once more, in the middle of its first steps.
  await rig.killServer()
  await rig.startServer()
  await rig.expectWhole(run, 'list')
  await rig.expectStateIsFold()
})
