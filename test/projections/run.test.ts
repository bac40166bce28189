import { describe, expect, it } from 'vitest'
import { backoffMs } from '../../projections/backoff.ts'
import type { Effect } from '../../projections/effects.ts'
import { planRun, upstreamOf } from '../../projections/run/plan.ts'
import { stateKey } from '../../projections/state.ts'
import { assetName, runId } from '../../streams/ids.ts'
import type { AssetSpec, PipelineSpec, ValueAt } from '../../streams/schemas.ts'
import {
  barrierOf,
  cancel,
  type DraftOf,
  errored,
  keyChunk,
  materialized,
  outcomes,
  RETRY,
  RUN,
  registered,
  requested,
  Sim,
  scattered,
  scatterRun,
  scatterStarted,
  sized,
  spec,
  startedAttempt,
} from './harness.ts'

/** What was decided, short: `task execute a.1`, `fact asset.failed`, `abort`. */
function told(effects: readonly Effect[]): string[] {
  return effects.map((effect) => {
    if (effect.do === 'task') return `task ${effect.task.kind} ${effect.task.id.slice(RUN.length + 1)}`
    return effect.do === 'fact' ? `fact ${effect.fact.name}` : effect.do
  })
}

const assetOf = (sim: Sim, name: string) => sim.run(RUN).assets[name]
const finished = (sim: Sim) => sim.facts('run.finished').map(({ data }) => data)

function begun(assets: AssetSpec[], options: Parameters<typeof requested>[1] = {}): Sim {
  const sim = new Sim()
  sim.apply(registered(assets))
  sim.apply(requested(assets.at(-1)?.name ?? '', options))
  return sim
}

/** a ← b ← d, a ← c ← d */
const diamond = [
  spec('a'),
  spec('b', { dependsOn: ['a'] }),
  spec('c', { dependsOn: ['a'] }),
  spec('d', { dependsOn: ['b', 'c'] }),
]

describe('a run', () => {
  it('(none) → running at once when its plan needs no look-up', () => {
    const sim = new Sim()
    sim.apply(registered([spec('a')]))
    expect(told(sim.apply(requested('a')))).toEqual(['task execute a.1'])
    expect(sim.run(RUN)).toMatchObject({ status: 'running', target: 'a', requestedMs: sim.nowMs })
    expect(sim.docs.peek(stateKey.open(RUN))).toEqual({ since: sim.nowMs })
  })

  it('(none) → requested when it needs one, and run.planned makes it running', () => {
    const sim = new Sim()
    sim.apply(registered(diamond))
    expect(told(sim.apply(requested('d', { upstream: 'missing' })))).toEqual(['plan'])
    expect(sim.facts('run.planned')[0]?.data.assets.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd'])
    expect(sim.run(RUN).status).toBe('running')
  })

  it('fails when its pipeline is not registered, or not in this version', () => {
    for (const options of [{ pipeline: 'q' }, { version: 'v2' }]) {
      const sim = new Sim()
      sim.apply(registered([spec('a')]))
      expect(told(sim.apply(requested('a', options)))).toEqual(['fact run.finished'])
      expect(finished(sim)).toMatchObject([{ status: 'failed', error: { code: 'unknown_pipeline' } }])
      expect(sim.run(RUN).status).toBe('failed')
      expect(sim.docs.peek(stateKey.open(RUN))).toBeUndefined()
    }
  })

  it('fails with the error of its plan', () => {
    const sim = new Sim()
    sim.apply(registered(diamond))
    sim.apply(requested('d', { upstream: 'none' }))
    expect(finished(sim)).toMatchObject([{ status: 'failed', error: { code: 'missing_upstream' } }])
  })

  it('running → succeeded with the target’s value when the last asset ends, once', () => {
    const sim = begun(diamond)
    sim.nowMs += 1000
    for (const name of ['a', 'b', 'c']) sim.apply(materialized(name))
    expect(sim.run(RUN).status).toBe('running')
    const effects = sim.apply(materialized('d'))
    const value = { shard: 0, seq: sim.facts('asset.materialized').at(-1)?.seq }
    expect(told(effects)).toEqual(['fact run.finished'])
    expect(finished(sim)).toEqual([
      { run: RUN, pipeline: 'p', target: 'd', status: 'succeeded', result: { json: 'd' }, value, durationMs: 1000 },
    ])
    expect(sim.run(RUN)).toMatchObject({ status: 'succeeded', finishedMs: sim.nowMs })
    expect(told(sim.issued.get(sim.folded) ?? [])).toEqual([])
  })

  it('asked for twice under one id is one run: the server refuses the second', () => {
    const sim = begun([spec('a')])
    expect(sim.append(requested('a'))).toBeUndefined()
  })

  it('carries its data partition to tasks, ends and the catalog', () => {
    const sim = begun([spec('a')], { partition: '2024/01' })
    expect([...sim.work.values()][0]?.task.partition).toBe('2024/01')
    sim.apply(materialized('a'))
    expect(finished(sim)[0]?.partition).toBe('2024/01')
    expect(sim.docs.peek(stateKey.asset('p', 'a', '2024/01'))?.run).toBe(RUN)
    expect(sim.docs.peek(stateKey.asset('p', 'a', undefined))).toBeUndefined()
  })

  it('that nobody knows leaves facts about it without effect', () => {
    const sim = new Sim()
    sim.apply(registered([spec('a')]))
    for (const draft of [materialized('a'), cancel(), scatterStarted(), keyChunk(0, 1)])
      expect(sim.apply(draft)).toEqual([])
  })
})

describe('an asset', () => {
  it('waiting → queued when all its dependencies have values', () => {
    const sim = begun(diamond)
    expect(assetOf(sim, 'b')?.status).toBe('waiting')
    expect(told(sim.apply(materialized('a')))).toEqual(['task execute b.1', 'task execute c.1'])
    expect(told(sim.apply(materialized('b')))).toEqual([])
    const effects = sim.apply(materialized('c'))
    expect(told(effects)).toEqual(['task execute d.1'])
    const seqs = Object.fromEntries(
      sim.facts('asset.materialized').map(({ ids, seq }) => [ids.asset, { shard: 0, seq }]),
    )
    expect(effects[0]).toMatchObject({ task: { deps: { b: seqs.b, c: seqs.c }, attempt: 1, attemptsLeft: 2 } })
  })

  it('tells its task queue, priority and time limit', () => {
    const sim = begun([spec('a', { queue: 'gpu', priority: 3, timeoutMs: 5000 })])
    expect([...sim.work.values()][0]).toMatchObject({
      queue: 'gpu',
      priority: 3,
      task: { timeoutMs: 5000, pipeline: 'p', version: 'v1' },
    })
  })

  it('queued → running with asset.started of its attempt, and not of another', () => {
    const sim = begun([spec('a')])
    sim.apply(startedAttempt('a', 2))
    expect(assetOf(sim, 'a')).toMatchObject({ status: 'queued' })
    sim.apply(startedAttempt('a', 1))
    expect(assetOf(sim, 'a')).toMatchObject({ status: 'running', worker: 'w' })
  })

  it.each(['queued', 'running'])('%s → queued again after the backoff with attempt.ended', (status) => {
    const sim = begun([spec('a')])
    if (status === 'running') sim.apply(startedAttempt('a', 1))
    const effects = sim.apply(errored('a', 1))
    expect(told(effects)).toEqual(['task execute a.2'])
    expect(effects[0]).toMatchObject({
      dueMs: sim.nowMs + backoffMs(RETRY, 1, `${RUN}.a`),
      task: { attempt: 2, attemptsLeft: 1 },
    })
    expect(assetOf(sim, 'a')).toMatchObject({ status: 'queued', attempt: 2, failures: 1, error: { code: 'boom' } })
    expect(assetOf(sim, 'a')?.worker).toBeUndefined()
  })

  it('is retried when the error says so', () => {
    const sim = begun([spec('a')])
    expect(sim.apply(errored('a', 1, { retryAfterMs: 7 }))[0]).toMatchObject({ dueMs: sim.nowMs + 7 })
  })

  it('handed back is queued at once and loses no attempt, however often', () => {
    const sim = begun([spec('a', { retry: { ...RETRY, maxAttempts: 1 } })])
    for (let attempt = 1; attempt <= 5; attempt++) {
      const [effect] = sim.apply(errored('a', attempt, { outcome: 'returned' }))
      expect(effect).toMatchObject({ task: { attempt: attempt + 1, attemptsLeft: 0 } })
      expect(effect).not.toHaveProperty('dueMs')
    }
    sim.apply(materialized('a', RUN, 6))
    expect(finished(sim)).toMatchObject([{ status: 'succeeded' }])
    expect(assetOf(sim, 'a')?.error).toBeUndefined()
  })

  it.each(['error', 'timeout', 'lost'] as const)(
    'fails when maxAttempts ended with %s, with the last error',
    (outcome) => {
      const sim = begun([spec('a')])
      sim.apply(errored('a', 1, { outcome }))
      sim.apply(errored('a', 2, { outcome }))
      expect(told(sim.apply(errored('a', 3, { outcome })))).toEqual(['fact asset.failed'])
      expect(sim.facts('asset.failed')[0]?.data).toEqual({
        run: RUN,
        asset: 'a',
        pipeline: 'p',
        error: { code: 'boom', message: 'boom 3' },
        attempts: 3,
      })
      expect(finished(sim)).toMatchObject([{ status: 'failed', asset: 'a', error: { message: 'boom 3' } }])
    },
  )

  it('fails at once with a terminal error', () => {
    const sim = begun([spec('a')])
    expect(told(sim.apply(errored('a', 1, { outcome: 'terminal' })))).toEqual(['fact asset.failed'])
    expect(assetOf(sim, 'a')?.status).toBe('failed')
  })

  it('ignores what stale attempts say', () => {
    const sim = begun([spec('a')])
    sim.apply(errored('a', 1))
    for (const attempt of [3, 7]) expect(sim.apply(errored('a', attempt, { outcome: 'terminal' }))).toEqual([])
    expect(assetOf(sim, 'a')).toMatchObject({ status: 'queued', attempt: 2, failures: 1 })
    expect(sim.append(errored('a', 1))).toBeUndefined()
  })

  it('takes the value of a stale attempt: the first end wins', () => {
    const sim = begun([spec('a')])
    sim.apply(errored('a', 1, { outcome: 'lost' }))
    sim.apply(materialized('a', RUN, 1))
    expect(assetOf(sim, 'a')?.status).toBe('materialized')
    expect(sim.append(materialized('a', RUN, 2))).toBeUndefined()
    expect(finished(sim)).toHaveLength(1)
  })

  it('materialized by another attempt while its failure was decided: what stands first on the log counts', () => {
    const sim = begun([spec('a')])
    sim.append(errored('a', 1, { outcome: 'terminal' }))
    sim.append(materialized('a'))
    sim.settle()
    expect(sim.facts('asset.failed')).toEqual([])
    expect(finished(sim)).toMatchObject([{ status: 'succeeded' }])
  })

  it('failed skips what depends on it, all the way, and the run fails with its name; the rest is finished first', () => {
    const sim = begun([...diamond.slice(0, 3), spec('x', { dependsOn: ['b'] }), spec('y', { dependsOn: ['x', 'c'] })])
    sim.apply(materialized('a'))
    sim.apply(errored('b', 1, { outcome: 'terminal' }))
    expect(sim.facts('asset.skipped').map(({ data }) => [data.asset, data.because])).toEqual([
      ['x', 'b'],
      ['y', 'x'],
    ])
    expect(finished(sim)).toEqual([])
    sim.apply(materialized('c'))
    expect(finished(sim)).toMatchObject([{ status: 'failed', asset: 'b', error: { code: 'boom' } }])
    expect(Object.fromEntries(Object.entries(sim.run(RUN).assets).map(([name, { status }]) => [name, status]))).toEqual(
      {
        a: 'materialized',
        b: 'failed',
        c: 'materialized',
        x: 'skipped',
        y: 'skipped',
      },
    )
  })

  it('failed skips what depends on it also where names are numbers, which objects put in an order of their own', () => {
    const sim = begun([spec('3'), spec('2', { dependsOn: ['3'] }), spec('1', { dependsOn: ['2'] })])
    sim.apply(errored('3', 1, { outcome: 'terminal' }))
    expect(sim.facts('asset.skipped').map(({ data }) => data.asset)).toEqual(['2', '1'])
    expect(finished(sim)).toMatchObject([{ status: 'failed', asset: '3' }])
  })
})

describe('an asset that scatters', () => {
  it('queued → running → scattering → gather → materialized', () => {
    const sim = scatterRun({ timeoutMs: 5000 })
    const [scatter] = sim.work.values()
    // The time limit holds for its scatter function too.
    expect(scatter?.task).toMatchObject({ kind: 'scatter', id: `${RUN}.s.1`, timeoutMs: 5000 })
    sim.apply(scatterStarted())
    expect(assetOf(sim, 's')?.status).toBe('running')
    sim.apply(keyChunk(0, 1))
    sim.apply(sized(1))
    expect(assetOf(sim, 's')?.status).toBe('scattering')
    sim.apply(outcomes('0-1-1', [[0, 'ok']]))
    expect(assetOf(sim, 's')).toMatchObject({ status: 'queued', phase: 'gather', attempt: 2, failures: 0 })
    sim.apply(materialized('s', RUN, 2))
    expect(finished(sim)).toMatchObject([{ status: 'succeeded' }])
  })

  it('whose scatter function fails half way calls it again, and then goes on with the same barrier', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 2))
    const [again] = sim.apply(errored('s', 1, { phase: 'scatter' }))
    expect(again).toMatchObject({ task: { kind: 'scatter', attempt: 2 } })
    expect(sim.append(scatterStarted('s', 2))).toBeUndefined()
    sim.apply(keyChunk(2, 1))
    sim.apply(sized(3))
    expect(barrierOf(sim)).toMatchObject({ status: 'open', stored: 3 })
  })

  it('whose scatter function gives up fails with its reason, its instances cancelled', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 2))
    sim.apply(errored('s', 1, { phase: 'scatter', outcome: 'terminal' }))
    expect(sim.facts('scatter.closed')[0]?.data).toMatchObject({ status: 'failed', error: { code: 'boom' } })
    expect(finished(sim)).toMatchObject([{ status: 'failed', asset: 's', error: { code: 'boom' } }])
  })

  it('ignores what its scatter function’s worker says once the keys are stored', () => {
    const sim = scattered([1])
    expect(sim.apply(errored('s', 1, { phase: 'scatter', outcome: 'lost' }))).toEqual([])
    expect(assetOf(sim, 's')).toMatchObject({ status: 'scattering', attempt: 1 })
  })

  it('whose instances failed fails, aborts the rest, and skips what depends on it', () => {
    const sim = scattered([2], {}, [spec('t', { dependsOn: ['s'] })])
    sim.apply(outcomes('0-2-1', [[0, 'terminal']]))
    const close = sim.facts('scatter.closed')[0]
    expect(told(sim.issued.get(close?.seq ?? 0) ?? [])).toEqual(['abort', 'fact asset.failed'])
    expect(sim.facts('asset.skipped').map(({ data }) => data.asset)).toEqual(['t'])
    expect(finished(sim)).toMatchObject([{ status: 'failed', asset: 's' }])
  })

  it('has attempts of its own for the gather', () => {
    const sim = scatterRun()
    sim.apply(errored('s', 1, { phase: 'scatter' }))
    sim.apply(errored('s', 2, { phase: 'scatter' }))
    sim.apply(scatterStarted('s', 3))
    sim.apply(sized(0))
    expect([...sim.work.values()].at(-1)?.task).toMatchObject({ kind: 'gather', attempt: 4, attemptsLeft: 2 })
    sim.apply(errored('s', 4, { phase: 'gather' }))
    expect(assetOf(sim, 's')).toMatchObject({ phase: 'gather', status: 'queued', attempt: 5, failures: 1 })
  })
})

describe('cancel', () => {
  const phases: [string, () => Sim][] = [
    ['queued', () => begun(diamond)],
    [
      'running',
      () => {
        const sim = begun(diamond)
        sim.apply(startedAttempt('a', 1))
        return sim
      },
    ],
    [
      'waiting for a retry',
      () => {
        const sim = begun([spec('a')])
        sim.apply(errored('a', 1))
        return sim
      },
    ],
    [
      'half done',
      () => {
        const sim = begun(diamond)
        sim.apply(materialized('a'))
        return sim
      },
    ],
    [
      'in its scatter function',
      () => {
        const sim = scatterRun()
        sim.apply(scatterStarted())
        sim.apply(keyChunk(0, 5))
        return sim
      },
    ],
    ['scattering', () => scattered([5])],
    ['gathering', () => scattered([])],
  ]
  it.each(phases)('while %s ends every open asset as cancelled, then the run', (_, build) => {
    const sim = build()
    const done = Object.entries(sim.run(RUN).assets).filter(([, { status }]) => status === 'materialized')
    expect(told(sim.apply(cancel('enough')))[0]).toBe('abort')
    const { assets } = sim.run(RUN)
    for (const [name, { status }] of Object.entries(assets)) {
      expect(status).toBe(done.some(([other]) => other === name) ? 'materialized' : 'cancelled')
    }
    for (const { data } of sim.facts('asset.cancelled')) expect(data.reason).toBe('enough')
    expect(finished(sim)).toMatchObject([{ status: 'cancelled' }])
    const barrier = sim.docs.peek(stateKey.barrier(RUN, 's'))
    if (barrier && assets.s?.phase === 'scatter') expect(barrier.status).toBe('cancelled')
    expect(sim.reconcile()).toEqual([])
  })

  it('before the plan is there finishes the run, and the plan that comes late starts nothing', () => {
    const sim = new Sim()
    sim.apply(registered(diamond))
    // The look-up of the plan takes its time: here it never answers by itself.
    sim.append(requested('d', { upstream: 'missing' }))
    sim.append(cancel())
    const planned: DraftOf<'run.planned'> = {
      name: 'run.planned',
      ids: { run: RUN },
      data: { assets: [{ name: 'a' }, { name: 'd' }] },
    }
    sim.append(planned)
    sim.settle()
    expect(finished(sim)).toMatchObject([{ status: 'cancelled' }])
    expect(sim.work.size).toBe(0)
  })

  it('of an asset whose value came first on the log changes nothing for it', () => {
    const sim = begun([spec('a')])
    sim.append(materialized('a'))
    sim.append(cancel())
    sim.settle()
    expect(finished(sim)).toMatchObject([{ status: 'succeeded' }])
  })

  it('wins over a value that comes after it: the server refuses that one', () => {
    const sim = begun([spec('a')])
    sim.apply(cancel())
    expect(sim.append(materialized('a'))).toBeUndefined()
    expect(assetOf(sim, 'a')?.status).toBe('cancelled')
  })

  it('whose decision comes after a value on the log leaves the value', () => {
    const sim = begun([spec('a')])
    sim.append(cancel())
    sim.append(materialized('a'))
    sim.settle()
    expect(assetOf(sim, 'a')?.status).toBe('materialized')
    expect(finished(sim)).toMatchObject([{ status: 'succeeded', value: { shard: 0 } }])
  })

  it('of a finished run changes nothing', () => {
    const sim = begun([spec('a')])
    sim.apply(materialized('a'))
    const before = JSON.stringify(sim.run(RUN))
    expect(sim.apply(cancel())).toEqual([])
    expect(JSON.stringify(sim.run(RUN))).toBe(before)
  })
})

describe('the plan', () => {
  const pipeline: PipelineSpec = { name: 'p', version: 'v1', assets: diamond }
  const at = (seq: number): ValueAt => ({ shard: 0, seq })
  const catalogOf = (there: Record<string, ValueAt>) => (name: string) => there[name] && { value: there[name] }

  it('has what the target needs, dependencies first, each once', () => {
    expect(upstreamOf(pipeline, 'd')).toEqual(['a', 'b', 'c', 'd'])
    expect(upstreamOf(pipeline, 'b')).toEqual(['a', 'b'])
  })

  it.each([
    ['all', {}, 'abcd', ''],
    ['all', { a: at(1), b: at(2), d: at(3) }, 'abcd', ''],
    ['missing', {}, 'abcd', ''],
    ['missing', { a: at(1) }, 'bcd', 'a'],
    ['missing', { b: at(2) }, 'acd', 'b'],
    ['missing', { b: at(2), c: at(3) }, 'd', 'bc'],
    ['missing', { a: at(1), b: at(2), c: at(3), d: at(4) }, 'd', 'bc'],
    ['none', { b: at(2), c: at(3) }, 'd', 'bc'],
  ] as const)('%s with %j makes %s and takes “%s” as they are', (upstream, there, made, reused) => {
    const { assets, error } = planRun(pipeline, 'd', upstream, catalogOf(there))
    expect(error).toBeUndefined()
    expect(
      assets
        .filter(({ reuse }) => !reuse)
        .map(({ name }) => name)
        .join(''),
    ).toBe(made)
    expect(
      assets
        .filter(({ reuse }) => reuse)
        .map(({ name }) => name)
        .join(''),
    ).toBe(reused)
    for (const { name, reuse } of assets) if (reuse) expect(reuse).toEqual(catalogOf(there)(name)?.value)
  })

  it('none refuses with the names of what is missing and what to do', () => {
    const one = planRun(pipeline, 'd', 'none', catalogOf({ b: at(1) }))
    expect(one).toMatchObject({
      assets: [],
      error: {
        code: 'missing_upstream',
        message: expect.stringMatching(/^d needs c, which has no value .*'missing' or 'all'/),
      },
    })
    expect(planRun(pipeline, 'd', 'none', catalogOf({})).error?.message).toMatch(/^d needs b, c, which have no value/)
  })

  it('of an unknown target suggests the name that is near', () => {
    const named: PipelineSpec = { ...pipeline, assets: [spec('orders'), spec('invoices')] }
    for (const upstream of ['all', 'missing', 'none'] as const) {
      const { error } = planRun(named, 'order', upstream, () => undefined)
      expect(error).toEqual({ code: 'unknown_asset', message: 'pipeline p has no asset order; did you mean orders?' })
    }
    expect(planRun(named, 'xyz', 'all', () => undefined).error?.message).toMatch(/; there are: .*orders/)
  })

  it('takes the newest value there is, of whichever run', () => {
    const sim = begun(diamond)
    for (const name of ['a', 'b', 'c', 'd']) sim.apply(materialized(name))
    const second = runId(0, 'r2')
    sim.apply(requested('b', { run: second }))
    sim.apply({ ...materialized('a', second), ids: { pipeline: 'p', asset: assetName('a'), run: second } })
    const third = runId(0, 'r3')
    sim.apply(requested('c', { run: third, upstream: 'missing' }))
    const newest = sim.facts('asset.materialized').at(-1)?.seq
    expect(sim.run(third).assets).toMatchObject({
      a: { status: 'reused', value: { shard: 0, seq: newest } },
      c: { status: 'queued' },
    })
    expect([...sim.work.values()].at(-1)?.task.deps).toEqual({ a: { shard: 0, seq: newest } })
  })
})

describe('backoff', () => {
  const retry = { maxAttempts: 9, backoffMinMs: 1000, backoffMaxMs: 60_000 }

  it.each([
    [1, 1000],
    [2, 3000],
    [3, 9000],
    [4, 27_000],
    [5, 60_000],
    [9, 60_000],
    [2000, 60_000],
  ])('after %i failures lies in the upper quarter below %i ms', (failures, full) => {
    for (let i = 0; i < 200; i++) {
      const ms = backoffMs(retry, failures, `seed ${i}`)
      expect(ms).toBeGreaterThanOrEqual(full * 0.75)
      expect(ms).toBeLessThanOrEqual(full)
    }
  })

  it('is the same for the same seed and spread over seeds', () => {
    const waits = Array.from({ length: 200 }, (_, i) => backoffMs(retry, 1, `seed ${i}`))
    expect(waits).toEqual(Array.from({ length: 200 }, (_, i) => backoffMs(retry, 1, `seed ${i}`)))
    expect(new Set(waits).size).toBeGreaterThan(100)
    expect(waits.reduce((sum, ms) => sum + ms, 0) / 200).toBeCloseTo(875, -2)
  })

  it('of no wait stays no wait, however many failures', () => {
    for (const failures of [1, 50, 700, 1e6])
      expect(backoffMs({ ...retry, backoffMinMs: 0, backoffMaxMs: 0 }, failures, 's')).toBe(0)
  })
})
