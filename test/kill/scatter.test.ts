import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { afterBroken, batch, halfGather, limitedTo, list } from './programs/pipelines.ts'
import { type Child, type Rig, startRig } from './rig.ts'

async function limitedQueues(rig: Rig): Promise<string[]> {
  const jsm = await jetstreamManager(rig.nc)
  const consumers = await collect(jsm.consumers.list(rig.names.work(0)))
  return consumers.map(({ name }) => name).filter((name) => rig.names.parseLimitedQueue(name) !== undefined)
}

/**
 * How many ran at a time at the most. Each line is one write at the end of one file, so they stand
 * in the order in which they happened.
 */
function most(lines: readonly string[]): number {
  let now = 0
  let found = 0
  for (const line of lines) {
    now += line === '+' ? 1 : -1
    found = Math.max(found, now)
  }
  return found
}

describe('maxConcurrent over three worker processes', () => {
  it.each(limitedTo.slice(0, 1).map((asset) => [Number(asset.name.split('_')[1]), asset] as const))(
    'of %i is reached and never passed, and its limited queue goes with the scatter',
    async (limit, asset) => {
      await using rig = await startRig()
      await Promise.all([
        rig.engine(),
        ...[1, 2, 3].map(() => rig.start('worker', { concurrency: 25, ackWaitMs: 5000 })),
      ])
      const run = await rig.materialize(asset)
      await until('its limited queue is open', async () => (await limitedQueues(rig)).length === 1)
      const count = { 1: 60, 7: 300, 50: 1500 }[limit] ?? 0
      await rig.expectWhole(run, asset.name, count)
      expect(most(rig.noted())).toBe(limit)
      expect(rig.noted()).toHaveLength(2 * count)
      await until('its limited queue is gone', async () => (await limitedQueues(rig)).length === 0)
      await rig.expectStateIsFold()
    },
  )

  it('maxConcurrent over three worker processes holds while workers are killed, and its limited queue goes all the same when the engine dies at the end', async () => {
    await using rig = await startRig()
    const [, asset] = limitedTo
    const victim = await rig.engine({ reconcileMs: 1000 })
    await rig.start('engine', { reconcileMs: 1000 })
    const settings = { concurrency: 10, ackWaitMs: 1500 }
    // Long enough that all are killed while instances run, however slow the machine.
    const env = { KILL_LIMITED_MS: '100' }
    const workers = await Promise.all([1, 2, 3].map(() => rig.start('worker', settings, env)))
    const run = await rig.materialize(asset)
    for (const [k, worker] of workers.slice(0, 2).entries()) {
      await rig.progress(run, asset.name, 60 + 60 * k)
      await worker.kill()
      await rig.start('worker', settings, env)
    }
    await rig.progress(run, asset.name, 290)
    await victim.kill()
    await rig.expectWhole(run, asset.name, 300)
    await until('its limited queue is gone', async () => (await limitedQueues(rig)).length === 0)
    // A killed instance has begun and never ended: from then on it is counted as if it ran.
    const lines = rig.noted()
    const killed = lines.filter((line) => line === '+').length - lines.filter((line) => line === '-').length
    expect(killed).toBeGreaterThan(0)
    expect(most(lines)).toBeLessThanOrEqual(7 + killed)
    await rig.expectStateIsFold()
  })
})

describe('a worker that is killed', () => {
  it('while what failed is retried as a batch leaves the rest of it to the other one', async () => {
    await using rig = await startRig()
    const [workers] = await Promise.all([Promise.all([rig.start('worker'), rig.start('worker')]), rig.engine()])
    const run = await rig.materialize(batch)
    await until('the second pass is under way', () => rig.noted().length >= 60)
    expect((await rig.barrier(run, 'batch'))?.status).toBe('open')
    await workers[0]?.kill()
    await rig.expectWhole(run, 'batch', 1000)
    expect(new Set(rig.noted()).size).toBe(250)
    await rig.expectStateIsFold()
  })

  it('when its gather has read half of the results leaves the reading to the other one, from the start', async () => {
    await using rig = await startRig()
    const [workers] = await Promise.all([Promise.all([rig.start('worker'), rig.start('worker')]), rig.engine()])
    const run = await rig.materialize(halfGather)
    await until('half is read', () => rig.noted().length === 1)
    const gathers = (worker: Child): boolean =>
      worker.of('materialization.start').some(({ phase }) => phase === 'gather')
    const victim = workers.find(gathers)
    expect(victim).toBeDefined()
    await victim?.kill()
    await rig.expectWhole(run, 'half_gather')
    expect(rig.noted()).toEqual(['half', 'half'])
    await rig.expectStateIsFold()
  })
})

describe('an engine that is killed', () => {
  it('again and again while leases are fed is followed by the next, and feeds the same', async () => {
    await using rig = await startRig()
    await rig.start('worker')
    let engine = await rig.engine()
    const run = await rig.materialize(list)
    for (const done of [1, 800, 2000, 3500]) {
      const heir = await rig.start('engine')
      await rig.progress(run, 'list', done)
      await engine.kill()
      engine = heir
    }
    await rig.expectWhole(run, 'list')
    await rig.expectStateIsFold()
  })
})

it('a redrive goes on when its engine and its worker are killed half way, and runs nothing that had succeeded', async () => {
  await using rig = await startRig()
  const [engine, first] = await Promise.all([rig.engine(), rig.start('worker', {}, { KILL_BROKEN: '1' })])
  const run = await rig.materialize(afterBroken)
  const sum = (3000 * 2999) / 2
  const lost = Array.from({ length: 300 }, (_, i) => i * 10).reduce((total, key) => total + key, 0)
  expect(await run.result()).toEqual({ ok: 2700, sum: sum - lost, failed: 300 })
  await first.stop()

  const [worker, heir] = await Promise.all([rig.start('worker'), rig.start('engine')])
  const again = await rig.flow.scatter.redrive(`${run.id}.broken`)
  await rig.progress(again, 'broken', 60)
  await Promise.all([engine.kill(), worker.kill()])
  await heir.has('engine.active')
  // Asked for once more meanwhile: the same run.
  expect((await rig.flow.scatter.redrive(`${run.id}.broken`)).id).toBe(again.id)
  await rig.start('worker')
  const value = await again.result({ signal: within(30_000) })
  // What its worker had been assigned has failed with its one attempt. A second redrive does those.
  const { failed } = value as { failed: number }
  expect(failed).toBeLessThanOrEqual(300 - 60)
  expect(value).toMatchObject({ ok: 3000 - failed })
  const last = failed === 0 ? again : await rig.flow.scatter.redrive(`${again.id}.broken`)
  expect(await last.result({ signal: within(30_000) })).toEqual({ ok: 3000, sum, failed: 0 })
  await rig.expectStateIsFold()
})
