import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import type { LeaseTask } from '../../streams/tasks.ts'
import { runs } from '../kit/runs.ts'
import { checkBarrier, Model } from './barrier-model.ts'
import {
  type Answer,
  type Bucket,
  barrierOf,
  cancel,
  Docs,
  type DraftOf,
  foldOne,
  handBack,
  keyChunk,
  outcomes,
  paused,
  plainScatter,
  printed,
  RUN,
  resumed,
  type Sim,
  scatterRun,
  scatterStarted,
  sized,
  split,
  timerFired,
} from './harness.ts'

const ACTIONS = [
  'fold',
  'answer ok',
  'answer ok',
  'answer mixed',
  'answer and keep',
  'report a part',
  'split lost',
  'late outcomes',
  'drain',
  'hand back',
  'duplicate',
  'lose a task',
  'crash',
  'crash, WORK forgets ids',
  'checkpoint',
  'clock',
  'more items',
  'pause',
  'resume',
  'hold back',
  'time is over',
  'cancel',
] as const

const action = fc.record({
  what: fc.integer({ min: 0, max: 10 * ACTIONS.length - 1 }).map((i) => ACTIONS[Math.floor(i / 10)] ?? 'fold'),
  a: fc.nat({ max: 1000 }),
  b: fc.nat({ max: 0xffff }),
})
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

const scenario = fc.record({
  keyChunks: fc.oneof<fc.Arbitrary<number[]>[]>(
    fc.constant([]),
    fc.constant([1]),
    fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 6 }),
    fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 3 }),
  ),
  maxAttempts: fc.integer({ min: 1, max: 4 }),
  backoffMs: fc.constantFrom(0, 0, 1000),
  strategy: fc.constantFrom('individual', 'individual', 'batch'),
  /** How many may fail; undefined: all or nothing. */
  allowed: fc.constantFrom<({ count: number } | { fraction: number } | undefined)[]>(
    undefined,
    undefined,
    { count: 1 },
    { count: 5 },
    { fraction: 0.3 },
    { fraction: 1 },
  ),
  /**
   * What the barrier starts with: a small window is full soon, so that instances queue up for their
   * next lease.
   */
  window: fc.constantFrom(1, 3, 8, 64),
  leaseSize: fc.constantFrom(1, 4, 16),
  /** How much of the scatter is stored before the schedule begins. */
  stored: fc.nat({ max: 8 }),
  /**
   * Whether instances may fail for good, and runs be cancelled: a scatter in which all goes well in
   * the end is the longer one.
   */
  harsh: fc.boolean(),
  actions: fc.array(action, { maxLength: 200, size: 'max' }),
})
type Scenario = typeof scenario extends fc.Arbitrary<infer S> ? S : never

/**
 * Plays a schedule, checks the barrier at every sequence, and then answers all that is asked until
 * the scatter ends.
 */
function play(given: Scenario): { sim: Sim; model: Model; total: number; base: Bucket; from: number } {
  const { keyChunks, maxAttempts, backoffMs, harsh, actions } = given
  const retry = { maxAttempts: harsh ? maxAttempts : 1_000, backoffMinMs: backoffMs, backoffMaxMs: backoffMs }
  const { strategy, allowed } = given
  const mode = allowed ? ({ failureMode: 'partial', threshold: allowed } as const) : {}
  const sim = scatterRun({ retry, scatter: { ...plainScatter, ...mode, strategy, totalTimeoutMs: 5000 } })
  const model = new Model(retry.maxAttempts)
  let modelled = 0
  const total = keyChunks.reduce((sum, count) => sum + count, 0)
  const deliveries = new Map<string, number>()
  const lost = new Set<string>()
  const late: LeaseTask[] = []
  const sent: DraftOf<'scatter.outcomes'>[] = []
  sim.append(scatterStarted())
  sim.settle()
  for (const fact of sim.log) model.fold(fact)
  modelled = sim.folded
  const barrier = barrierOf(sim)
  barrier.window = given.window
  barrier.leaseSize = given.leaseSize
  sim.docs.put(stateKey.barrier(RUN, 's'), barrier)
  const base = sim.rebase()
  const from = sim.folded

  const fold = (most: number): void => {
    for (let i = 0; i < most; i++) {
      if (!sim.fold()) return
      const fact = sim.log[sim.folded - 1]
      if (fact && fact.seq > modelled) {
        model.fold(fact)
        modelled = fact.seq
      }
      // After a crash the engine is behind the model for a while.
      if (sim.folded === modelled && model.instances.length > 0) checkBarrier(sim, model)
    }
  }
  const send = (task: LeaseTask, answers: readonly (readonly [number, Answer])[], heldMs?: number): void => {
    const draft = outcomes(task.lease, answers, {
      worker: `w${task.from % 3}`,
      ...(heldMs === undefined ? {} : { heldMs }),
    })
    sent.push(draft)
    sim.append(draft)
  }
  const all = (task: LeaseTask, answer: (k: number) => Answer): [number, Answer][] =>
    Array.from({ length: task.to - task.from }, (_, k): [number, Answer] => [task.from + k, answer(k)])
  const mixed =
    (bits: number) =>
    (k: number): Answer => {
      const roll = ((bits >> (k % 13)) ^ k) & 7
      if (roll === 0) return harsh && (bits & 0xf00) === 0 ? 'terminal' : 'error'
      if (roll === 1) return 'now'
      if (roll === 2) return 'returned'
      return roll === 3 ? 'error' : 'ok'
    }
  /**
   * One of the tasks that may be delivered; a task delivered before is split by whoever gets it, as
   * src/worker/worker.ts does.
   */
  const take = (a: number): LeaseTask | undefined => {
    const due = sim.due('lease').flatMap(({ task }) => (task.kind === 'lease' ? [task] : []))
    const task = due[a % Math.max(1, due.length)]
    if (!task) return undefined
    const count = (deliveries.get(task.id) ?? 0) + 1
    deliveries.set(task.id, count)
    if (count === 1) return task
    sim.append(split(task.lease, 'lost'))
    sim.work.delete(task.id)
    late.push(task)
    return undefined
  }

  const script = [
    ...keyChunks.map((count, i) =>
      keyChunk(
        keyChunks.slice(0, i).reduce((sum, c) => sum + c, 0),
        count,
      ),
    ),
    sized(total),
  ]
  const act = ({ what, a, b }: Action): void => {
    switch (what) {
      case 'fold':
        fold(a % 20)
        return
      case 'more items': {
        const next = script.shift()
        if (next) sim.append(next)
        return
      }
      case 'answer ok':
      case 'answer mixed':
      case 'answer and keep': {
        const task = take(a)
        if (!task) return
        send(task, all(task, what === 'answer ok' ? () => 'ok' : mixed(b)), (a % 5) * 20)
        if (what !== 'answer and keep') sim.work.delete(task.id)
        return
      }
      case 'report a part': {
        const task = take(a)
        if (task)
          send(
            task,
            all(task, mixed(b)).filter((_, k) => ((b >> (k % 16)) & 1) === 1),
          )
        return
      }
      case 'split lost': {
        const task = take(a)
        if (task) take(a)
        return
      }
      case 'late outcomes': {
        const task = late[a % Math.max(1, late.length)]
        if (task) send(task, all(task, mixed(b)), 5)
        return
      }
      case 'drain': {
        const task = take(a)
        if (!task) return
        send(task, all(task, mixed(b)).slice(0, b % (task.to - task.from + 1)))
        sim.append(split(task.lease, 'returned'))
        sim.work.delete(task.id)
        return
      }
      case 'hand back': {
        const task = take(a)
        if (!task) return
        // Part of it is reported before, part after; what is handed back is never begun.
        const from = task.from + (b % (task.to - task.from + 1))
        const begun = all(task, mixed(b)).slice(0, from - task.from)
        send(task, begun.slice(0, a % (begun.length + 1)))
        sim.append(handBack(task.lease, from, a))
        if (b % 3 === 0) return
        send(task, begun.slice(a % (begun.length + 1)), a)
        sim.work.delete(task.id)
        return
      }
      case 'duplicate': {
        const draft = sent[a % Math.max(1, sent.length)]
        if (draft) sim.append(draft)
        return
      }
      case 'lose a task': {
        const task = take(a)
        if (!task) return
        sim.work.delete(task.id)
        deliveries.delete(task.id)
        lost.add(task.id)
        return
      }
      case 'checkpoint':
        fold(a % 5)
        sim.checkpoint()
        return
      case 'crash':
        sim.crash(a % 3, false)
        return
      case 'crash, WORK forgets ids':
        deliveries.clear()
        sim.crash(a % 3, true)
        return
      case 'clock':
        sim.nowMs += a
        return
      case 'pause':
        sim.append(paused())
        return
      case 'resume':
        sim.append(resumed())
        return
      case 'hold back': {
        // What a worker does with a lease of a paused scatter: it ends what it has begun, and says
        // that the rest goes back. It may believe so longer than it is true.
        const task = take(a)
        if (!task) return
        const begun = all(task, mixed(b)).slice(0, b % 3 === 0 ? 0 : b % (task.to - task.from))
        sim.append(handBack(task.lease, task.from + begun.length))
        if (begun.length > 0) send(task, begun)
        sim.work.delete(task.id)
        return
      }
      case 'time is over':
        if (harsh && b % 20 === 0) sim.append(timerFired(5000))
        return
      case 'cancel':
        if (harsh && b % 20 === 0) sim.append(cancel())
        return
      default:
        what satisfies never
    }
  }
  for (let i = 0; i < given.stored; i++) act({ what: 'more items', a: 0, b: 0 })
  for (const each of actions) {
    act(each)
    fold(each.b % 4)
  }

  // From here all goes well: what is asked is answered, and what got lost is found by the
  // reconciler.
  while (script.length > 0) act({ what: 'more items', a: 0, b: 0 })
  sim.append(resumed())
  for (let turn = 0; ; turn++) {
    fold(Number.POSITIVE_INFINITY)
    if (barrierOf(sim).status !== 'open') break
    if (turn > 20_000) throw new Error('the barrier does not close')
    const task = take(0)
    if (task) {
      send(
        task,
        all(task, () => 'ok'),
        1,
      )
      sim.work.delete(task.id)
    } else if (sim.folded === sim.log.length && sim.due('lease').length === 0) {
      const repaired = sim.reconcile().filter((id) => id.split('.').length === 3 && lost.has(id))
      if (repaired.length === 0 && barrierOf(sim).status === 'open') {
        throw new Error(`the barrier stays open, and nothing will move it: ${JSON.stringify(barrierOf(sim))}`)
      }
    }
  }
  return { sim, model, total, base, from }
}

function mayFail(allowed: Scenario['allowed'], total: number): number {
  if (!allowed) return 0
  return 'count' in allowed ? allowed.count : Math.floor(allowed.fraction * total + 1e-9)
}

describe('a barrier under any schedule', () => {
  it('counts each instance once at every sequence, and closes once, when and only when all is answered', () => {
    fc.assert(
      fc.property(scenario, (given) => {
        const { sim, model, total, base, from } = play(given)
        const closed = sim.facts('scatter.closed')
        expect(closed).toHaveLength(1)
        const decided = [...sim.issued.values()]
          .flat()
          .filter((c) => c.do === 'fact' && c.fact.name === 'scatter.closed')
        expect(decided).toHaveLength(1)
        const barrier = barrierOf(sim)
        expect(closed[0]?.data).toMatchObject({
          status: barrier.status,
          succeeded: barrier.succeeded,
          failed: barrier.failed,
          ...(barrier.total === undefined ? {} : { total: barrier.total }),
        })
        expect([barrier.succeeded, barrier.failed]).toEqual([model.count('succeeded'), model.count('failed')])
        if (barrier.status === 'completed') {
          expect([barrier.succeeded, barrier.failed]).toEqual([total, 0])
          expect(model.instances.every(({ end }) => end === 'succeeded')).toBe(true)
        } else if (barrier.status === 'partial_failure') {
          expect(barrier.failed).toBeGreaterThan(0)
          expect(barrier.succeeded + barrier.failed).toBe(total)
          expect(barrier.failed).toBeLessThanOrEqual(mayFail(given.allowed, total))
          expect(model.instances.every(({ end }) => end !== undefined)).toBe(true)
        } else if (barrier.status === 'failed') {
          if (closed[0]?.data.error?.code === 'timeout') expect(sim.facts('scatter.timer_fired')).toHaveLength(1)
          else expect(barrier.failed).toBeGreaterThan(mayFail(given.allowed, total))
        } else {
          expect(barrier.status).toBe('cancelled')
          expect(sim.facts('run.cancel_requested')).toHaveLength(1)
        }
        // Folded once more without the crashes, the documents are the same.
        const again = new Docs(base)
        for (const fact of sim.log.slice(from)) foldOne(again, fact)
        expect(printed(sim.docs.checkpoint())).toEqual(printed(again.checkpoint()))
      }),
      runs(60),
    )
  })
})
