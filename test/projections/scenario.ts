/** Random runs: plain ones, scatters and gates, under concurrency keys, in one shard. */
import fc from 'fast-check'
import { stateKey } from '../../projections/state.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { type AssetName, assetName, type RunId, runId } from '../../streams/ids.ts'
import type { Task } from '../../streams/tasks.ts'
import {
  keyChunk,
  materialized,
  outcomes,
  plainScatter,
  registered,
  requested,
  Sim,
  scatterStarted,
  sized,
  spec,
} from './harness.ts'

const ACTIONS = ['request', 'request', 'work', 'work', 'work', 'work', 'signal', 'cancel', 'late', 'clock'] as const
const TARGETS = ['b', 't', 'g'] as const
/** Requests, work, signals, cancels, and facts that come late; and where to cut the log. */
export const scenario = fc.record({
  actions: fc.array(fc.record({ what: fc.constantFrom(...ACTIONS), a: fc.nat(1000), b: fc.nat(1000) }), {
    minLength: 10,
    maxLength: 120,
    size: 'max',
  }),
  cuts: fc.array(fc.nat(1000), { minLength: 1, maxLength: 3 }),
})
export type Scenario = typeof scenario extends fc.Arbitrary<infer S> ? S : never

/** A fact of the harness, which are all of one run, as one of another run. */
function of(run: RunId, draft: FactDraft): FactDraft {
  return { ...draft, ids: { ...draft.ids, run } } as FactDraft
}

function pick<T>(from: readonly T[], n: number): T | undefined {
  return from[n % Math.max(1, from.length)]
}

/** What a worker brings of a task. Now and then it fails, or waits at a gate. */
function outcomeOf(task: Task, n: number): FactDraft[] {
  const run = runId(0, task.run.slice(2))
  const asset = assetName(task.asset)
  const ids = { run, asset }
  if (task.kind === 'lease') {
    const answers = Array.from(
      { length: task.to - task.from },
      (_, k) => [task.from + k, (n + k) % 5 === 0 ? 'terminal' : 'ok'] as const,
    )
    return [of(run, outcomes(task.lease, answers, { asset }))]
  }
  if (!('attempt' in task)) return []
  const attempt = String(task.attempt)
  if (task.kind === 'execute' && asset === 'g') return gateOf(ids, task.attempt)
  if (task.kind === 'scatter') {
    const count = 1 + (n % 40)
    return [scatterStarted(asset, task.attempt), keyChunk(0, count, asset), sized(count, asset)].map((d) => of(run, d))
  }
  if (n % 6 > 0) return [materialized(asset, run, task.attempt)]
  const error = { code: 'boom', message: 'boom' }
  const data = { phase: 'execute', worker: 'w', outcome: 'error', error, durationMs: 1 } as const
  return [{ name: 'attempt.ended', ids: { ...ids, pipeline: 'p', attempt }, data }]
}

function gateOf(ids: { run: RunId; asset: AssetName }, attempt: number): FactDraft[] {
  const gate = `a${attempt}n1`
  const data = { kind: 'signal', attempt, worker: 'w', afterRetries: 'fail' } as const
  return [
    { name: 'gate.created', ids: { ...ids, gate }, data: { ...data, retriesMs: [], keyId: 'k', tokenHash: 'h' } },
    {
      name: 'asset.suspended',
      ids: { ...ids, pipeline: 'p', attempt: String(attempt) },
      data: { gate, worker: 'w' },
    },
  ]
}

/** What may still come of a run that has ended. */
function lateFacts(run: RunId, n: number): FactDraft[] {
  const cancelled: FactDraft = { name: 'run.cancel_requested', ids: { run }, data: {} }
  const error = { code: 'late', message: 'late' }
  const data = { phase: 'execute', worker: 'w', outcome: 'error', error, durationMs: 1 } as const
  const late = {
    name: 'attempt.ended',
    ids: { run, pipeline: 'p', asset: assetName('a'), attempt: '9' },
    data,
  } as const
  return [cancelled, late, of(run, outcomes(`0-1-${1 + (n % 3)}`, [[0, 'ok']]))].slice(n % 3)
}

/** Plays it, with a worker that fails now and then. */
export function play({ actions }: Scenario): Sim {
  const sim = new Sim()
  const assets = [
    spec('a'),
    spec('b', { dependsOn: ['a'] }),
    spec('s', { scatter: { ...plainScatter, failureMode: 'partial', threshold: { fraction: 1 } } }),
    spec('t', { dependsOn: ['s'] }),
    spec('g', { onSignal: false }),
  ]
  sim.apply(registered(assets))
  const ids: RunId[] = []
  for (const { what, a, b } of actions) {
    sim.settle()
    const run = pick(ids, a)
    if (what === 'clock') sim.nowMs += a
    else if (what === 'request') {
      const id = runId(0, `r${ids.length}`)
      ids.push(id)
      const concurrency = b % 3 === 0 ? { concurrency: { key: 'k', limit: 1, onConflict: 'queue' as const } } : {}
      sim.append(requested(pick(TARGETS, a) ?? 'b', { run: id, ...concurrency }))
    } else if (what === 'work') {
      const task = pick(sim.due(), a)?.task
      if (task) sim.work.delete(task.id)
      for (const draft of task ? outcomeOf(task, b) : []) sim.append(draft)
    } else if (what === 'signal') {
      const gate = pick(sim.facts('gate.created'), a)
      if (gate) sim.append({ name: 'gate.resolved', ids: gate.ids, data: { ...gate.ids, outcome: 'signaled' } })
    } else if (run && what === 'cancel' && b % 4 === 0)
      sim.append({ name: 'run.cancel_requested', ids: { run }, data: {} })
    else if (run && what === 'late' && sim.docs.peek(stateKey.run(run))?.finishedMs !== undefined)
      for (const draft of lateFacts(run, b)) sim.append(draft)
  }
  sim.settle()
  return sim
}
