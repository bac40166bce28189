import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, type InstanceOptions, pipeline } from '../../src/index.ts'
import { STALE_MS } from '../../src/worker/control/watch.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const limit = () => ({ signal: within(60_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)

/** A scatter whose instances wait, the `free` that begin first aside, until `open` is called. */
function gated(count: number, free: number, options: InstanceOptions = {}) {
  const gate = Promise.withResolvers<void>()
  const started: string[] = []
  const work = asset('work', {
    retry: { maxAttempts: 1 },
    scatterOptions: options,
    scatter: () => range(count),
    execute: async ({ index, attempt }) => {
      if (started.push(`${index}/${attempt}`) > free) await gate.promise
      return index
    },
    gather: async (results) => {
      let sum = 0
      for await (const { value } of results) sum += value ?? 0
      return sum
    },
  })
  return { work, started, open: gate.resolve }
}

describe('a scatter that is paused', () => {
  it.each<[string, InstanceOptions]>([
    ['without a limited queue', {}],
    ['with a limited queue', { maxConcurrent: 3 }],
  ])(
    '%s ends what runs, begins nothing more, says so, and goes on when it is resumed; no attempt is lost',
    async (_, options) => {
      const { work, started, open } = gated(300, 2, options)
      await using stage = await openStage(server.url, pipeline('pausing', [work]), {
        worker: { concurrency: 3, drainTimeout: '1s' },
      })
      const run = await stage.flow.materialize(work)
      const id = `${run.id}.work`
      const { scatter } = stage.flow
      await until('three are at work', () => started.length === 5)
      await scatter.pause(id, 'the site is down')
      await scatter.pause(id)
      await until('it is paused', async () => (await scatter.status(id).catch(() => undefined))?.paused !== undefined)
      const before = await scatter.status(id)
      expect(before.paused?.reason).toBe('the site is down')
      expect(before.waitingFor[0]).toMatch(/^somebody to resume it: paused since .* \(the site is down\)$/)
      open()
      await until('what ran is done', async () => (await scatter.status(id)).succeeded === 5)
      await until('all else has come back', async () => (await scatter.status(id)).leased === 0)
      expect(started).toHaveLength(5)
      expect(await scatter.status(id)).toMatchObject({ status: 'open', pending: 295, failed: 0 })
      expect((await stage.flow.scatter.list(run.id))[0]?.paused).toBeDefined()

      await scatter.resume(id)
      expect(await run.result(limit())).toBe((300 * 299) / 2)
      // Each once, and each with its one attempt.
      expect(started.toSorted()).toEqual(
        range(300)
          .map((i) => `${i}/1`)
          .toSorted(),
      )
      await until('the state says so', async () => (await scatter.status(id)).status === 'completed')
      expect((await scatter.status(id)).paused).toBeUndefined()
      // The end has the last word.
      await scatter.pause(id)
      await scatter.resume(id)
    },
  )

  it('while no engine runs begins nothing more when the next engine folds what came before the pause', async () => {
    const { work, started, open } = gated(5000, 0)
    const other = asset('other', { execute: () => 1 })
    const both = pipeline('behind', [work, other])
    await using stage = await openStage(server.url, both, { worker: { concurrency: 4 } })
    const { flow } = stage
    const run = await flow.materialize(work)
    await until('four run', () => started.length === 4)
    await stage.engine?.stop()
    open()
    // What the worker holds ends. The engine that folds it next leases more of the scatter.
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const tasks = async (): Promise<number> => (await jsm.streams.info(`${stage.namespace}_WORK_0`)).state.messages
    await until('the worker has ended all that was leased', async () => (await tasks()) === 0)
    await nc.close()
    const begun = started.length
    expect(begun).toBeLessThan(5000)
    // What the next engine has to do before it comes to the pause.
    await Promise.all(range(1200).map(() => flow.materialize(other)))
    const { scatter } = flow
    await scatter.pause(`${run.id}.work`)
    // A worker trusts the state for STALE_MS. The pause is older than that when the engine comes.
    // Nothing but the clock says so.
    await sleep(2 * STALE_MS)
    await (await flow.engine()).active
    await until('it is paused', async () => (await scatter.status(`${run.id}.work`)).paused !== undefined)
    await until('nothing is leased', async () => (await scatter.status(`${run.id}.work`)).leased === 0)
    expect(started).toHaveLength(begun)
    await scatter.resume(`${run.id}.work`)
    expect(await run.result(limit())).toBe((5000 * 4999) / 2)
  })

  it('a scatter that is paused stays so when engine and workers are replaced, and its retries that come due are held', async () => {
    const { work, started, open } = gated(40, 0)
    const flaky = asset('flaky', {
      scatterOptions: { retry: { maxAttempts: 2, backoff: '400ms' } },
      scatter: () => range(3),
      execute: ({ index, attempt }) => {
        started.push(`flaky ${index}/${attempt}`)
        if (attempt === 1) throw new Error('not yet')
        return index
      },
    })
    const both = pipeline('replaced', [work, flaky])
    await using stage = await openStage(server.url, both, { worker: { concurrency: 4, drainTimeout: '1s' } })
    const { scatter } = stage.flow
    const second = await stage.flow.materialize(flaky)
    await until('all failed once', () => started.length === 3)
    await scatter.pause(`${second.id}.flaky`)
    const run = await stage.flow.materialize(work)
    const ids = [`${run.id}.work`, `${second.id}.flaky`] as const
    await until('four are at work', () => started.length === 7)
    await scatter.pause(ids[0])
    for (const id of ids) {
      const paused = async () => (await scatter.status(id).catch(() => undefined))?.paused !== undefined
      await until('the state knows', paused)
    }
    open()
    for (const id of ids) {
      await until('nothing is out', async () => (await scatter.status(id)).leased === 0)
    }
    await until('retries are held', async () => (await scatter.status(ids[1])).waitingForRetry === 3)
    await stage.worker?.stop()
    await stage.engine?.stop()
    const begun = started.length

    const other = await stage.connect()
    const engine = await other.engine()
    await engine.active
    await other.worker(both, { concurrency: 4 })
    const third = await other.materialize(flaky, { pipeline: both, key: 'another' })
    // The same worker and engine do what is not paused.
    await third.result(limit())
    expect(started.filter((line) => line.startsWith('flaky'))).toHaveLength(9)
    expect(started.length).toBe(begun + 6)
    for (const id of ids) {
      expect(await scatter.status(id)).toMatchObject({ status: 'open', paused: { reason: undefined } })
      await scatter.resume(id)
    }
    expect(await run.result(limit())).toBe((40 * 39) / 2)
    expect(await second.result(limit())).toHaveLength(3)
  })

  it.each<[string, InstanceOptions]>([
    ['a slot, all in one lease', { slots: { bucket: 'one-lease', max: 1 } }],
    ['a turn of a rate limit', { rateLimit: [5, 'second'] }],
  ])(
    'that wait in a worker for %s are not begun while their scatter is paused, and lose no attempt',
    async (_, options) => {
      const { work, started, open } = gated(60, 2, options)
      await using stage = await openStage(server.url, pipeline('waiting', [work]), { worker: { concurrency: 10 } })
      const { scatter } = stage.flow
      const run = await stage.flow.materialize(work)
      const id = `${run.id}.work`
      await until('one waits at work', () => started.length >= 3)
      await scatter.pause(id)
      await until('it is paused', async () => (await scatter.status(id)).paused !== undefined)
      await until('all but what runs has come back', async () => (await scatter.status(id)).leased <= started.length)
      const begun = started.length
      open()
      await until('what ran is done', async () => (await scatter.status(id)).leased === 0)
      expect(started).toHaveLength(begun)
      await scatter.resume(id)
      expect(await run.result({ signal: within(40_000) })).toBe((60 * 59) / 2)
      expect(new Set(started).size).toBe(60)
      expect(started.every((line) => line.endsWith('/1'))).toBe(true)
    },
  )

  it('a scatter that is paused can be cancelled, and one that nobody knows cannot be paused', async () => {
    const { work, open } = gated(50, 1)
    await using stage = await openStage(server.url, pipeline('ended', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('one is done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 1)
    await scatter.pause(id)
    await scatter.cancel(id)
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled' })
    expect(await rejection(scatter.pause('0-nobody.work'))).toMatchObject({ code: 'not_found' })
    expect(await rejection(scatter.resume(`${run.id}.wrok`))).toMatchObject({ code: 'not_found' })
    open()
  })
})

describe('totalTimeout', () => {
  it('totalTimeout fails the whole scatter with timeout, also a partial one, and aborts what runs', async () => {
    const aborted: number[] = []
    const slow = asset('slow', {
      scatterOptions: { totalTimeout: '3s', failureMode: 'partial', failureThreshold: 1 },
      scatter: () => range(6),
      execute: async ({ index, signal }) => {
        if (index < 2) return index
        return await new Promise<number>(() => signal.addEventListener('abort', () => aborted.push(index)))
      },
    })
    await using stage = await openStage(server.url, pipeline('limited', [slow]), { worker: { concurrency: 10 } })
    const run = await stage.flow.materialize(slow)
    const error = await rejection(run.result(limit()))
    expect(error).toMatchObject({ code: 'timeout', asset: 'slow' })
    expect(error.message).toContain('longer than its totalTimeout of 3000 ms; 2 of 6 instances were done')
    await until('what ran is aborted', () => aborted.length === 4, 5000)
    const facts = await factsOf(stage.flow, run.id)
    const at = (kind: string) => facts.find((fact) => fact.kind === kind)?.at.getTime() ?? 0
    expect(at('scatter.timer_fired') - at('scatter.started')).toBeGreaterThanOrEqual(2999)
    expect(at('scatter.timer_fired') - at('scatter.started')).toBeLessThan(5500 * busy())
    expect(at('scatter.closed') - at('scatter.timer_fired')).toBeLessThan(4000 * busy())
    await until(
      'the state says so',
      async () => (await stage.flow.scatter.status(`${run.id}.slow`)).status === 'failed',
    )
    expect(stage.lines.join()).not.toContain('stepped over')
    expect(await stage.flow.scatter.status(`${run.id}.slow`)).toMatchObject({ error: { code: 'timeout' }, failed: 0 })
  })

  it('totalTimeout holds while no process runs, and is gone with the scatter', async () => {
    const forever = new Promise<number>(() => undefined)
    const work = asset('work', {
      scatterOptions: { totalTimeout: '2s' },
      scatter: () => range(20),
      execute: ({ index, resources }) => (Reflect.get(resources, 'stuck') === true ? forever : index),
    })
    const all = pipeline('alone', [work])
    const stuck = { concurrency: 30, resources: { stuck: true }, drainTimeout: 0 }
    await using stage = await openStage(server.url, all, { worker: stuck })
    const run = await stage.flow.materialize(work)
    const { scatter } = stage.flow
    await until('it is open', async () => (await scatter.status(`${run.id}.work`).catch(() => undefined)) !== undefined)
    await stage.engine?.stop()
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const stream = `${stage.namespace}_LOG_0`
    const onLog = async (subject: string) =>
      (await jsm.streams.getMessage(stream, { last_by_subj: `${stage.namespace}.log.0.scatter.${subject}` })) ??
      undefined
    await until(
      'the server says that time is over',
      async () => (await onLog(`${run.id}.work.timer_fired`)) !== undefined,
    )
    const other = await stage.connect()
    await other.engine()
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'timeout' })
    await stage.worker?.stop()

    await other.worker(all)
    const quick = await other.materialize(work, { pipeline: all, key: 'quick' })
    expect(await quick.result(limit())).toHaveLength(20)
    expect(await onLog(`${quick.id}.work.timer`)).toBeUndefined()
    await nc.close()
  })

  it('totalTimeout leaves no timer behind when many scatters end at once, and a rebuild steps over it', async () => {
    const work = asset('work', {
      scatterOptions: { totalTimeout: '1h' },
      scatter: () => range(3),
      execute: ({ index }) => index,
    })
    await using stage = await openStage(server.url, pipeline('many', [work]), { worker: { concurrency: 30 } })
    const runs = await Promise.all(range(40).map((n) => stage.flow.materialize(work, { key: `k${n}` })))
    await Promise.all(runs.map((run) => run.result(limit())))
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const timers = async () => {
      const filter = `${stage.namespace}.log.0.scatter.*.*.timer`
      const info = await jsm.streams.info(`${stage.namespace}_LOG_0`, { subjects_filter: filter })
      return Object.keys(info.state.subjects ?? {})
    }
    expect(await timers()).toEqual([])
    const still = await stage.flow.materialize(work, { key: 'still' })
    await still.result(limit())
    await stage.engine?.stop()
    const before = await stage.flow.scatter.status(`${still.id}.work`)
    await stage.flow.rebuild()
    expect(await stage.flow.scatter.status(`${still.id}.work`)).toEqual(before)
    await nc.close()
  })
})
