import { describe, expect, it } from 'vitest'
import { asset, type GateView, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }

const server = useServer({ syncInterval: 'default' })

const N = 2000
const tokens = new Map<number, string>()
const jobs = asset('jobs', {
  scatter: () => Array.from({ length: N }, (_, i) => ({ i })),
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 2, backoff: '10ms' } },
  execute: async (ctx) => {
    const gate = await ctx.openGate({ timeout: '1h' })
    tokens.set(ctx.scatterKey.i, gate.token)
    return gate.wait()
  },
  onSignal: (ctx, payload: { value: number }) => {
    if (payload.value < 0) return ctx.fail('the job failed')
    if (payload.value === 0 && ctx.attempt === 1) throw new Error('not yet')
    return payload.value + ctx.scatterKey.i
  },
  gather: async (results) => {
    let sum = 0
    const failed: string[] = []
    for await (const result of results)
      if (result.status === 'ok') sum += Number(result.value)
      else failed.push(`${result.index}: ${result.error.code}`)
    return { sum, failed }
  },
})
const some = asset('some', {
  scatter: () => [1, 2, 3, 4, 5, 6],
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, maxConcurrent: 2, retry: { maxAttempts: 1 } },
  execute: (ctx) => {
    if (ctx.scatterKey === 1) return 'at once'
    return ctx.signalGate({ timeout: ctx.scatterKey === 2 ? '50ms' : '1h', metadata: ctx.scatterKey })
  },
  onSignal: (ctx, payload: string) => (payload === 'again' ? ctx.signalGate({ metadata: 'second' }) : payload),
})
const all = pipeline('instances', [jobs, some])

describe('instances of a scatter at gates', () => {
  it('instances of a scatter at gates wait by the thousands at no cost, go on one by one, and the barrier waits for them', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, all, { gates, worker: { concurrency: 50 } })
    const { flow } = stage
    const run = await flow.materialize(jobs)
    const id = `${run.id}.jobs`
    await until('all wait', async () => (await flow.scatter.status(id).catch(() => undefined))?.suspended === N)
    expect(stage.worker?.busy).toBe(0)
    const status = await flow.scatter.status(id)
    expect(status).toMatchObject({ total: N, succeeded: 0, failed: 0, leased: 0, pending: N })
    expect(status.waitingFor.join()).toContain(`${N}`)
    expect(tokens.size).toBe(N)
    await Promise.all(
      [...tokens].map(([i, token]) => flow.gates.signal(token, { value: i % 10 === 3 ? -1 : i % 10 === 4 ? 0 : 1 })),
    )
    const { sum, failed } = await run.result()
    expect(failed).toHaveLength(N / 10)
    expect(failed.every((line) => /3: terminal$/.test(line))).toBe(true)
    let wanted = 0
    for (let i = 0; i < N; i++) if (i % 10 !== 3) wanted += i + (i % 10 === 4 ? 0 : 1)
    expect(sum).toBe(wanted)
    expect(await flow.scatter.status(id)).toMatchObject({ succeeded: N * 0.9, failed: N * 0.1, suspended: 0 })
  })

  it('give back their place under maxConcurrent, time out, are cancelled, and may wait again', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(some)
    const open = async (): Promise<Map<unknown, GateView>> =>
      new Map(
        (await flow.gates.list(run.id))
          .filter((gate) => gate.status === 'waiting')
          .map((gate) => [gate.metadata, gate]),
      )
    // With two places, six instances all get to their gates.
    let found = await open()
    await until('four wait, and the second key has timed out', async () => {
      found = await open()
      return [...found.keys()].map(Number).toSorted().join() === '3,4,5,6'
    })
    await flow.gates.signalById(found.get(3)?.id ?? '', 'three')
    await flow.gates.cancel(found.get(4)?.id ?? '', 'not needed')
    await flow.gates.signalById(found.get(5)?.id ?? '', 'again')
    await flow.gates.signalById(found.get(6)?.id ?? '', 'six')
    await until('the second gate waits', async () => (await open()).has('second'))
    await flow.gates.signalById((await open()).get('second')?.id ?? '', 'five')
    expect((await run.result()).map(({ key, value }) => [key, value])).toEqual([
      [1, 'at once'],
      [3, 'three'],
      [5, 'five'],
      [6, 'six'],
    ])
    const failures: string[] = []
    for await (const { key, error } of flow.scatter.failures(`${run.id}.some`)) failures.push(`${key} ${error.code}`)
    expect(failures).toEqual(['2 gate_timeout', '4 gate_cancelled'])
  })

  it('end with their scatter: their gates are cancelled', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(some)
    await until('they wait', async () => (await flow.gates.list(run.id)).length === 5)
    await flow.scatter.cancel(`${run.id}.some`)
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
    await until('no gate waits', async () => (await flow.gates.list(run.id)).every((gate) => gate.status !== 'waiting'))
  })
})
