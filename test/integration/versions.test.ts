/**
 * A worker runs a task only with code whose shape is the one that the task was planned with; see
 * docs/assets-and-runs.md.
 */
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { stateKey } from '../../projections/state.ts'
import { asset, type Flow, type Pipeline, pipeline, type Run } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { kindsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const gates = { secrets: [{ id: 'k1', secret: 'x'.repeat(40) }] }

/** Subjects of unmatched tasks, with how many there are. */
async function unmatched({ namespace }: Stage): Promise<Record<string, number>> {
  const nc = await connectNats({ servers: server.url })
  try {
    const jsm = await jetstreamManager(nc)
    const info = await jsm.streams.info(`${namespace}_WORK_0`, {
      subjects_filter: `${namespace}.work.0.*.*.*.unmatched.>`,
    })
    return info.state.subjects ?? {}
  } finally {
    await nc.close()
  }
}

const countUnmatched = async (stage: Stage): Promise<number> =>
  Object.values(await unmatched(stage)).reduce((sum, n) => sum + n, 0)

/** How many messages were ever stored on WORK. */
async function tasksSoFar({ namespace }: Stage): Promise<number> {
  const nc = await connectNats({ servers: server.url })
  try {
    return (await (await jetstreamManager(nc)).streams.info(`${namespace}_WORK_0`)).state.last_seq
  } finally {
    await nc.close()
  }
}

const assetStatus = async (run: Run, name: string): Promise<string | undefined> =>
  (await run.status())?.assets[name]?.status

interface Kind {
  readonly name: string
  /** Version 1 and version 2: the last asset of each is the target. */
  readonly v1: () => Pipeline
  readonly v2: () => Pipeline
  /** Brings the run to where only version 1 may go on; its worker has stopped by then. */
  readonly upTo?: (flow: Flow, run: Run) => Promise<void>
  readonly onward?: (flow: Flow, run: Run) => Promise<void>
  readonly brings: unknown
}

const wrong = (): never => {
  throw new Error('code of version 2 was called for a run of version 1')
}
const keys = async function* (results: AsyncIterable<{ value?: unknown }>): AsyncGenerator<unknown> {
  for await (const { value } of results) yield value
}
async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

const atGate = async (_flow: Flow, run: Run): Promise<void> =>
  until('the run waits at its gate', async () => (await assetStatus(run, 'report')) === 'suspended')
const signal = async (flow: Flow, run: Run): Promise<void> => {
  const gate = (await run.status())?.assets.report?.gate ?? ''
  await flow.gates.signalById(gate, { ok: true })
}

function withSchema(payloadSchema: z.ZodType, onSignal: (payload: unknown) => unknown): ReturnType<typeof asset> {
  return asset('report', {
    payloadSchema,
    execute: (ctx) => ctx.signalGate(),
    onSignal: (_, payload) => onSignal(payload),
  })
}

const kinds: Kind[] = [
  {
    name: 'a dependency was added',
    v1: () => {
      const a = asset('a', { execute: () => 'A' })
      return pipeline('p', [a, asset('report', { dependsOn: [a], execute: (_, deps) => Object.keys(deps) })])
    },
    v2: () => {
      const a = asset('a', { execute: () => 'A' })
      const b = asset('b', { execute: () => 'B' })
      return pipeline('p', [a, b, asset('report', { dependsOn: [a, b], execute: wrong })])
    },
    brings: ['a'],
  },
  {
    name: 'onSignal was removed',
    v1: () =>
      pipeline('p', [asset('report', { execute: (ctx) => ctx.signalGate(), onSignal: (_, payload) => ({ payload }) })]),
    v2: () => pipeline('p', [asset('report', { execute: (ctx) => ctx.signalGate() })]),
    upTo: atGate,
    onward: signal,
    brings: { payload: { ok: true } },
  },
  {
    name: 'onTimeout was added',
    v1: () => pipeline('p', [asset('report', { execute: () => 1 })]),
    v2: () => pipeline('p', [asset('report', { execute: wrong, onTimeout: wrong })]),
    brings: 1,
  },
  {
    name: 'the payload schema was changed',
    v1: () => pipeline('p', [withSchema(z.object({ ok: z.boolean() }), (payload) => ({ payload }))]),
    v2: () => pipeline('p', [withSchema(z.object({ verdict: z.string() }), wrong)]),
    upTo: atGate,
    onward: signal,
    brings: { payload: { ok: true } },
  },
  {
    name: 'the author says that the code expects something else',
    v1: () => pipeline('p', [asset('report', { execute: () => 1 })]),
    v2: () => pipeline('p', [asset('report', { codeVersion: '2', execute: wrong })]),
    brings: 1,
  },
  {
    name: 'a scatter became plain',
    v1: () => pipeline('p', [asset('report', { scatter: () => [1, 2], execute: ({ scatterKey }) => scatterKey * 2 })]),
    v2: () => pipeline('p', [asset('report', { execute: wrong })]),
    brings: [
      { key: 1, value: 2 },
      { key: 2, value: 4 },
    ],
  },
  {
    name: 'a plain asset became a scatter',
    v1: () => pipeline('p', [asset('report', { execute: () => 'plain' })]),
    v2: () => pipeline('p', [asset('report', { scatter: wrong, execute: wrong })]),
    brings: 'plain',
  },
  {
    name: 'gather was removed',
    v1: () =>
      pipeline('p', [
        asset('report', {
          scatter: () => [1, 2],
          execute: ({ scatterKey }) => scatterKey,
          gather: async (results) => (await all(keys(results))).length,
        }),
      ]),
    v2: () => pipeline('p', [asset('report', { scatter: () => [1, 2], execute: wrong })]),
    brings: 2,
  },
  {
    name: 'instances with maxConcurrent got a dependency',
    v1: () =>
      pipeline('p', [
        asset('report', {
          scatter: () => [1, 2],
          scatterOptions: { maxConcurrent: 1 },
          execute: ({ scatterKey }, deps) => [scatterKey, Object.keys(deps)],
        }),
      ]),
    v2: () => {
      const b = asset('b', { execute: () => 'B' })
      const options = { scatter: wrong, scatterOptions: { maxConcurrent: 1 }, execute: wrong } as const
      return pipeline('p', [b, asset('report', { dependsOn: [b], ...options })])
    },
    brings: [
      { key: 1, value: [1, []] },
      { key: 2, value: [2, []] },
    ],
  },
]

describe('a run of version 1 while only version 2 is there', () => {
  it.each(kinds)('waits, and goes on when version 1 is back: $name', async ({ v1, v2, upTo, onward, brings }) => {
    await using stage = await openStage(server.url, v1(), { gates, worker: false })
    const { flow } = stage
    const first = v1()
    const target = first.assets.at(-1)
    if (!target) throw new Error('no target')
    if (upTo) {
      const worker = await flow.worker(first)
      const run = await flow.materialize(target)
      await upTo(flow, run)
      await worker.stop()
      await go(stage, run, v1, v2, onward, brings)
    } else await go(stage, await flow.materialize(target), v1, v2, onward, brings)
  })
})

async function go(
  stage: Stage,
  run: Run,
  v1: () => Pipeline,
  v2: () => Pipeline,
  onward: Kind['onward'],
  brings: unknown,
): Promise<void> {
  const { flow } = stage
  const second = await flow.worker(v2())
  await onward?.(flow, run)
  await until('its task is unmatched', async () => (await countUnmatched(stage)) === 1)
  expect((await run.status())?.finishedAt).toBeUndefined()
  const back = await (await stage.connect({ gates })).worker(v1())
  expect(await run.result()).toEqual(brings)
  expect(await kindsOf(flow, run.id)).not.toContain('attempt.ended')
  // It is acknowledged behind its outcome.
  await until('its task is done', async () => (await countUnmatched(stage)) === 0)
  await Promise.all([second.stop(), back.stop()])
}

/**
 * report needs a (version 1), or a and b (version 2); each says which version ran it. `other` is
 * the same in both.
 */
function version(n: 1 | 2): { shard: Pipeline; report: ReturnType<typeof asset>; other: ReturnType<typeof asset> } {
  const a = asset('a', { execute: () => 'A' })
  const b = asset('b', { execute: () => 'B' })
  const other = asset('other', { execute: () => `other ${n}` })
  const report = asset('report', {
    dependsOn: n === 1 ? [a] : [a, b],
    execute: (_, deps) => `${n}: ${Object.keys(deps).join()}`,
  })
  return { shard: pipeline('p', n === 1 ? [a, report, other] : [a, b, report, other]), report, other }
}

it('instances of a scatter that is open wait for the code that it was begun with', async () => {
  const make = (execute: (ctx: { signal: AbortSignal; scatterKey: number }) => unknown, gather: boolean): Pipeline => {
    const options = { scatter: () => [1, 2, 3], execute }
    const count = { gather: async (results: AsyncIterable<{ value?: unknown }>) => all(keys(results)) }
    return pipeline('p', [gather ? asset('report', { ...options, ...count }) : asset('report', options)])
  }
  let begun = 0
  const untilStopped = make(async ({ signal }) => {
    begun += 1
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }, true)
  await using stage = await openStage(server.url, untilStopped, { worker: { drainTimeout: 1 } })
  const { flow } = stage
  const [report] = untilStopped.assets
  if (!report) throw new Error('no report')
  const run = await flow.materialize(report)
  await until('its instances run', () => begun === 3)
  await (await stage.connect()).worker(make(wrong, false))
  await stage.worker?.stop()
  await until('they are unmatched', async () => (await countUnmatched(stage)) >= 1)
  await (await stage.connect()).worker(make(({ scatterKey }) => scatterKey * 2, true))
  expect(await run.result()).toEqual([2, 4, 6])
})

describe('old and new workers side by side', () => {
  it('each run is made by code of its own version, whoever is asked first', async () => {
    const [v1, v2] = [version(1), version(2)]
    await using stage = await openStage(server.url, v1.shard)
    const { flow } = stage
    const newer = await stage.connect()
    await newer.worker(v2.shard)
    const runs = await Promise.all(
      Array.from({ length: 40 }, (_, i) => {
        const { report } = i % 2 === 0 ? v1 : v2
        return flow.materialize(report, { upstream: 'all' })
      }),
    )
    const values = await Promise.all(runs.map((run) => run.result()))
    expect(values).toEqual(values.map((_, i) => (i % 2 === 0 ? '1: a' : '2: a,b')))
    await until('nothing is unmatched any more', async () => (await countUnmatched(stage)) === 0)
  })

  it('what did not change is made by either of them', async () => {
    const [v1, v2] = [version(1), version(2)]
    await using stage = await openStage(server.url, v2.shard)
    const run = await stage.flow.materialize(v1.other)
    expect(await run.result()).toBe('other 2')
  })

  it('one worker may have both', async () => {
    const [v1, v2] = [version(1), version(2)]
    await using stage = await openStage(server.url, [v1.shard, v2.shard])
    const { flow } = stage
    expect(await (await flow.materialize(v1.report, { pipeline: v1.shard })).result()).toBe('1: a')
    expect(await (await flow.materialize(v2.report, { pipeline: v2.shard })).result()).toBe('2: a,b')
    expect(await countUnmatched(stage)).toBe(0)
  })
})

describe('tasks that nobody here has the code for', () => {
  it('tasks that nobody here has the code for are moved once, and cost nothing more while they wait', async () => {
    const v1 = pipeline('p', [asset('report', { execute: wrong, onTimeout: wrong })])
    const other = asset('other', { execute: () => 'other' })
    await using stage = await openStage(server.url, pipeline('p', [asset('report', { execute: wrong }), other]))
    const { flow } = stage
    const [report] = v1.assets
    if (!report) throw new Error('no report')
    await Promise.all(Array.from({ length: 200 }, () => flow.materialize(report)))
    await until('all are unmatched', async () => (await countUnmatched(stage)) === 200)
    const before = await tasksSoFar(stage)
    for (let i = 0; i < 50; i++) await (await flow.materialize(other)).result()
    // Those of the 50 runs, and nothing else.
    expect((await tasksSoFar(stage)) - before).toBe(50)
    expect(await countUnmatched(stage)).toBe(200)
  })

  it('vanish with their run', async () => {
    const v1 = pipeline('p', [asset('report', { scatter: () => [1], execute: () => 1 })])
    const v2 = pipeline('p', [asset('report', { execute: () => 1 })])
    await using stage = await openStage(server.url, v2, { reconcileMs: 100 })
    const [report] = v1.assets
    if (!report) throw new Error('no report')
    const runs = await Promise.all(Array.from({ length: 3 }, () => stage.flow.materialize(report)))
    await until('all are unmatched', async () => (await countUnmatched(stage)) === 3)
    await Promise.all(runs.slice(0, 2).map((run) => run.cancel()))
    await until('those of cancelled runs are gone', async () => (await countUnmatched(stage)) === 1)
    const back = await (await stage.connect()).worker(v1)
    expect(await runs[2]?.result()).toEqual([{ key: 1, value: 1 }])
    await back.stop()
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    await until('their consumer is gone', async () => {
      const names: string[] = []
      for await (const { name } of jsm.consumers.list(`${stage.namespace}_WORK_0`)) names.push(name)
      return names.every((name) => !name.startsWith('unmatched__'))
    })
    await nc.close()
  })
})

describe('a run whose version nobody has any more', () => {
  it('a run whose version nobody has any more goes on with the newest one: what has not begun is planned anew, new dependencies are made', async () => {
    const [v1, v2] = [version(1), version(2)]
    await using stage = await openStage(server.url, v2.shard)
    const { flow } = stage
    const run = await flow.materialize(v1.report, { pipeline: v1.shard })
    await until('it is unmatched', async () => (await countUnmatched(stage)) === 1)
    expect(await flow.adopt(run.id, { pipeline: v2.shard })).toEqual({
      run: run.id,
      version: v2.shard.spec.version,
      from: v1.shard.spec.version,
      added: ['b'],
    })
    expect(await run.result()).toBe('2: a,b')
    // At once: the state may not show the end yet.
    const again = await rejection(flow.adopt(run.id, { pipeline: v2.shard }))
    expect(again).toMatchObject({ code: 'not_adoptable', message: expect.stringMatching(/the run has ended$/) })
    await until('the state has it', async () => (await run.status())?.version === v2.shard.spec.version)
  })

  it('a run whose version nobody has any more has ended as soon as the log says so, whatever the state shows', async () => {
    const [v1, v2] = [version(1), version(2)]
    await using stage = await openStage(server.url, v2.shard)
    const { flow, namespace } = stage
    const run = await flow.materialize(v1.report, { pipeline: v1.shard })
    await until('it has begun', async () => (await run.status())?.status === 'running')
    const nc = await connectNats({ servers: server.url })
    const [js, bucket] = [jetstream(nc), `${namespace}_state_0`]
    const place = `$KV.${bucket}.${stateKey.run(run.id)}`
    const open = await (await js.jetstreamManager()).streams.getMessage(`KV_${bucket}`, { last_by_subj: place })
    await flow.adopt(run.id, { pipeline: v2.shard })
    await run.result()
    await until('the state has it', async () => (await run.status())?.status === 'succeeded')
    await stage.engine?.stop()
    await js.publish(place, open?.data)
    await nc.close()
    expect((await run.status())?.status).toBe('running')
    expect(await rejection(flow.adopt(run.id, { pipeline: v2.shard }))).toMatchObject({
      code: 'not_adoptable',
      message: expect.stringMatching(/the run has ended$/),
    })
  })

  it('a run whose version nobody has any more is not run by the old code any more, should that come back', async () => {
    const v1 = pipeline('p', [asset('report', { execute: wrong })])
    const v2 = pipeline('p', [asset('report', { queue: 'later', codeVersion: '2', execute: () => 'new' })])
    await using stage = await openStage(server.url, pipeline('p', [asset('x', { execute: () => 1 })]))
    const { flow } = stage
    const [report] = v1.assets
    if (!report) throw new Error('no report')
    const run = await flow.materialize(report)
    await until('it is unmatched', async () => (await countUnmatched(stage)) === 1)
    await flow.adopt(run.id, { pipeline: v2 })
    const old = await (await stage.connect()).worker(v1)
    await until('the old task is dropped', async () => (await countUnmatched(stage)) === 0)
    await old.stop()
    await flow.worker(v2)
    expect(await run.result()).toBe('new')
  })

  it('a run whose version nobody has any more waits at its gate, and goes on there with code of the same shape', async () => {
    const gated = asset('gated', { execute: (ctx) => ctx.signalGate(), onSignal: (_, payload) => ({ payload }) })
    const make = (n: number): Pipeline => {
      const other = asset('other', { dependsOn: [gated], execute: () => n, codeVersion: String(n) })
      return pipeline('p', [gated, other])
    }
    await using stage = await openStage(server.url, make(1), { gates })
    const { flow } = stage
    const [, other] = make(1).assets
    if (!other) throw new Error('no other')
    const run = await flow.materialize(other, { pipeline: 'p' })
    await until('it waits', async () => (await assetStatus(run, 'gated')) === 'suspended')
    await stage.worker?.stop()
    await flow.worker(make(2))
    await flow.adopt(run.id)
    await flow.gates.signalById((await run.status())?.assets.gated?.gate ?? '', { ok: true })
    expect(await run.result()).toBe(2)
  })

  it('a run whose version nobody has any more is refused, with what does not fit, where code has begun that is another one', async () => {
    const v1 = pipeline('p', [asset('report', { execute: (ctx) => ctx.signalGate(), onSignal: () => 1 })])
    await using stage = await openStage(server.url, v1, { gates })
    const { flow } = stage
    const [report] = v1.assets
    if (!report) throw new Error('no report')
    const run = await flow.materialize(report)
    await until('it waits', async () => (await assetStatus(run, 'report')) === 'suspended')
    const without = pipeline('p', [asset('report', { execute: (ctx) => ctx.signalGate() })])
    expect(await rejection(flow.adopt(run.id, { pipeline: without }))).toMatchObject({
      code: 'not_adoptable',
      message: expect.stringMatching(/report has begun \(suspended\), and differs in onSignal \(yes → no\)/),
    })
    const gone = pipeline('p', [asset('other', { execute: () => 1 })])
    await expect(flow.adopt(run.id, { pipeline: gone })).rejects.toThrow(/the new version has no such asset/)
    const another = pipeline('q', [asset('report', { execute: () => 1 })])
    await expect(flow.adopt(run.id, { pipeline: another })).rejects.toThrow(/is of pipeline p, not q/)
    await expect(flow.adopt('0-nobody')).rejects.toMatchObject({ code: 'not_found' })
    expect((await run.status())?.version).toBe(v1.spec.version)
    await run.cancel()
  })
})
