/** Any run, at any time, has an explanation that ends in its present state. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { isEnded } from '../../projections/run/end.ts'
import type { AssetInRun, RunState } from '../../projections/state.ts'
import { stateKey } from '../../projections/state.ts'
import type { Why, WhyInput } from '../../projections/why/types.ts'
import { assetsOf, whyAsset, whyRun } from '../../projections/why/why.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { assetName, type RunId, runId } from '../../streams/ids.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import { runs } from '../kit/runs.ts'
import { plainScatter, registered, requested, Sim, spec } from './harness.ts'

const RUNS = [runId(0, 'r1'), runId(0, 'r2'), runId(0, 'r3')]
const SCATTER = { ...plainScatter, failureMode: 'partial', threshold: { count: 1 } } as const

function assets(version: number): AssetSpec[] {
  const codeVersion = version === 1 ? {} : { codeVersion: String(version) }
  return [
    spec('a', { ...codeVersion }),
    spec('b', { onSignal: true, onTimeout: true, onRun: true }),
    spec('s', { dependsOn: ['a'], scatter: SCATTER }),
    spec('t', { dependsOn: ['b', 's'], ...codeVersion }),
    spec('u', { dependsOn: ['a', 't'] }),
  ]
}

const action = fc.record({
  run: fc.nat({ max: RUNS.length - 1 }),
  what: fc.nat({ max: 19 }),
  asset: fc.nat({ max: 4 }),
  a: fc.nat({ max: 1000 }),
})
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

const ONCE = ['queue', 'skip', 'cancel_running'] as const
const MODES = ['all', 'all', 'stale', 'missing'] as const

function request(sim: Sim, run: RunId, { a, asset }: Action): void {
  const target = ['a', 'b', 's', 't', 'u'][asset] ?? 'u'
  const concurrency = a % 3 === 0 ? { key: 'k', limit: 1, onConflict: ONCE[a % ONCE.length] ?? 'queue' } : undefined
  const retry = a % 7 === 0 ? { retryOf: RUNS[0] ?? '' } : {}
  const version = `v${1 + (a % 2)}`
  const upstream = MODES[a % MODES.length] ?? 'all'
  const options = { run, upstream, version, ...retry, ...(concurrency ? { concurrency } : {}) }
  sim.append(requested(target, { ...options, timeoutMs: 1000 }))
}

const error = { code: 'boom', message: 'boom' }

/** What may happen to an open asset in this state; late words of other attempts, too. */
function act(sim: Sim, run: RunState, name: string, asset: AssetInRun, { what, a }: Action): FactDraft[] {
  const at = { run: run.id, asset: assetName(name) }
  const attempt = Math.max(1, asset.attempt - (a % 11 === 0 ? 1 : 0))
  const ids = { pipeline: 'p', ...at, attempt: String(attempt) }
  const gateOf = asset.gate ?? `a${attempt}n1`
  const gate = { ...at, gate: gateOf }
  switch (what) {
    case 0:
    case 1:
    case 2: {
      const value = { json: `${name}${a % 2}` }
      const data = { ...at, pipeline: 'p', attempt, worker: 'w', value, hash: `h${name}${a % 2}`, durationMs: 1 }
      if (asset.phase === 'scatter') return [{ name: 'scatter.started', ids: at, data: { attempt, worker: 'w' } }]
      return [{ name: 'asset.materialized', ids: { pipeline: 'p', ...at }, data }]
    }
    case 3:
      return [{ name: 'asset.started', ids, data: { phase: asset.phase, worker: 'w', delivery: 1 } }]
    case 4:
    case 5:
    case 6: {
      const outcome = (['error', 'terminal', 'timeout', 'lost', 'returned', 'error'] as const)[a % 6] ?? 'error'
      const data = { phase: asset.phase, worker: 'w', outcome, error, durationMs: 5 }
      return [{ name: 'attempt.ended', ids, data }]
    }
    case 7: {
      if (asset.phase === 'scatter') return []
      const created = { kind: 'signal', attempt, worker: 'w', keyId: 'k', tokenHash: 'h' } as const
      const afterRetries = a % 2 === 0 ? 'fail' : 'cancel'
      const deadline = a % 3 === 0 ? {} : { deadlineMs: sim.nowMs + 1000 }
      return [
        { name: 'gate.created', ids: gate, data: { ...created, retriesMs: [], afterRetries, ...deadline } },
        { name: 'asset.suspended', ids, data: { gate: gateOf, worker: 'w' } },
      ]
    }
    case 8: {
      if (asset.phase === 'scatter') return []
      const child = runId(0, `child-${run.id}-${name}-${attempt}`)
      const asked = { ...requested('a').data, parent: gate }
      return [
        { name: 'child.requested', ids: gate, data: { attempt, worker: 'w', child, request: asked } },
        { name: 'asset.suspended', ids, data: { gate: gateOf, worker: 'w' } },
      ]
    }
    case 9:
    case 10: {
      const outcome = (['signaled', 'timed_out', 'cancelled'] as const)[a % 3] ?? 'signaled'
      return [{ name: 'gate.resolved', ids: gate, data: { ...gate, outcome } }]
    }
    case 11:
      return [
        {
          name: 'scatter.items',
          ids: { ...at, offset: '0' },
          data: { count: 4, keys: [0, 1, 2, 3], hash: 'h' },
        },
        { name: 'scatter.sized', ids: at, data: { total: 4 } },
      ]
    case 12:
      return [{ name: a % 2 ? 'scatter.paused' : 'scatter.resumed', ids: at, data: {} }]
    case 13:
      return a % 2
        ? [{ name: 'scatter.cancel_requested', ids: at, data: { reason: 'enough' } }]
        : [{ name: 'scatter.timer_fired', ids: at, data: { timeoutMs: 10 } }]
    case 14:
    case 15:
      return leases(sim, run, name, a)
    default:
      return []
  }
}

/** All leases that are out, with a failure now and then. */
function leases(sim: Sim, run: RunState, asset: string, a: number): FactDraft[] {
  return [...sim.work.values()].flatMap(({ task }): FactDraft[] => {
    if (task.kind !== 'lease' || task.run !== run.id || task.asset !== asset) return []
    sim.work.delete(task.id)
    const at = Array.from({ length: task.to - task.from }, (_, k) => task.from + k)
    const errors = at.flatMap((index, k): [number, { error: typeof error; outcome: 'terminal' }][] =>
      (index + a) % 5 === 0 ? [[k, { error, outcome: 'terminal' }]] : [],
    )
    const values = at.map((index) => ((index + a) % 5 === 0 ? null : index))
    const ms = at.map(() => 1)
    const data = { lease: task.lease, ordinal: task.attempt, worker: 'w', at, ms, values, heldMs: 1 }
    const ids = { run: run.id, asset: assetName(asset) }
    return [{ name: 'scatter.outcomes', ids, data: { ...data, ...(errors.length > 0 ? { errors } : {}) } }]
  })
}

function step(sim: Sim, one: Action): void {
  const run = RUNS[one.run]
  const doc = run && sim.docs.peek(stateKey.run(run))
  sim.nowMs += one.a
  if (!run) return
  if (!doc) request(sim, run, one)
  else if (one.what === 16) sim.append({ name: 'run.cancel_requested', ids: { run }, data: { reason: 'no more' } })
  else if (one.what === 17) sim.append({ name: 'run.timer_fired', ids: { run }, data: { timeoutMs: 1000 } })
  else if (one.what === 18) sim.append({ name: 'run.adopt_requested', ids: { run }, data: { version: 'v2' } })
  else {
    const open = Object.entries(doc.assets).filter(([, asset]) => !isEnded(asset) && asset.attempt > 0)
    const [name, asset] = open[one.asset % Math.max(1, open.length)] ?? []
    if (name !== undefined && asset) for (const draft of act(sim, doc, name, asset, one)) sim.append(draft)
  }
  sim.settle()
}

/** As the client reads it: without what there is most of, where `bulk` is false. */
function inputOf(sim: Sim, run: RunId, bulk: boolean): WhyInput {
  const left = new Set(bulk ? [] : ['scatter.items', 'scatter.outcomes', 'lease.returned'])
  const own = (fact: { ids: object }): boolean => Reflect.get(fact.ids, 'run') === run
  const facts = sim.log.filter((fact) => fact.name === 'pipeline.registered' || (own(fact) && !left.has(fact.name)))
  const others = sim.log.filter((fact) => !own(fact) && 'run' in fact.ids)
  const { queue } = sim.run(run)
  return { run, facts, others, ...(queue ? { queued: { behind: RUNS } } : {}) }
}

function expectExplained(sim: Sim, why: Why | undefined, status: string): void {
  expect(why?.status).toBe(status)
  if (!why) return
  const links = [why.verdict, ...why.chain]
  for (const { text, fact } of links) {
    expect(text).toMatch(/^\S.*\.$/s)
    expect(text).not.toMatch(/undefined|NaN|\[object/)
    expect(sim.log[fact.seq - 1]).toMatchObject({ name: fact.kind, timeMs: fact.at.getTime(), ids: fact.ids })
  }
  expect(why.chain.at(-1)?.fact).toEqual(why.verdict.fact)
}

const did = (run: number, what = 0): Action => ({ run, what, asset: 0, a: 0 })
/** It waits for its turn, and is asked to take another version. */
const REFUSED: Action[] = [did(0), did(1), did(1, 18), did(0), did(0), did(1, 3), did(0), did(0)]

it('a run in any state has an explanation that ends in its present state, and so have its assets', () => {
  const seen = new Set<string>()
  fc.assert(
    fc.property(fc.array(action, { minLength: 5, maxLength: 60, size: 'max' }), fc.boolean(), (actions, bulk) => {
      const sim = new Sim()
      sim.apply(registered(assets(1)))
      sim.apply(registered(assets(2), 'p', 'v2'))
      for (const [n, one] of actions.entries()) {
        step(sim, one)
        if (n % 7 !== 0 && n !== actions.length - 1) continue
        for (const { ids } of sim.facts('run.requested')) {
          const { status, assets: states } = sim.run(ids.run)
          const input = inputOf(sim, ids.run, bulk)
          expectExplained(sim, whyRun(input), status)
          expect(assetsOf(input).toSorted()).toEqual(Object.keys(states).toSorted())
          seen.add(status)
          for (const [name, asset] of Object.entries(states)) {
            expectExplained(sim, whyAsset(input, name), asset.status)
            seen.add(asset.status)
          }
        }
      }
    }),
    { ...runs(40), examples: [[REFUSED, false]] },
  )
  // What never came is not tested.
  expect([...seen].toSorted()).toEqual(
    expect.arrayContaining([
      'cancelled',
      'failed',
      'materialized',
      'queued',
      'running',
      'skipped',
      'suspended',
      'waiting',
    ]),
  )
})
