import { describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const limit = () => ({ signal: within(20_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)
const ONCE = { maxAttempts: 1 } as const

/**
 * A scatter over `count` keys `k0`, `k1`, …, of which the `done` that begin first succeed and the
 * rest wait for the gate.
 */
function blocked(count: number, done: number, options: { maxConcurrent?: number } = {}) {
  const gate = Promise.withResolvers<void>()
  const seen = { started: 0, aborted: 0, done: [] as number[] }
  const work = asset('work', {
    retry: ONCE,
    scatterOptions: options,
    scatter: () => range(count).map((n) => `k${n}`),
    execute: async ({ index, signal }) => {
      seen.started += 1
      if (seen.started <= done) {
        seen.done.push(index)
        return index
      }
      // Each by its own signal: one that let the others go would have them succeed before theirs
      // came.
      const aborted = new Promise<void>((resolve) =>
        signal.addEventListener('abort', () => {
          seen.aborted += 1
          resolve()
        }),
      )
      await Promise.race([gate.promise, aborted])
      signal.throwIfAborted()
      return index
    },
  })
  return { work, gate, seen }
}

describe('the status of a scatter', () => {
  it('the status of a scatter says while it is blocked what is done, leased and pending, and why what waits is waiting', async () => {
    const { work, gate } = blocked(100, 3, { maxConcurrent: 2 })
    await using stage = await openStage(server.url, pipeline('blocked', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('three are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 3)
    const status = await scatter.status(id)
    expect(status).toMatchObject({
      id,
      status: 'open',
      total: 100,
      stored: 100,
      succeeded: 3,
      failed: 0,
      timedOut: 0,
      pending: 97,
      waitingForRetry: 0,
      cancelled: 0,
      progress: 3,
      resultsStored: 3,
      redrivable: 0,
      closedAt: undefined,
      error: undefined,
      failuresLeft: 0,
    })
    expect(status.leased).toBeGreaterThan(0)
    expect(status.leased).toBeLessThan(97)
    expect(status.running).toBe(2)
    expect(status.waiting).toBe(97 - status.leased)
    expect(status.waitingFor).toEqual([
      `its limit: maxConcurrent of 2 is used up; ${status.leased - 2} leased instances wait their turn`,
      `room: ${97 - status.leased} instances are fed to workers as others end`,
    ])
    expect(status.longest.length).toBeGreaterThan(0)
    expect(status.longest[0]?.worker).toBe(stage.worker?.id)
    expect(await scatter.list(run.id)).toMatchObject([{ id, pending: 97 }])

    gate.resolve()
    await run.result(limit())
    await until('the state shows the end', async () => (await scatter.status(id)).status === 'completed')
    expect(await scatter.status(id)).toMatchObject({
      succeeded: 100,
      pending: 0,
      leased: 0,
      progress: 100,
      estimatedEnd: undefined,
      waitingFor: [],
      longest: [],
    })
    expect((await scatter.status(id)).closedAt).toBeInstanceOf(Date)
    expect(await scatter.status(id)).toMatchObject({ running: 0, waiting: 0, resultsStored: 100, redrivable: 0 })
  })

  it('the status of a scatter says that what failed waits for its retry, or with batch for the end of the first pass', async () => {
    const gate = Promise.withResolvers<void>()
    const of = (name: string, strategy: 'individual' | 'batch') =>
      asset(name, {
        scatterOptions: { retry: { strategy, maxAttempts: 2, backoff: '1h' } },
        scatter: () => range(10),
        execute: async ({ scatterKey, attempt }) => {
          if (scatterKey < 2 && attempt === 1) throw new Error('not yet')
          if (scatterKey === 9) await gate.promise
          return scatterKey
        },
      })
    const single = of('single', 'individual')
    const batch = of('batch', 'batch')
    await using stage = await openStage(server.url, pipeline('waits', [single, batch]))
    const { scatter } = stage.flow
    for (const [member, why] of [
      [single, /^a retry delay: 2 instances, the next in \d+ ms$/],
      [batch, /^the end of the first pass: 2 failed instances are retried together then$/],
    ] as const) {
      const run = await stage.flow.materialize(member)
      const id = `${run.id}.${member.name}`
      await until('seven are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 7)
      await until('two wait', async () => (await scatter.status(id)).waitingForRetry === 2)
      const status = await scatter.status(id)
      expect(status).toMatchObject({ pending: 3, leased: 1, failed: 0 })
      expect(status.waitingFor).toEqual([expect.stringMatching(why)])
      await run.cancel()
    }
    gate.resolve()
  })

  it('the status of a scatter that nobody knows is not_found, with a hint', async () => {
    const { work, gate } = blocked(3, 1)
    const plain = asset('plain', { dependsOn: [work], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('unknown', [work, plain]))
    const run = await stage.flow.materialize(plain)
    const { scatter } = stage.flow
    await until('it is there', async () => (await scatter.list(run.id).catch(() => [])).length === 1)
    const misspelt = await rejection(scatter.status(`${run.id}.wrok`))
    expect(misspelt).toMatchObject({ code: 'not_found' })
    expect(misspelt.message).toBe(`run ${run.id} has no scatter wrok; did you mean work?`)
    expect((await rejection(scatter.status(`${run.id}.plain`))).message).toContain('is plain: it has no scatter')
    expect(await rejection(scatter.status('0-nobody.work'))).toMatchObject({
      code: 'not_found',
      message: 'scatter 0-nobody.work: there is no run 0-nobody',
    })
    expect(await rejection(scatter.cancel(`${run.id}.wrok`))).toMatchObject({ code: 'not_found' })
    expect(await rejection(scatter.redrive(`${run.id}.wrok`))).toMatchObject({ code: 'not_found' })
    expect(await rejection(collect(scatter.pending(`${run.id}.wrok`)))).toMatchObject({ code: 'not_found' })
    expect((await rejection(scatter.status('work'))).message).toContain('work')
    gate.resolve()
    await run.result(limit())
  })
})

describe('the instances of a scatter', () => {
  it('the instances of a scatter that are pending are listed in order, with their keys; failures only when it is closed', async () => {
    const { work, gate, seen } = blocked(30, 5)
    await using stage = await openStage(server.url, pipeline('pending', [work]), { worker: { concurrency: 8 } })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('five are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 5)
    const left = range(30).filter((n) => !seen.done.includes(n))
    expect(await collect(scatter.pending(id))).toEqual(left.map((n) => ({ index: n, key: `k${n}` })))
    expect(await rejection(collect(scatter.failures(id)))).toMatchObject({ code: 'not_closed' })
    gate.resolve()
    await run.result(limit())
    expect(await collect(scatter.failures(id))).toEqual([])
    await until('none is pending', async () => (await collect(scatter.pending(id))).length === 0)
  })

  it('the instances of a scatter that failed are listed in order, with key and last error', async () => {
    const some = asset('some', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatterOptions: { failureMode: 'partial', failureThreshold: 1 },
      scatter: () => range(20).map((n) => ({ n })),
      execute: ({ scatterKey: { n }, attempt }) => {
        if (n % 5 === 2) throw new Error(`broken at ${n}, attempt ${attempt}`)
        return n
      },
    })
    await using stage = await openStage(server.url, pipeline('failures', [some]))
    const run = await stage.flow.materialize(some)
    await run.result(limit())
    expect(await collect(stage.flow.scatter.failures(`${run.id}.some`))).toEqual(
      [2, 7, 12, 17].map((n) => ({
        index: n,
        key: { n },
        error: { code: 'error', message: `broken at ${n}, attempt 2` },
        attempts: 2,
      })),
    )
    const status = await stage.flow.scatter.status(`${run.id}.some`)
    expect(status).toMatchObject({ status: 'partial_failure', succeeded: 16, failed: 4, failuresLeft: 16 })
    expect(status.error?.message).toMatch(/^broken at \d+, attempt 2$/)
  })
})

describe('cancelling a scatter', () => {
  it('aborts what runs, begins nothing more, fails its asset with cancelled, and may be done twice', async () => {
    const { work, seen } = blocked(50, 4)
    let after = 0
    const next = asset('next', { dependsOn: [work], execute: () => (after += 1) })
    await using stage = await openStage(server.url, pipeline('cancels', [work, next]), { worker: { concurrency: 6 } })
    const run = await stage.flow.materialize(next)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('six are at work', async () => seen.started === 10)
    await until('four are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 4)
    await scatter.cancel(id, 'enough')
    await scatter.cancel(id)
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled', asset: 'work' })
    await until('what ran is aborted', () => seen.aborted === 6)
    await until('the state says so', async () => (await scatter.status(id)).status === 'cancelled')
    expect(await scatter.status(id)).toMatchObject({ succeeded: 4, failed: 0, cancelled: 46, pending: 0, leased: 0 })
    expect([seen.started, after]).toEqual([10, 0])
    expect(await collect(scatter.failures(id))).toEqual([])
    await scatter.cancel(id)
    const closed = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'scatter.closed')
    expect(closed).toHaveLength(1)
  })
})

describe('redrive', () => {
  /**
   * base → work (scatter, gathers [key, value or error code]) → next. `broken` says which keys
   * fail, and may be changed.
   */
  function chain(count: number) {
    const broken = new Set<number>()
    const calls = { base: 0, instances: [] as number[], gather: 0, next: 0 }
    const base = asset('base', { execute: () => 1000 + ++calls.base })
    const work = asset('work', {
      dependsOn: [base],
      retry: ONCE,
      scatterOptions: { failureMode: 'partial', failureThreshold: 1 },
      scatter: () => range(count),
      execute: ({ scatterKey }, deps) => {
        calls.instances.push(scatterKey)
        if (broken.has(scatterKey)) throw new Error(`broken at ${scatterKey}`)
        return scatterKey + deps.base
      },
      gather: async (results) => {
        calls.gather += 1
        const list: [number, number, number | string][] = []
        for await (const { index, key, value, ...rest } of results)
          list.push([index, key, rest.status === 'failed' ? rest.error.message : (value ?? -1)])
        return list
      },
    })
    const next = asset('next', {
      dependsOn: [work],
      execute: (_, deps) => {
        calls.next += 1
        return deps.work
      },
    })
    return { broken, calls, next, all: pipeline('redriven', [base, work, next]) }
  }
  const gathered = (count: number, failed: readonly number[] = []) =>
    range(count).map((n) => [n, n, failed.includes(n) ? `broken at ${n}` : n + 1001])

  it('redrive runs only what did not succeed, gathers both in order, runs what follows, and takes upstream values as they are', async () => {
    const { broken, calls, next, all } = chain(12)
    for (const n of [1, 5, 6, 11]) broken.add(n)
    await using stage = await openStage(server.url, all)
    const first = await stage.flow.materialize(next)
    expect(await first.result(limit())).toEqual(gathered(12, [1, 5, 6, 11]))
    broken.clear()
    calls.instances = []
    const second = await stage.flow.scatter.redrive(`${first.id}.work`)
    expect(second.id).not.toBe(first.id)
    expect(await second.result(limit())).toEqual(gathered(12))
    expect(calls.instances.toSorted((a, b) => a - b)).toEqual([1, 5, 6, 11])
    expect(calls).toMatchObject({ base: 1, gather: 2, next: 2 })
    const closed = (await factsOf(stage.flow, second.id)).filter(({ kind }) => kind === 'scatter.closed')
    expect(closed.map(({ data }) => data)).toMatchObject([{ status: 'completed', total: 4, succeeded: 4 }])
  })

  it('asked for twice gives the same run, and runs once', async () => {
    const { broken, calls, next, all } = chain(5)
    broken.add(3)
    await using stage = await openStage(server.url, all)
    const first = await stage.flow.materialize(next)
    await first.result(limit())
    broken.clear()
    calls.instances = []
    const { scatter } = stage.flow
    const [one, two] = await Promise.all([scatter.redrive(`${first.id}.work`), scatter.redrive(`${first.id}.work`)])
    expect(two.id).toBe(one.id)
    expect(await one.result(limit())).toEqual(gathered(5))
    const three = await scatter.redrive(`${first.id}.work`)
    expect(three.id).toBe(one.id)
    expect(await three.result(limit())).toEqual(gathered(5))
    expect(calls.instances).toEqual([3])
    expect(calls).toMatchObject({ base: 1, next: 2 })
  })

  it('redrive of a redrive goes on with what that left', async () => {
    const { broken, calls, next, all } = chain(10)
    for (const n of [0, 4, 7, 9]) broken.add(n)
    await using stage = await openStage(server.url, all)
    const first = await stage.flow.materialize(next)
    await first.result(limit())
    const ran: number[][] = []
    let last = first
    for (const left of [[4, 9], [9], []]) {
      calls.instances = []
      broken.clear()
      for (const n of left) broken.add(n)
      last = (await stage.flow.scatter.redrive(`${last.id}.work`)) as typeof first
      expect(await last.result(limit())).toEqual(gathered(10, left))
      ran.push(calls.instances.toSorted((a, b) => a - b))
    }
    expect(ran).toEqual([[0, 4, 7, 9], [4, 9], [9]])
    expect(calls).toMatchObject({ base: 1, gather: 4, next: 4 })
    expect((await rejection(stage.flow.scatter.redrive(`${last.id}.work`))).message).toContain('nothing that failed')
  })

  it('redrive runs what was never begun, after a cancel', async () => {
    const { work, seen, gate } = blocked(20, 5)
    await using stage = await openStage(server.url, pipeline('cancelled', [work]), { worker: { concurrency: 3 } })
    const first = await stage.flow.materialize(work)
    const id = `${first.id}.work`
    const { scatter } = stage.flow
    await until('five are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 5)
    await scatter.cancel(id)
    await rejection(first.result(limit()))
    await until('what ran is aborted', () => seen.aborted === 3)
    gate.resolve()
    seen.started = 0
    const second = await scatter.redrive(id)
    expect(await second.result(limit())).toEqual(range(20).map((n) => ({ key: `k${n}`, value: expect.any(Number) })))
    expect(seen.started).toBe(15)
  })

  it('redrive is refused while the scatter runs, and when nothing failed', async () => {
    const { work, gate } = blocked(6, 1)
    await using stage = await openStage(server.url, pipeline('refused', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('one is done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 1)
    const early = await rejection(scatter.redrive(id))
    expect(early).toMatchObject({ code: 'not_redrivable' })
    expect(early.message).toBe(`scatter ${id} is still running; cancel it first, or wait`)
    gate.resolve()
    await run.result(limit())
    const late = await rejection(scatter.redrive(id))
    expect(late).toMatchObject({ code: 'not_redrivable' })
    expect(late.message).toBe(`scatter ${id} has nothing that failed`)
  })
})
