import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

interface Step {
  readonly name: string
  readonly attempt: number
  readonly worker: string
  readonly key: string
}

/** first ← second ← third, each with what `code` does there. */
function row(code: Partial<Record<'first' | 'second' | 'third', (attempt: number) => unknown>> = {}) {
  const ran: Step[] = []
  const run = async (
    name: 'first' | 'second' | 'third',
    ctx: { attempt: number; idempotencyKey: string; resources: object },
  ): Promise<void> => {
    const { attempt, idempotencyKey: key, resources } = ctx
    ran.push({ name, attempt, key, worker: String(Reflect.get(resources, 'worker')) })
    await code[name]?.(attempt)
  }
  const retry = { backoff: '10ms..10ms' } as const
  const first = asset('first', {
    retry,
    execute: async (ctx) => {
      await run('first', ctx)
      return { of: ['first'] }
    },
  })
  const second = asset('second', {
    retry,
    dependsOn: [first],
    execute: async (ctx, deps) => {
      await run('second', ctx)
      return { of: [...deps.first.of, 'second'] }
    },
  })
  const third = asset('third', {
    retry,
    dependsOn: [first, second],
    execute: async (ctx, deps) => {
      await run('third', ctx)
      return { of: [...deps.second.of, 'third'] }
    },
  })
  const steps = (): string[] => ran.map(({ name, attempt, worker }) => `${name}.${attempt} ${worker}`)
  return { ran, steps, first, second, third, row: pipeline('row', [first, second, third]) }
}

const WHOLE = { of: ['first', 'second', 'third'] }
const worker = (name: string) => ({ resources: { worker: name } })

async function tasksSent({ namespace }: Stage): Promise<number> {
  const nc = await connectNats({ servers: server.url })
  try {
    return (await (await jetstreamManager(nc)).streams.info(`${namespace}_WORK_0`)).state.last_seq
  } finally {
    await nc.close()
  }
}

describe('assets that follow one another', () => {
  it('come with one task, each with its own value, key and fact', async () => {
    const { row: all, third, ran, steps } = row()
    await using stage = await openStage(server.url, all, { worker: worker('one') })
    const run = await stage.flow.materialize(third)
    expect(await run.result()).toEqual(WHOLE)
    expect(steps()).toEqual(['first.1 one', 'second.1 one', 'third.1 one'])
    expect(new Set(ran.map(({ key }) => key)).size).toBe(3)
    expect(await tasksSent(stage)).toBe(1)
    const facts = await factsOf(stage.flow, run.id)
    expect(facts.map(({ kind }) => kind).filter((kind) => kind === 'asset.materialized')).toHaveLength(3)
  })

  it('are current by what they were made of, as if each had had a task of its own', async () => {
    const { row: all, third, ran } = row()
    await using stage = await openStage(server.url, all)
    await (await stage.flow.materialize(third)).result()
    const again = await stage.flow.materialize(third, { upstream: 'stale' })
    expect(await again.result()).toEqual(WHOLE)
    // The target is always made.
    expect(ran.map(({ name }) => name)).toEqual(['first', 'second', 'third', 'third'])
  })

  it('fail and are retried one by one: what was made before is not made again', async () => {
    const {
      row: all,
      third,
      steps,
    } = row({
      second: (attempt) => {
        if (attempt < 3) throw new Error('not yet')
      },
    })
    await using stage = await openStage(server.url, all, { worker: worker('one') })
    expect(await (await stage.flow.materialize(third)).result()).toEqual(WHOLE)
    expect(steps()).toEqual(['first.1 one', 'second.1 one', 'second.2 one', 'second.3 one', 'third.1 one'])
  })

  it('are left to another worker by one that stops, at no attempt', async () => {
    const gate = Promise.withResolvers<void>()
    const { row: all, third, steps } = row({ first: () => gate.promise })
    await using stage = await openStage(server.url, all, { worker: worker('one') })
    const run = await stage.flow.materialize(third)
    await until('it runs', () => steps().length === 1)
    const stopping = stage.worker?.stop()
    gate.resolve()
    await stopping
    await stage.flow.worker(all, worker('two'))
    expect(await run.result()).toEqual(WHOLE)
    expect(steps()).toEqual(['first.1 one', 'second.1 two', 'third.1 two'])
    expect((await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'attempt.ended')).toEqual([])
  })

  it('wait for their turn again when the first took a second: what is more urgent comes first', async () => {
    const gate = Promise.withResolvers<void>()
    const { row: all, third, steps } = row({ first: () => gate.promise })
    const urgent = asset('urgent', { priority: 0, execute: () => steps().length })
    const both = pipeline('row', [...all.assets, urgent])
    await using stage = await openStage(server.url, both, { worker: { ...worker('one'), concurrency: 1 } })
    const run = await stage.flow.materialize(third, { pipeline: both })
    await until('it runs', () => steps().length === 1)
    const startedMs = performance.now()
    const other = await stage.flow.materialize(urgent)
    await until('the other is queued', async () => (await other.status())?.assets.urgent?.status === 'queued')
    await until('a second has passed', () => performance.now() - startedMs > 1050)
    gate.resolve()
    expect(await other.result()).toBe(1)
    expect(await run.result()).toEqual(WHOLE)
    expect(steps()).toEqual(['first.1 one', 'second.1 one', 'third.1 one'])
  })

  it('end with their run when it is cancelled in the middle', async () => {
    const running = Promise.withResolvers<void>()
    const {
      row: all,
      third,
      steps,
    } = row({
      second: () => {
        running.resolve()
        return new Promise(() => undefined)
      },
    })
    await using stage = await openStage(server.url, all, { worker: worker('one') })
    const run = await stage.flow.materialize(third)
    await running.promise
    await run.cancel('enough')
    await rejection(run.result())
    expect(steps()).toEqual(['first.1 one', 'second.1 one'])
    await until('the worker has let go', () => stage.worker?.busy === 0)
  })

  it('wait at a gate in the middle, and what follows comes after the signal', async () => {
    const open = Promise.withResolvers<string>()
    const first = asset('first', { execute: () => 1 })
    const second = asset('second', {
      dependsOn: [first],
      execute: async (ctx) => {
        const gate = await ctx.openGate({ timeout: '1h' })
        open.resolve(gate.token)
        return gate.wait()
      },
    })
    const third = asset('third', { dependsOn: [second], execute: (_, deps) => ({ answer: deps.second }) })
    const secrets = [{ id: 'k', secret: 's'.repeat(32) }]
    await using stage = await openStage(server.url, pipeline('waits', [first, second, third]), { gates: { secrets } })
    const run = await stage.flow.materialize(third)
    await stage.flow.gates.signal(await open.promise, 'yes')
    expect(await run.result()).toEqual({ answer: 'yes' })
  })
})
