/** Engines die while runs wait: never more than the limit are active, in order, none is lost. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import { pair, startRig } from './rig.ts'

const RUNS = 24
const LIMIT = 1

it('runs of a key keep their limit and their order while engines are killed, and one that was skipped stays so', async () => {
  const seen = { active: 0, most: 0, began: [] as string[] }
  const job = asset('job', {
    execute: async ({ runId }) => {
      seen.began.push(runId)
      seen.active += 1
      seen.most = Math.max(seen.most, seen.active)
      await sleep(20)
      seen.active -= 1
    },
  })
  const jobs = pipeline('jobs', [job], { concurrency: { limit: LIMIT } })
  await using rig = await startRig({ shards: 2 })
  const { victim, heir } = await pair(rig)
  await rig.flow.worker(jobs)
  // One after the other: the order in which they are stored is that of their turns.
  const runs: { id: string; result(): Promise<unknown> }[] = []
  for (let i = 0; i < RUNS; i++) runs.push(await rig.flow.materialize(job))
  const skipped = await rig.flow.materialize(job, { concurrency: { limit: LIMIT, onConflict: 'skip' } })
  const cancelled = await rig.flow.materialize(job)
  await cancelled.cancel()

  await until('some have begun', () => seen.began.length >= 3)
  await victim.kill()
  await heir.has('engine.active')
  await until('more have begun', () => seen.began.length >= 10)
  await Promise.all([rig.engine(), heir.kill()])

  await Promise.all(runs.map((run) => run.result()))
  await expect(skipped.result()).rejects.toMatchObject({ code: 'run_skipped' })
  await expect(cancelled.result()).rejects.toMatchObject({ code: 'cancelled' })
  expect(seen.most).toBeLessThanOrEqual(LIMIT)
  expect(seen.began).toEqual(runs.map(({ id }) => id))
  await rig.expectStateIsFold()
})
