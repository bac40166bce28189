import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Effect } from '../../projections/effects.ts'
import { gateTimer } from '../../projections/gate/gate.ts'
import { forgotten } from '../../projections/gate/instance-gate.ts'
import { isDone, isFailed, isSuspended } from '../../projections/scatter/bits.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type AssetInRun, type GateState, type RunState, stateKey, waitingUnder } from '../../projections/state.ts'
import type { FactDraft } from '../../streams/facts.ts'
import type { GateCreated } from '../../streams/gate-schemas.ts'
import { assetName } from '../../streams/ids.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import type { LeaseTask, ResumeTask, Task } from '../../streams/tasks.ts'
import { runs } from '../kit/runs.ts'
import {
  cancel,
  Docs,
  type DraftOf,
  errored,
  foldOne,
  handBack,
  leasesOn,
  materialized,
  outcomes,
  plainScatter,
  printed,
  RUN,
  registered,
  requested,
  Sim,
  scattered,
  spec,
  split,
} from './harness.ts'

const ids = (gate: string, asset: string) => ({ run: RUN, asset: assetName(asset), gate })

function created(gate: string, asset = 'a', data: Partial<GateCreated> = {}): DraftOf<'gate.created'> {
  return {
    name: 'gate.created',
    ids: ids(gate, asset),
    data: {
      kind: 'signal',
      attempt: 1,
      worker: 'w',
      retriesMs: [],
      afterRetries: 'fail',
      keyId: 'k',
      tokenHash: 'h',
      ...data,
    },
  }
}

function suspended(gate: string, attempt = 1, asset = 'a'): DraftOf<'asset.suspended'> {
  return {
    name: 'asset.suspended',
    ids: { pipeline: 'p', run: RUN, asset: assetName(asset), attempt: String(attempt) },
    data: { gate, worker: 'w' },
  }
}

function resolved(
  gate: string,
  outcome: 'signaled' | 'timed_out' | 'cancelled' = 'signaled',
  asset = 'a',
): DraftOf<'gate.resolved'> {
  return { name: 'gate.resolved', ids: ids(gate, asset), data: { ...ids(gate, asset), outcome } }
}

function fired(gate: string, n = 0, asset = 'a'): FactDraft {
  return gateTimer(ids(gate, asset), n)
}

function extended(gate: string, n: number, deadlineMs: number): DraftOf<'gate.extended'> {
  return {
    name: 'gate.extended',
    ids: { ...ids(gate, 'a'), n: String(n) },
    data: { why: 'request', deadlineMs, timeouts: 0 },
  }
}

/** A run of one plain asset `a`, and of `b` that needs it. Its first attempt is out. */
function plainRun(options: Partial<AssetSpec> = {}): Sim {
  const sim = new Sim()
  sim.apply(registered([spec('a', options), spec('b', { dependsOn: ['a'] })]))
  sim.apply(requested('b'))
  return sim
}

const a = (sim: Sim): AssetInRun => {
  const found = sim.run(RUN).assets.a
  if (!found) throw new Error('no asset a')
  return found
}
const gateOf = (sim: Sim, gate: string, asset = 'a'): GateState | undefined =>
  sim.docs.peek(stateKey.gates({ run: RUN, asset, gate }))?.gates[gate]
const tasksIn = (effects: readonly Effect[]): Task[] =>
  effects.flatMap((effect) => (effect.do === 'task' ? [effect.task] : []))
const factsIn = (effects: readonly Effect[]): FactDraft[] =>
  effects.flatMap((effect) => (effect.do === 'fact' ? [effect.fact] : []))

describe('a gate of a plain asset', () => {
  it('waits: no task is due, and nothing is decided', () => {
    const sim = plainRun()
    expect(sim.apply(created('a1n1'))).toEqual([])
    expect(sim.apply(suspended('a1n1'))).toEqual([])
    expect(a(sim)).toMatchObject({ status: 'suspended', gate: 'a1n1' })
    sim.work.clear()
    expect(sim.reconcile()).toEqual([])
  })

  it('signalled, goes on as the next attempt, with failures of its own', () => {
    const sim = plainRun()
    sim.apply(errored('a', 1, { outcome: 'error' }))
    sim.apply(created('a2n1', 'a', { attempt: 2 }))
    sim.apply(suspended('a2n1', 2))
    const seq = sim.log.length + 1
    expect(tasksIn(sim.apply(resolved('a2n1')))).toMatchObject([
      { kind: 'signal', attempt: 3, attemptsLeft: 2, from: { gate: 'a2n1', seq, timeouts: 0 } },
    ])
    sim.apply(errored('a', 3, { phase: 'signal' }))
    expect(a(sim)).toMatchObject({ phase: 'signal', attempt: 4, failures: 1 })
    sim.apply(materialized('a', RUN, 4))
    expect(a(sim).status).toBe('materialized')
  })

  it('signalled before its asset waits, lets it go on at once', () => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    expect(sim.apply(resolved('a1n1'))).toEqual([])
    expect(tasksIn(sim.apply(suspended('a1n1')))).toMatchObject([{ kind: 'signal', attempt: 2 }])
  })

  it.each([
    ['signaled', {}, 'signal'],
    ['timed_out', { onTimeout: true }, 'timeout'],
  ] as const)('that has ended (%s) leads to the phase', (outcome, options, phase) => {
    const sim = plainRun(options)
    sim.apply(created('a1n1'))
    sim.apply(suspended('a1n1'))
    expect(tasksIn(sim.apply(resolved('a1n1', outcome)))).toMatchObject([{ kind: phase }])
    expect(a(sim)).toMatchObject({ status: 'queued', phase })
  })

  it.each([
    ['timed_out', 'fail', 'failed', 'failed'],
    ['timed_out', 'cancel', 'cancelled', 'cancelled'],
    ['cancelled', 'fail', 'cancelled', 'cancelled'],
  ] as const)('that has ended (%s, %s) ends its asset, and the run, as %s', (outcome, afterRetries, asset, run) => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { afterRetries }))
    sim.apply(suspended('a1n1'))
    sim.apply(resolved('a1n1', outcome))
    expect(a(sim).status).toBe(asset)
    expect(sim.run(RUN)).toMatchObject({ status: run, assets: { b: { status: 'skipped' } } })
  })

  it('of an attempt that failed is cancelled, and one that comes too late too', () => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    sim.apply(errored('a', 1))
    expect(gateOf(sim, 'a1n1')?.status).toBe('cancelled')
    expect(factsIn(sim.apply(created('a1n2')))).toMatchObject([
      { name: 'gate.resolved', data: { outcome: 'cancelled' } },
    ])
    expect(sim.apply(suspended('a1n1', 1))).toEqual([])
    expect(a(sim)).toMatchObject({ status: 'queued', attempt: 2 })
  })

  it.each(['lost', 'returned'] as const)('of an attempt that was %s is taken over by the next', (outcome) => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    const [task] = tasksIn(sim.apply(errored('a', 1, { outcome })))
    expect(task).toMatchObject({ attempt: 2, gates: 1 })
    expect(gateOf(sim, 'a1n1')?.status).toBe('waiting')
    // The one that was thought dead comes back with its word: it does not count, and does not stand
    // in the way.
    expect(sim.apply(suspended('a1n1', 1))).toEqual([])
    expect(a(sim).status).toBe('queued')
    expect(sim.apply(suspended('a1n1', 2))).toEqual([])
    expect(a(sim).status).toBe('suspended')
    expect(tasksIn(sim.apply(resolved('a1n1')))).toMatchObject([{ kind: 'signal', attempt: 3 }])
  })

  it('that its attempt opened and does not wait at ends, if the attempt is the one that counts', () => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    sim.apply(created('a1n2'))
    sim.apply(errored('a', 1, { outcome: 'lost' }))
    const left = ({ data, ...fact }: DraftOf<'asset.suspended'>, gate: string) => ({
      ...fact,
      data: { ...data, left: [gate] },
    })
    sim.apply(left(suspended('a1n2', 1), 'a1n1'))
    expect(gateOf(sim, 'a1n1')?.status).toBe('waiting')
    sim.apply(left(suspended('a1n1', 2), 'a1n2'))
    expect(gateOf(sim, 'a1n1')?.status).toBe('waiting')
    expect(gateOf(sim, 'a1n2')?.status).toBe('cancelled')
    expect(a(sim)).toMatchObject({ status: 'suspended', gate: 'a1n1' })
  })

  it('is not disturbed by the late word of a worker that was thought dead', () => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    sim.apply(suspended('a1n1'))
    expect(sim.apply(errored('a', 1, { outcome: 'lost' }))).toEqual([])
    expect(a(sim).status).toBe('suspended')
  })

  it('that its asset does not wait at lets nobody go on', () => {
    const sim = plainRun()
    sim.apply(created('a1n1'))
    sim.apply(created('a1n2'))
    sim.apply(suspended('a1n2'))
    expect(sim.apply(resolved('a1n1'))).toEqual([])
    expect(a(sim)).toMatchObject({ status: 'suspended', gate: 'a1n2' })
    expect(tasksIn(sim.apply(resolved('a1n2')))).toMatchObject([{ kind: 'signal', from: { gate: 'a1n2' } }])
  })

  it('lets nobody go on once the run is to be cancelled, whether its end or the waiting comes then', () => {
    const kindsAfter = (before: FactDraft, after: FactDraft): string[] => {
      const sim = plainRun()
      sim.apply(created('a1n1'))
      sim.apply(before)
      sim.append(cancel())
      sim.append(after)
      sim.settle()
      expect(sim.run(RUN).status).toBe('cancelled')
      return [...sim.issued.values()].flatMap(tasksIn).map(({ kind }) => kind)
    }
    expect(kindsAfter(suspended('a1n1'), resolved('a1n1'))).toEqual(['execute'])
    expect(kindsAfter(resolved('a1n1'), suspended('a1n1'))).toEqual(['execute'])
  })

  it('that is left when its asset or its run has ended is cancelled', () => {
    const ended = plainRun()
    ended.apply(created('a1n1'))
    ended.apply(materialized('a'))
    expect(gateOf(ended, 'a1n1')?.status).toBe('cancelled')
    const cancelled = plainRun()
    cancelled.apply(created('a1n1'))
    cancelled.apply(suspended('a1n1'))
    cancelled.apply(cancel())
    expect(gateOf(cancelled, 'a1n1')?.status).toBe('cancelled')
    expect(cancelled.run(RUN).status).toBe('cancelled')
  })
})

describe('the deadline of a gate', () => {
  it('is moved when a timeout is retried, and the last one is the end', () => {
    const sim = plainRun({ onTimeout: true })
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10, retriesMs: [300, 900] }))
    sim.apply(suspended('a1n1'))
    const at = sim.nowMs + 12
    sim.apply(fired('a1n1', 0), at)
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'waiting', deadlineMs: at + 300, deadlines: 1, timeouts: 1 })
    expect(a(sim).waitsUntilMs).toBe(at + 300)
    expect([...sim.work.values()].map(({ task }) => task)).toContainEqual(
      expect.objectContaining({ kind: 'reminder', retriesLeft: 2 }),
    )
    // Again, and one of a deadline that was moved: nothing.
    sim.append(fired('a1n1', 0))
    sim.settle()
    expect(gateOf(sim, 'a1n1')?.deadlines).toBe(1)
    sim.apply(fired('a1n1', 1), at + 301)
    expect(gateOf(sim, 'a1n1')).toMatchObject({ deadlineMs: at + 1201, timeouts: 2 })
    sim.apply(fired('a1n1', 2), at + 1202)
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'timed_out', timeouts: 3 })
    expect(a(sim)).toMatchObject({ phase: 'timeout', resume: { timeouts: 3 } })
    expect(sim.timers.map(({ dueMs }) => dueMs)).toEqual([at + 300, at + 1201])
  })

  it('that somebody moved makes the timer of the old one mean nothing', () => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10 }))
    sim.apply(extended('a1n1', 1, sim.nowMs + 9999))
    expect(sim.apply(fired('a1n1', 0), sim.nowMs + 11)).toEqual([])
    expect(gateOf(sim, 'a1n1')?.status).toBe('waiting')
    sim.apply(fired('a1n1', 1), sim.nowMs + 9999)
    expect(gateOf(sim, 'a1n1')?.status).toBe('timed_out')
  })

  it('that was moved before its timeout was decided does not end the gate, though its timer stands before', () => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10 }))
    sim.append(fired('a1n1', 0))
    sim.append(extended('a1n1', 1, sim.nowMs + 9999))
    sim.settle()
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'waiting', deadlines: 1, deadlineMs: sim.nowMs + 9999 })
    expect(sim.facts('gate.resolved')).toEqual([])
  })

  it('that was the last one is not moved any more', () => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10 }))
    sim.apply(fired('a1n1', 0))
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'timed_out', deadlines: 0, timeouts: 1 })
    expect(sim.append(extended('a1n1', 1, sim.nowMs + 9999))).toBeUndefined()
    expect(sim.facts('gate.extended')).toEqual([])
    expect(sim.facts('gate.deadline_closed')).toMatchObject([{ data: { timeouts: 0 } }])
  })

  it('is not moved, and no timer set, for a gate that was answered after its timer fired', () => {
    const sim = plainRun({ onTimeout: true })
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10, retriesMs: [300] }))
    sim.append(fired('a1n1', 0))
    sim.append(resolved('a1n1'))
    sim.settle()
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'signaled', deadlines: 0, timeouts: 0 })
    expect(sim.facts('gate.extended')).toEqual([])
    expect(sim.timers).toEqual([])
  })

  it('is not moved by two at once, of whom one would know nothing of the other', () => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { deadlineMs: sim.nowMs + 10, retriesMs: [300] }))
    sim.append(fired('a1n1', 0))
    sim.append(extended('a1n1', 1, sim.nowMs + 9999))
    sim.settle()
    expect(gateOf(sim, 'a1n1')).toMatchObject({ deadlines: 1, deadlineMs: sim.nowMs + 9999, timeouts: 0 })
    expect(sim.timers).toEqual([])
  })

  it('is where the gate is marked, while it waits', () => {
    const sim = plainRun()
    const marks = (): string[] => [...sim.rebase().keys()].filter((key) => key.startsWith('waiting.'))
    sim.apply(created('a1n1', 'a', { deadlineMs: 3_600_000 * 5 + 7 }))
    sim.apply(created('a1n2'))
    expect(marks()).toEqual([
      `waiting.000000005.000000018000000.${RUN}.a.Ra1n0`,
      `waiting.277777777.999999999999000.${RUN}.a.Ra1n0`,
    ])
    sim.apply(extended('a1n1', 1, 3_600_000 * 6))
    expect(marks()).toContain(`waiting.000000006.000000021600000.${RUN}.a.Ra1n0`)
    expect(marks()).toHaveLength(2)
    sim.apply(resolved('a1n1'))
    sim.apply(resolved('a1n2', 'cancelled'))
    expect(marks()).toEqual([])
  })

  it('is in a mark that gates of a row share, until none of them waits', () => {
    const sim = plainRun()
    const deadlineMs = 3_600_000 * 5
    for (const gate of ['a1n1', 'a1n2', 'a1n15', 'a1n16']) sim.apply(created(gate, 'a', { deadlineMs }))
    const of = (row: string): string => `waiting.000000005.000000018000000.${RUN}.a.${row}`
    expect(marksOf(sim)).toEqual([of('Ra1n0'), of('Ra1n1')])
    sim.apply(resolved('a1n2'))
    sim.apply(resolved('a1n16'))
    expect(marksOf(sim)).toEqual([of('Ra1n0')])
    const row = sim.docs.peek(stateKey.gates({ run: RUN, asset: 'a', gate: 'a1n1' }))
    expect(waitingUnder(of('Ra1n0'), row).map(({ gate }) => gate)).toEqual(['a1n1', 'a1n15'])
    sim.apply(resolved('a1n1'))
    sim.apply(resolved('a1n15'))
    expect(marksOf(sim)).toEqual([])
  })

  it('is known of a gate that an older version has folded, which moves into its row when it changes', () => {
    const sim = plainRun()
    sim.apply(created('a1n1', 'a', { deadlineMs: 3_600_000 * 5 + 7 }))
    const at = { run: RUN, asset: 'a', gate: 'a1n1' }
    const [run, gate] = [sim.run(RUN), gateOf(sim, 'a1n1')]
    if (!gate) throw new Error('there is no gate')
    // As that version left it.
    sim.docs.put(stateKey.run(RUN), { ...run, assets: { a: { ...run.assets.a, gated: true } } } as RunState)
    sim.docs.put(stateKey.gateAlone(at), gate)
    sim.docs.put(stateKey.waitingAlone(gate.deadlineMs, at), { since: 0 })
    sim.docs.delete(stateKey.gates(at))
    sim.docs.delete(stateKey.waiting(gate.deadlineMs, at))
    const [mark = ''] = marksOf(sim)
    expect(waitingUnder(mark, gate)).toEqual([gate])
    sim.apply(extended('a1n1', 1, 3_600_000 * 6))
    expect(marksOf(sim)).toEqual([`waiting.000000006.000000021600000.${RUN}.a.Ra1n0`])
    expect(sim.docs.peek(stateKey.gateAlone(at))).toBeUndefined()
    sim.apply(created('a1n2'))
    sim.apply(suspended('a1n1'))
    expect(tasksIn(sim.apply(resolved('a1n1')))).toMatchObject([{ kind: 'signal' }])
    expect(gateOf(sim, 'a1n1')).toMatchObject({ status: 'signaled', deadlines: 1 })
  })
})

// ---- instances: whatever happens in whatever order, each is counted once, and all end ----

const TOTAL = 7

/** What happens next: a number that picks from what is possible. */
const happenings = fc.array(fc.tuple(fc.nat(12), fc.nat(1000), fc.nat(5)), { minLength: 5, maxLength: 60 })

interface World {
  readonly sim: Sim
  gates: number
}

function barrierOf(sim: Sim): BarrierState {
  const barrier = sim.docs.peek(stateKey.barrier(RUN, 's'))
  if (!barrier) throw new Error('no barrier')
  return barrier
}

function pick<T>(list: readonly T[], n: number): T | undefined {
  return list[n % Math.max(1, list.length)]
}

function open(world: World, index: number, attempt: number, name?: string): string {
  world.gates += 1
  const gate = name ?? `i${index}a${attempt}n${world.gates}`
  const deadlineMs = world.sim.nowMs + 1000
  const data = { attempt, index, keyChunk: 0, deadlineMs, retriesMs: [50] }
  world.sim.append(created(gate, 's', data))
  return gate
}

/**
 * A worker runs a lease, and reports of each instance what comes: a value, an error, or a gate it
 * waits at.
 */
function runLeaseOf(world: World, task: LeaseTask, dice: number): void {
  const at: number[] = []
  const answers: [number, 'ok' | 'error' | 'terminal'][] = []
  const gates: [number, string][] = []
  for (let index = task.from; index < task.to; index++) {
    const roll = (dice + 7 * index) % 6
    if (roll === 5) continue
    if (roll < 3) gates.push([at.length, open(world, index, task.ordinal)])
    at.push(index)
    answers.push([index, roll === 3 ? 'error' : 'ok'])
  }
  const draft = outcomes(task.lease, answers, { heldMs: 5 })
  world.sim.append(gates.length > 0 ? { ...draft, data: { ...draft.data, suspended: gates } } : draft)
}

function runResumeOf(world: World, task: ResumeTask, dice: number): void {
  const draft = outcomes(`gate-${task.from.gate}`, [[task.index, dice % 4 === 1 ? 'error' : 'ok']])
  const data = { ...draft.data, ordinal: task.ordinal, resumes: task.from.gate }
  const next = dice % 4 === 2 ? open(world, task.index, task.ordinal) : undefined
  const lost = { error: { code: 'worker_lost', message: 'lost' }, outcome: 'lost' } as const
  if (dice % 5 === 4) world.sim.append({ ...draft, data: { ...data, errors: [[0, lost]] } })
  else if (next) world.sim.append({ ...draft, data: { ...data, suspended: [[0, next]] } })
  else world.sim.append({ ...draft, data })
}

function happen(world: World, [what, n, dice]: readonly [number, number, number]): void {
  const { sim } = world
  sim.settle()
  const tasks = [...sim.work.values()].map(({ task }) => task)
  const task = pick(tasks, n)
  const gate = pick(sim.facts('gate.created'), n)?.ids.gate
  const before = pick(sim.log, n)
  switch (what) {
    case 0:
    case 1:
    case 2:
    case 3:
      if (task?.kind === 'lease') runLeaseOf(world, task, n + dice)
      else if (task?.kind === 'resume') runResumeOf(world, task, n + dice)
      // Mostly acknowledged; else it is retried.
      if (task && (task.kind === 'lease' || task.kind === 'resume') && dice > 0) sim.work.delete(task.id)
      break
    case 4:
    case 5:
      if (gate) sim.append(resolved(gate, 'signaled', 's'))
      break
    case 6:
      if (gate) sim.append(resolved(gate, dice > 3 ? 'cancelled' : 'signaled', 's'))
      break
    case 7:
      if (gate) sim.append(fired(gate, dice % 3, 's'))
      break
    case 8:
      if (task?.kind === 'lease') {
        sim.append(split(task.lease, dice > 2 ? 'lost' : 'returned'))
        sim.work.delete(task.id)
      }
      break
    case 9:
      // Some word comes twice.
      if (before && ['scatter.outcomes', 'gate.timer_fired'].includes(before.name)) sim.append(before)
      break
    case 10:
      sim.checkpoint()
      break
    case 11:
      sim.crash(dice, n % 2 === 0)
      break
    default:
      sim.nowMs += n
  }
  sim.settle()
  expectCounted(sim)
}

function expectCounted(sim: Sim): void {
  const barrier = barrierOf(sim)
  const segment = sim.docs.peek(stateKey.segment(RUN, 's', 0))
  const count = (has: (index: number) => boolean): number =>
    Array.from({ length: TOTAL }, (_, i) => i).filter(has).length
  const done = (i: number): boolean => segment !== undefined && isDone(segment, i)
  const waits = (i: number): boolean => segment !== undefined && isSuspended(segment, i)
  expect(count(done)).toBe(barrier.succeeded + barrier.failed)
  expect(count((i) => segment !== undefined && isFailed(segment, i))).toBe(barrier.failed)
  if (barrier.status !== 'open') return
  expect(count(waits)).toBe(barrier.suspended ?? 0)
  expect(count((i) => done(i) && waits(i))).toBe(0)
  const leased = Object.values(barrier.leases).reduce((n, { left }) => n + left, 0)
  const due = count(
    (i) => !done(i) && [...barrier.requeued, ...(barrier.deferred ?? [])].some(({ from, to }) => i >= from && i < to),
  )
  const unfed = barrier.stored - barrier.fedTo
  expect(barrier.succeeded + barrier.failed + (barrier.suspended ?? 0) + leased + due + unfed).toBe(TOTAL)
}

/** From here on all goes well: tasks are run, gates are answered. */
function finish(world: World): void {
  const { sim } = world
  for (let round = 0; round < 200 && barrierOf(sim).status === 'open'; round++) {
    sim.reconcile()
    reconcileResumes(sim)
    for (const { task } of [...sim.work.values()]) {
      if (task.kind === 'lease') {
        const answers = Array.from({ length: task.to - task.from }, (_, k): [number, 'ok'] => [task.from + k, 'ok'])
        sim.append(outcomes(task.lease, answers, { heldMs: 5 }))
      } else if (task.kind === 'resume') {
        const draft = outcomes(`gate-${task.from.gate}`, [[task.index, 'ok']])
        sim.append({ ...draft, data: { ...draft.data, ordinal: task.ordinal, resumes: task.from.gate } })
      }
      sim.work.delete(task.id)
    }
    for (const { ids: at } of sim.facts('gate.created')) sim.append(resolved(at.gate, 'signaled', 's'))
    sim.settle()
    expectCounted(sim)
  }
}

/** What the reconciler does for instances that go on from a gate. */
function reconcileResumes(sim: Sim): void {
  for (const effects of sim.issued.values())
    for (const effect of effects) {
      if (effect.do !== 'task' || effect.task.kind !== 'resume') continue
      const gate = gateOf(sim, effect.task.from.gate, 's')
      if (gate?.resume?.attempt === effect.task.ordinal && !gate.closed) sim.work.set(effect.task.id, effect)
    }
}

/** Marks of what waits, and of what goes on. */
function marksOf(sim: Sim): string[] {
  return [...sim.rebase().keys()].filter((key) => key.startsWith('waiting.') || key.startsWith('resuming.'))
}

/** What the reconciler does once the scatter is closed. */
function forgetResumes(sim: Sim): void {
  for (const mark of marksOf(sim)) {
    const [kind, , asset = '', gate = ''] = mark.split('.')
    const doc = kind === 'resuming' ? gateOf(sim, gate, asset) : undefined
    const fact = doc && forgotten(doc)
    if (fact) sim.apply(fact)
  }
}

describe('instances at gates', () => {
  const options = {
    scatter: { ...plainScatter, failureMode: 'partial', threshold: { fraction: 1 } },
    retry: { maxAttempts: 2, backoffMinMs: 10, backoffMaxMs: 10 },
  } as const

  it('that were lost with open gates find them, also when the next worker hands them back unbegun', () => {
    const sim = scattered([TOTAL], options)
    const [lease] = leasesOn(sim)
    sim.apply(split(lease?.lease ?? '', 'lost'))
    const again = leasesOn(sim).find(({ ordinal }) => ordinal === 2)
    expect(again).toMatchObject({ gates: 1 })
    sim.apply(handBack(again?.lease ?? '', again?.from ?? 0))
    expect(leasesOn(sim).find(({ ordinal, from }) => ordinal === 3 && from === again?.from)).toMatchObject({ gates: 1 })
  })

  /** Instance 0 runs in a lease of its own, after a worker that opened its gate was lost. */
  function lostOnce(): { sim: Sim; lease: string } {
    const sim = scattered([1], options)
    sim.apply(created('i0a1n1', 's', { index: 0, keyChunk: 0 }))
    sim.apply(split('0-1-1', 'lost'))
    return { sim, lease: '0-1-2' }
  }
  const withGates = (draft: DraftOf<'scatter.outcomes'>, data: object): DraftOf<'scatter.outcomes'> => ({
    ...draft,
    data: { ...draft.data, ...data },
  })

  it('that were taken over lose no gate by the late error of who was thought dead; by an error that counts they do', () => {
    const { sim, lease } = lostOnce()
    const left = { left: [[0, ['i0a1n1']]] }
    sim.apply(withGates(outcomes('0-1-1', [[0, 'error']]), left))
    expect(gateOf(sim, 'i0a1n1', 's')?.status).toBe('waiting')
    sim.apply(withGates(outcomes(lease, [[0, 'ok']]), { suspended: [[0, 'i0a1n1']], ordinal: 2 }))
    sim.apply(withGates(outcomes('0-1-1', [[0, 'error']]), left))
    expect(gateOf(sim, 'i0a1n1', 's')?.status).toBe('waiting')
    expect(barrierOf(sim)).toMatchObject({ status: 'open', suspended: 1, failed: 0 })

    const other = lostOnce()
    other.sim.apply(withGates(outcomes(lease, [[0, 'terminal']]), left))
    expect(gateOf(other.sim, 'i0a1n1', 's')?.status).toBe('cancelled')
    expect(barrierOf(other.sim)).toMatchObject({ status: 'partial_failure', failed: 1 })
  })

  it('count the first value that came from behind a gate, also when they wait at the next one: the gather reads that one', () => {
    const { sim, lease } = lostOnce()
    sim.apply(withGates(outcomes(lease, [[0, 'ok']]), { suspended: [[0, 'i0a1n1']], ordinal: 2 }))
    sim.apply(resolved('i0a1n1', 'signaled', 's'))
    const from = { resumes: 'i0a1n1', ordinal: 1 }
    sim.apply(created('i0a1n1r1n1', 's', { index: 0, keyChunk: 0 }))
    sim.apply(withGates(outcomes('gate-i0a1n1', [[0, 'ok']]), { ...from, suspended: [[0, 'i0a1n1r1n1']] }))
    expect(barrierOf(sim)).toMatchObject({ suspended: 1, succeeded: 0 })
    sim.apply(withGates(outcomes('gate-i0a1n1', [[0, 'ok']]), from))
    expect(barrierOf(sim)).toMatchObject({ status: 'completed', succeeded: 1 })
  })

  /** The only instance continues after its gate. Two failures, and it has failed. */
  function goingOn(): Sim {
    const { sim, lease } = lostOnce()
    sim.apply(withGates(outcomes(lease, [[0, 'ok']]), { suspended: [[0, 'i0a1n1']], ordinal: 2 }))
    expect(tasksIn(sim.apply(resolved('i0a1n1', 'signaled', 's')))).toMatchObject([{ kind: 'resume', ordinal: 1 }])
    return sim
  }
  const behind = (gate: string, answer: 'ok' | 'error', ordinal: number, data: object = {}): FactDraft =>
    withGates(outcomes(`gate-${gate}`, [[0, answer]]), { resumes: gate, ordinal, ...data })

  it('that go on from a gate fail by errors of the execution that is current, and not by the late word of one before', () => {
    const sim = goingOn()
    expect(tasksIn(sim.apply(behind('i0a1n1', 'error', 1)))).toMatchObject([{ kind: 'resume', ordinal: 2 }])
    expect(sim.apply(behind('i0a1n1', 'error', 1))).toEqual([])
    expect(gateOf(sim, 'i0a1n1', 's')?.resume).toMatchObject({ attempt: 2, failures: 1 })
    expect(barrierOf(sim)).toMatchObject({ status: 'open', suspended: 1, failed: 0 })
    // Nor does it wait at the gate that the one before had opened.
    sim.apply(created('i0a1n1r1n1', 's', { index: 0, keyChunk: 0 }))
    sim.apply(behind('i0a1n1', 'ok', 1, { suspended: [[0, 'i0a1n1r1n1']] }))
    expect(gateOf(sim, 'i0a1n1r1n1', 's')?.awaited).toBeUndefined()
    expect(gateOf(sim, 'i0a1n1', 's')?.resume).toMatchObject({ attempt: 2, failures: 1 })
    sim.apply(behind('i0a1n1', 'error', 2))
    expect(barrierOf(sim)).toMatchObject({ status: 'partial_failure', failed: 1 })
  })

  it('that go on to another gate wait there, and the one before says nothing any more', () => {
    const sim = goingOn()
    sim.apply(created('i0a1n1r1n1', 's', { index: 0, keyChunk: 0 }))
    expect(tasksIn(sim.apply(behind('i0a1n1', 'ok', 1, { suspended: [[0, 'i0a1n1r1n1']] })))).toEqual([])
    expect(barrierOf(sim)).toMatchObject({ status: 'open', suspended: 1 })
    expect(gateOf(sim, 'i0a1n1', 's')).toMatchObject({ closed: true })
    expect(marksOf(sim)).toEqual([expect.stringMatching(/^waiting\..*Ri0a1n1r1n0$/)])
    for (const late of [1, 2]) {
      sim.apply(behind('i0a1n1', 'error', late))
      sim.apply(behind('i0a1n1', 'error', late))
    }
    expect(barrierOf(sim)).toMatchObject({ status: 'open', suspended: 1, failed: 0 })
    expect(tasksIn(sim.apply(resolved('i0a1n1r1n1', 'signaled', 's')))).toMatchObject([
      { kind: 'resume', ordinal: 1, from: { gate: 'i0a1n1r1n1' } },
    ])
    sim.apply(behind('i0a1n1r1n1', 'ok', 1))
    expect(barrierOf(sim)).toMatchObject({ status: 'completed', succeeded: 1 })
    expect(marksOf(sim)).toEqual([])
  })

  it('that go on to another gate that was answered before go on from there at once', () => {
    const sim = goingOn()
    sim.apply(created('i0a1n1r1n1', 's', { index: 0, keyChunk: 0 }))
    expect(sim.apply(resolved('i0a1n1r1n1', 'signaled', 's'))).toEqual([])
    expect(tasksIn(sim.apply(behind('i0a1n1', 'ok', 1, { suspended: [[0, 'i0a1n1r1n1']] })))).toMatchObject([
      { kind: 'resume', ordinal: 1, from: { gate: 'i0a1n1r1n1' } },
    ])
  })

  it('that go on to another gate fail there when that is cancelled', () => {
    const sim = goingOn()
    sim.apply(created('i0a1n1r1n1', 's', { index: 0, keyChunk: 0 }))
    sim.apply(behind('i0a1n1', 'ok', 1, { suspended: [[0, 'i0a1n1r1n1']] }))
    sim.apply(resolved('i0a1n1r1n1', 'cancelled', 's'))
    expect(barrierOf(sim)).toMatchObject({ status: 'partial_failure', failed: 1, error: { code: 'gate_cancelled' } })
  })

  /** One instance continues after its gate, another one waits; then its scatter is closed. */
  function closedEarly(draft: FactDraft): Sim {
    const sim = scattered([2], { ...options, scatter: plainScatter })
    for (const index of [0, 1]) sim.apply(created(`i${index}a1n1`, 's', { index, keyChunk: 0 }))
    const waits = {
      suspended: [
        [0, 'i0a1n1'],
        [1, 'i1a1n1'],
      ],
    }
    sim.apply(
      withGates(
        outcomes('0-2-1', [
          [0, 'ok'],
          [1, 'ok'],
        ]),
        waits,
      ),
    )
    sim.apply(resolved('i0a1n1', 'signaled', 's'))
    expect(marksOf(sim)).toHaveLength(2)
    sim.apply(draft)
    expect(barrierOf(sim).status).toBe('cancelled')
    expect(sim.run(RUN).finishedMs).toBeDefined()
    return sim
  }

  const cancelled: FactDraft = { name: 'scatter.cancel_requested', ids: { run: RUN, asset: assetName('s') }, data: {} }

  it.each([
    ['scatter', cancelled],
    ['run', cancel()],
  ])(
    'of a cancelled %s leave no mark: those that wait at once, those that went on with the word of the reconciler',
    (_, draft) => {
      const sim = closedEarly(draft)
      expect(marksOf(sim)).toEqual([stateKey.resuming(RUN, 's', 'i0a1n1')])
      forgetResumes(sim)
      expect(marksOf(sim)).toEqual([])
      expect(gateOf(sim, 'i0a1n1', 's')).toMatchObject({ closed: true })
    },
  )

  it('of a scatter that was closed early leave no mark when their outcome comes late', () => {
    const sim = closedEarly(cancelled)
    sim.apply(withGates(outcomes('gate-i0a1n1', [[0, 'ok']]), { resumes: 'i0a1n1', ordinal: 1 }))
    expect(marksOf(sim)).toEqual([])
    expect(barrierOf(sim)).toMatchObject({ succeeded: 0, failed: 0 })
  })

  it('that an older execution has ended leave no mark when what went on from the gate has ended, too', () => {
    const sim = scattered([2], options)
    sim.apply(created('i0a1n1', 's', { index: 0, keyChunk: 0 }))
    sim.apply(withGates(outcomes('0-2-1', [[0, 'ok']]), { suspended: [[0, 'i0a1n1']] }))
    sim.apply(resolved('i0a1n1', 'signaled', 's'))
    sim.apply(outcomes('0-2-1', [[0, 'ok']]))
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 1, suspended: 0 })
    expect(marksOf(sim)).toHaveLength(1)
    sim.apply(withGates(outcomes('gate-i0a1n1', [[0, 'ok']]), { resumes: 'i0a1n1', ordinal: 1 }))
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 1 })
    expect(marksOf(sim)).toEqual([])
  })

  it('of a run that is cancelled get no gate any more, though their scatter is not closed yet', () => {
    const sim = scattered([1], options)
    const docs = new Docs()
    for (const fact of sim.log) foldOne(docs, fact)
    const next = (draft: FactDraft, n: number): Effect[] =>
      foldOne(docs, { ...draft, shard: 0, seq: sim.log.length + n, timeMs: sim.nowMs + n })
    next(cancel(), 1)
    const ids = { pipeline: 'p', run: RUN, asset: assetName('s') }
    next({ name: 'asset.cancelled', ids, data: { run: RUN, asset: 's', pipeline: 'p' } }, 2)
    expect(factsIn(next(created('i0a1n1', 's', { index: 0, keyChunk: 0 }), 3))).toMatchObject([
      { name: 'gate.resolved', data: { outcome: 'cancelled' } },
    ])
  })

  it('are counted once, whatever happens in whatever order, and in the end all have ended and no gate waits', () => {
    fc.assert(
      fc.property(happenings, (events) => {
        const world: World = { sim: scattered([TOTAL], options), gates: 0 }
        for (const event of events) if (barrierOf(world.sim).status === 'open') happen(world, event)
        finish(world)
        const { sim } = world
        const barrier = barrierOf(sim)
        expect(barrier.status).not.toBe('open')
        expect(barrier.succeeded + barrier.failed).toBe(TOTAL)
        for (const { ids: at } of sim.facts('gate.created'))
          expect(gateOf(sim, at.gate, 's')?.status, at.gate).not.toBe('waiting')
        forgetResumes(sim)
        expect(marksOf(sim)).toEqual([])
        // Folded anew from its beginning, the log gives the same documents.
        const docs = new Docs()
        for (const fact of sim.log) foldOne(docs, fact)
        expect(printed(docs.checkpoint())).toEqual(printed(sim.rebase()))
      }),
      runs(100),
    )
  })
})
