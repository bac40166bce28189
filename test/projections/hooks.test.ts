import { describe, expect, it } from 'vitest'
import { hookAsset } from '../../projections/hooks/hooks.ts'
import { givenOf } from '../../projections/schedule/schedule.ts'
import type { FactOf } from '../../streams/facts.ts'
import { HOOKS, type HookName } from '../../streams/hook-schemas.ts'
import { assetName, type RunId, runIdOfHook } from '../../streams/ids.ts'
import type { AssetSpec, ErrorInfo, PipelineSpec } from '../../streams/schemas.ts'
import { type DraftOf, materialized, RUN, registered, requested, Sim, spec } from './harness.ts'

function internal(on: HookName): AssetSpec[] {
  const name = hookAsset(on)
  return [
    spec(givenOf(name), { input: { schema: {} }, internal: true }),
    spec(name, { dependsOn: [givenOf(name)], internal: true }),
  ]
}

function begun(on: readonly HookName[], more: Partial<PipelineSpec> = {}, lateAfterMs?: number): Sim {
  const sim = new Sim()
  const draft = registered([spec('a'), spec('b', { dependsOn: ['a'] }), ...on.flatMap(internal)])
  const hooks = { on: [...on], ...(lateAfterMs === undefined ? {} : { lateAfterMs }) }
  sim.apply({ ...draft, data: { ...draft.data, ...(on.length > 0 ? { hooks } : {}), ...more } })
  return sim
}

const calls = (sim: Sim): FactOf<'run.requested'>[] => sim.facts('run.requested').filter(({ data }) => data.hook)
const eventOf = (fact: FactOf<'run.requested'> | undefined): unknown =>
  Object.values(fact?.data.input ?? {}).map((stored) => ('json' in stored ? stored.json : undefined))[0]
function failed(asset: string, error: ErrorInfo, run: RunId = RUN): DraftOf<'asset.failed'> {
  const ids = { pipeline: 'p', run, asset: assetName(asset) }
  return { name: 'asset.failed', ids, data: { ...ids, error, attempts: 1 } }
}
const late = (run: RunId = RUN): DraftOf<'run.late'> => ({ name: 'run.late', ids: { run }, data: { afterMs: 60_000 } })

describe('hooks', () => {
  it('are called by a run of their own when a run has failed, with what failed and why', () => {
    const sim = begun(['run_failed', 'run_finished'])
    sim.apply(requested('b', { key: 'k', tags: { team: 'x' } }))
    sim.apply(failed('a', { code: 'error', message: 'no luck', cause: { code: 'ECONNREFUSED', message: 'refused' } }))
    expect(calls(sim).map(({ ids, data }) => [ids.run, data.hook, data.target])).toEqual([
      [runIdOfHook('run_failed', RUN), { on: 'run_failed', run: RUN }, 'hook__run_failed'],
      [runIdOfHook('run_finished', RUN), { on: 'run_finished', run: RUN }, 'hook__run_finished'],
    ])
    expect(eventOf(calls(sim)[0])).toMatchObject({
      run: RUN,
      pipeline: 'p',
      target: 'b',
      key: 'k',
      tags: { team: 'x' },
      finished: {
        status: 'failed',
        asset: 'a',
        error: { code: 'error', message: 'no luck', cause: { code: 'ECONNREFUSED', message: 'refused' } },
      },
    })
    expect([...sim.work.values()].map(({ task }) => task.asset)).toEqual([
      'a',
      'hook__run_failed',
      'hook__run_finished',
    ])
  })

  it('of failures are not called for runs that succeed or are cancelled', () => {
    const sim = begun(['run_failed', 'run_finished'])
    sim.apply(requested('a'))
    sim.apply(materialized('a'))
    expect(calls(sim).map(({ data }) => data.hook?.on)).toEqual(['run_finished'])
    expect(eventOf(calls(sim)[0])).toMatchObject({ finished: { status: 'succeeded' } })
  })

  it('are not called for their own runs', () => {
    const sim = begun([...HOOKS], {}, 60_000)
    sim.apply(requested('a'))
    sim.apply(materialized('a'))
    const [one] = calls(sim)
    const run = runIdOfHook('run_finished', RUN)
    expect(one?.ids.run).toBe(run)
    sim.apply(failed('hook__run_finished', { code: 'error', message: 'gone' }, run))
    expect(sim.run(run).status).toBe('failed')
    expect(calls(sim)).toHaveLength(1)
    expect(sim.timers.map(({ fact }) => fact.name)).toEqual(['run.late', 'run.timer_fired'])
  })

  it('cost a pipeline without them no fact and no timer', () => {
    const sim = begun([])
    sim.apply(requested('a'))
    sim.apply(materialized('a'))
    expect(sim.log.map(({ name }) => name)).toEqual([
      'pipeline.registered',
      'run.requested',
      'asset.materialized',
      'run.finished',
    ])
    expect(sim.timers).toEqual([])
  })

  it('decide the same again after a crash, and call once', () => {
    const sim = begun(['run_finished'])
    sim.apply(requested('a'))
    sim.checkpoint()
    sim.apply(materialized('a'))
    sim.crash(0, true)
    sim.settle()
    expect(calls(sim)).toHaveLength(1)
  })
})

describe('a late run', () => {
  it('has one timer at a time: when it is late, then when its time is over', () => {
    const sim = begun(['late'], { timeoutMs: 300_000 }, 60_000)
    const asked = sim.apply(requested('b'))
    expect(asked[0]).toMatchObject({ do: 'timer', fact: { name: 'run.late' }, dueMs: sim.nowMs + 60_000 })
    const effects = sim.apply(late(), sim.nowMs + 60_000)
    expect(effects[0]).toMatchObject({ do: 'timer', fact: { name: 'run.timer_fired' } })
    expect(calls(sim)).toHaveLength(1)
    expect(eventOf(calls(sim)[0])).toMatchObject({ late: { status: 'running', afterMs: 60_000, open: ['a', 'b'] } })
    sim.apply(materialized('a'))
    const end = sim.apply(materialized('b'))
    expect(end.find((effect) => effect.do === 'fact')).toMatchObject({ stops: { name: 'run.timer_fired' } })
  })

  it('that ends in time takes its timer away, and is not called late', () => {
    const sim = begun(['late'], {}, 60_000)
    sim.apply(requested('a'))
    const end = sim.apply(materialized('a'))
    expect(end.find((effect) => effect.do === 'fact')).toMatchObject({ stops: { name: 'run.late' } })
    // The timer may have fired at that moment.
    sim.apply(late())
    expect(calls(sim)).toEqual([])
  })

  it('is not expected where its time limit ends it before', () => {
    const sim = begun(['late'], {}, 60_000)
    expect(sim.apply(requested('a', { timeoutMs: 30_000 }))[0]).toMatchObject({ fact: { name: 'run.timer_fired' } })
    expect(sim.run(RUN).late).toBeUndefined()
  })
})

describe('the hook of gates', () => {
  const created: DraftOf<'gate.created'> = {
    name: 'gate.created',
    ids: { run: RUN, asset: assetName('a'), gate: 'a1n1' },
    data: {
      kind: 'approval',
      attempt: 1,
      worker: 'w',
      retriesMs: [],
      afterRetries: 'fail',
      metadata: { message: 'Publish?' },
      keyId: 'k1',
      tokenHash: 'h',
    },
  }

  it('is called with the gate, and not when what opened it has ended', () => {
    const sim = begun(['gate_opened'])
    sim.apply(requested('a'))
    sim.apply(created)
    const id = `${RUN}.a.a1n1`
    expect(calls(sim).map(({ ids }) => ids.run)).toEqual([runIdOfHook('gate_opened', RUN, id)])
    expect(eventOf(calls(sim)[0])).toMatchObject({
      gate: { id, asset: 'a', kind: 'approval', metadata: { message: 'Publish?' }, keyId: 'k1' },
    })
    sim.apply(materialized('a'))
    sim.apply({ ...created, ids: { ...created.ids, gate: 'a1n2' } })
    expect(calls(sim)).toHaveLength(1)
  })
})
