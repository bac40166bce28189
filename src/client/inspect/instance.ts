/** One instance of a scatter: its key, its state, and its attempts. */

import { parseLeaseId } from '../../../projections/scatter/lease-id.ts'
import { INSTANCE_STATES, type InstanceState } from '../../../projections/scatter/map.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { type Fact, factFilter } from '../../../streams/facts.ts'
import { parseBarrierId } from '../../../streams/ids.ts'
import { type ErrorView, viewOfError } from '../../../streams/thrown.ts'
import { runFacts } from '../../log/run-facts.ts'
import type { RunDeps } from '../run-view.ts'
import { keysOf } from './failures.ts'
import { barrierOf, scatterMap } from './scatter-map.ts'

/** An instance, as far as its log knows. */
export interface InstanceView {
  readonly scatter: string
  readonly index: number
  readonly key: unknown
  readonly state: InstanceState
  readonly attempts: readonly InstanceAttempt[]
  /** False: the log was too long to be read in time, and there may be more attempts. */
  readonly complete: boolean
}

/** An execution of an instance's code. */
export interface InstanceAttempt {
  /** Of the lease it was in, from 1. */
  readonly attempt: number
  readonly outcome: 'done' | 'gate' | 'error' | 'terminal' | 'timeout' | 'lost' | 'returned'
  readonly at: Date
  readonly durationMs: number | undefined
  readonly worker: string
  readonly error: ErrorView | undefined
  /** The gate that it waits at, or continued after. */
  readonly gate: string | undefined
}

const READ_MS = 5000

/** Reads the outcomes of the scatter, for at most five seconds. Throws `not_found`. */
export async function instanceView(deps: RunDeps, id: string, index: number): Promise<InstanceView> {
  const barrier = await barrierOf(deps, id)
  if (index >= barrier.stored)
    throw new FlowStoneError('not_found', `scatter ${id} has no instance ${index}; it has ${barrier.stored} so far`)
  const [map, [key], found] = await Promise.all([
    scatterMap(deps, id, { from: index, to: index + 1 }),
    keysOf(deps, id, barrier, [index]),
    attemptsOf(deps, id, index),
  ])
  return { scatter: id, index, key, state: INSTANCE_STATES[map.states[0] ?? 0] ?? 'waiting', ...found }
}

async function attemptsOf(
  deps: RunDeps,
  id: string,
  index: number,
): Promise<Pick<InstanceView, 'attempts' | 'complete'>> {
  const found: { readonly seq: number; readonly attempt: InstanceAttempt }[] = []
  const untilMs = performance.now() + READ_MS
  let complete = true
  for await (const fact of factsOf(deps, id)) {
    for (const attempt of attemptsIn(fact, index)) found.push({ seq: fact.seq, attempt })
    complete = performance.now() <= untilMs
    if (!complete) break
  }
  return { attempts: found.toSorted((a, b) => a.seq - b.seq).map(({ attempt }) => attempt), complete }
}

async function* factsOf(deps: RunDeps, id: string): AsyncGenerator<Fact> {
  const { run, asset } = parseBarrierId(id)
  if (deps.docs.past) {
    for await (const fact of deps.docs.factsOfRun(run)) if ('asset' in fact.ids && fact.ids.asset === asset) yield fact
    return
  }
  const paths = (['scatter.outcomes', 'lease.lost'] as const).map((name) => factFilter(name, { run, asset }))
  yield* runFacts(deps, run, { paths, isInAnyOrder: true })
}

function attemptsIn(fact: Fact, index: number): InstanceAttempt[] {
  const at = new Date(fact.timeMs)
  if (fact.name === 'lease.lost') {
    const lease = parseLeaseId(fact.data.lease)
    if (!lease || index < lease.from || index >= lease.to) return []
    const { ordinal: attempt } = lease
    const error = { code: 'worker_lost', message: 'the worker that held its lease died' }
    return [{ attempt, outcome: 'lost', at, durationMs: undefined, worker: fact.data.worker, error, gate: undefined }]
  }
  if (fact.name !== 'scatter.outcomes') return []
  const { at: indexes, ms, ordinal: attempt, worker, errors = [], suspended = [], resumes } = fact.data
  return indexes.flatMap((one, k): InstanceAttempt[] => {
    if (one !== index) return []
    const failed = errors.find(([place]) => place === k)?.[1]
    const waits = suspended.find(([place]) => place === k)?.[1]
    const outcome = failed?.outcome ?? (waits === undefined ? 'done' : 'gate')
    const error = failed && viewOfError(failed.error)
    return [{ attempt, outcome, at, durationMs: ms[k], worker, error, gate: waits ?? resumes }]
  })
}
