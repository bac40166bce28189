/**
 * Runs the instances of a lease, with the worker's own concurrency, and reports them in groups:
 * when the lease ends, and every 50 ms while it lasts. The lease is acknowledged only after the
 * last report is stored.
 */
import { setImmediate } from 'node:timers/promises'
import type { FactDraft } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { LeaseTask } from '../../../streams/tasks.ts'
import { sizeOfSnapshot, snapshot } from '../../../streams/value.ts'
import type { AnyAsset } from '../../define/asset.ts'
import { Suspension } from '../../define/gates.ts'
import type { Limits } from '../../define/limits.ts'
import { factEntry } from '../../log/entries.ts'
import { channelOf, emit, type InstanceEvent } from '../../telemetry.ts'
import { callAs, executions } from '../attempt/executions.ts'
import { isUnreachable, runLimited } from '../attempt/limits.ts'
import { type Failure, failureOf, isThenable, runCode } from '../attempt/run-code.ts'
import { InstanceContextOf, InstanceGates, type WorkerShared } from '../attempt/shared.ts'
import type { Deps, KeyChunk } from '../attempt/values.ts'
import { ComeAgain, HandBack, Paused } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { Slots, type Turn } from '../pull/slots.ts'
import { inlineMax, Report } from './report.ts'

const completions = channelOf('flowstone:scatter.instance_complete')
const failures = channelOf('flowstone:scatter.instance_fail')

/**
 * A lease is cut to last some 80 ms, of a limited queue twice that. After this long, what it has
 * not begun is handed back.
 */
const LONG_MS = 150
/**
 * … and after this long already where all slots of this process are taken, and none became free
 * lately.
 */
const BLOCKED_MS = 40
const TURN_MS = 20
const LOOK_MS = 20
const LIMITED_LOOK_MS = 50
const YIELD_MS = 20

/**
 * Each lease of a limited queue stands for one of `maxConcurrent`. This worker runs as many
 * instances of the scatter at a time as it holds leases of it. Not one of each: while one lease
 * waits for its report to be stored, another's instances use its place. A lease is acknowledged,
 * and may be followed by another, only when its place is free.
 */
export async function runLease(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
): Promise<void> {
  if (!task.serial) return await runInstances(shared, held, task, asset, undefined)
  const limitedQueue = `${task.run}.${asset.name}`
  const places = shared.places.get(limitedQueue) ?? new Slots(0)
  shared.places.set(limitedQueue, places)
  places.grow()
  try {
    await runInstances(shared, held, task, asset, places)
  } finally {
    await places.shrink()
    if (places.size === 0) shared.places.delete(limitedQueue)
  }
}

async function runInstances(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
  places: Slots | undefined,
): Promise<void> {
  const run = parseRunId(task.run).id
  const name = assetName(asset.name)
  const startedMs = performance.now()
  const report = new Report(shared, { shard: held.shard, run, asset: name }, task)
  const inlineBytes = inlineMax(shared.connection)
  const loaded = await load(shared, held, task, asset, report)
  if (!loaded) return
  const { keyChunk, deps } = loaded
  const generation = task.gates ?? task.ordinal
  const gates = new InstanceGates(shared, (index) => ({
    shard: held.shard,
    run: task.run,
    asset: asset.name,
    prefix: `i${index}a${generation}`,
    attempt: generation,
    index,
    keyChunk: task.keyChunk,
    payloadSchema: asset.definition.payloadSchema,
  }))
  const { signal } = held.abort
  const { slots } = shared
  let cut = false
  /** The clock is read once an instance: where one that returned at once ends, the next begins. */
  let nowMs = startedMs

  /**
   * It waits at a gate: reported as soon as the gate is stored, it leaves the lease, and its slot
   * goes to another.
   */
  const suspend = async (index: number, begunMs: number, suspension: Suspension): Promise<void> => {
    const opener = gates.of(index)
    const gate = await opener.suspend(suspension, () => [])
    gates.take(index)
    report.leaves(opener.left(gate))
    report.suspended(index, performance.now() - begunMs, gate)
  }
  /**
   * Gates that it opened and does not wait at end when its end counts, and not before: it may have
   * been taken for lost, and another execution wait there.
   */
  const leave = (index: number): void => {
    const opener = gates.take(index)
    if (opener) report.leaves(opener.left())
  }
  const keep = (index: number, begunMs: number, value: unknown): undefined | Promise<void> => {
    if (value instanceof Suspension) return suspend(index, begunMs, value)
    gates.checkValue(index)
    const taken = snapshot(value)
    const bytes = sizeOfSnapshot(taken)
    nowMs = performance.now()
    const ms = nowMs - begunMs
    if (completions.hasSubscribers) completions.publish(instanceEvent(index, ms))
    if (bytes <= inlineBytes) {
      leave(index)
      report.value(index, ms, taken, bytes)
      return undefined
    }
    const stored = shared.io.store('nats', taken, {
      run: task.run,
      pipeline: task.pipeline,
      asset: asset.name,
      partition: task.partition,
    })
    const within = runCode(signal, task.timeoutMs, () => stored)
    return Promise.resolve(within).then((ref) => {
      leave(index)
      report.ref(index, ms, ref, bytes)
    })
  }
  const fail = (index: number, begunMs: number, thrown: unknown): undefined | Promise<void> => {
    nowMs = performance.now()
    // Aborted: cancelled work counts for nothing, and handed back work is somebody else's.
    if (signal.aborted) {
      cut = true
      return undefined
    }
    const failure = failureOf(thrown)
    if (failure.outcome !== 'returned') leave(index)
    reportFailure(index, begunMs, thrown, failure)
    return undefined
  }
  const reportFailure = (index: number, begunMs: number, thrown: unknown, failure: Failure): void => {
    report.failure(index, nowMs - begunMs, failure)
    if (failures.hasSubscribers) {
      const { outcome } = failure
      const isLast = outcome === 'terminal' || task.attempt >= task.maxAttempts
      failures.publish({ ...instanceEvent(index, nowMs - begunMs), error: thrown, outcome, isLast })
    }
  }
  const instanceEvent = (index: number, durationMs: number): InstanceEvent => ({
    worker: shared.id,
    run: task.run,
    asset: asset.name,
    index,
    key: keyChunk.key(index),
    attempt: task.attempt,
    durationMs,
  })
  /** Whether the last one had ended when it returned: the next one mostly has, too. */
  let isQuick = false
  const call = (ctx: InstanceContextOf, own: Parameters<typeof asset.definition.execute>[1]): unknown => {
    const { execute } = asset.definition
    shared.helper?.calls(held.slot)
    try {
      const result = isQuick ? callAs(ctx, () => execute(ctx, own)) : executions.run(ctx, execute, ctx, own)
      isQuick = !isThenable(result)
      return result
    } finally {
      shared.helper?.calls(-1)
    }
  }
  const execute = (ctx: InstanceContextOf, given: ReturnType<Deps['get']>): unknown =>
    given instanceof Promise ? given.then((own) => call(ctx, own)) : call(ctx, given)
  /** A promise only where there is something to wait for. */
  const runOne = (index: number, parent = signal): undefined | Promise<void> => {
    const begunMs = nowMs
    try {
      const key = keyChunk.key(index)
      const value = runCode(parent, task.timeoutMs, (inner) =>
        execute(new InstanceContextOf(shared, task, asset, inner, key, index, gates), deps.get()),
      )
      if (isThenable(value)) held.running.set(index, begunMs)
      const pending = isThenable(value)
        ? value.then((settled) => keep(index, begunMs, settled))
        : keep(index, begunMs, value)
      return pending?.catch((thrown: unknown) => fail(index, begunMs, thrown))
    } catch (thrown) {
      return fail(index, begunMs, thrown)
    }
  }

  const { limits } = asset.definition
  const ownBucket = `scatter:${task.run}.${asset.name}`
  const waitingSignal = limits ? held.waiting : signal
  /** As `runOne`, once the limits let it; gives its local slot back itself. */
  const runLimitedOne = async (limits: Limits, index: number): Promise<void> => {
    const { limiter, waiters } = shared
    const { alone = false, ordinal } = task
    const key = keyChunk.key(index)
    try {
      const waiting = waitingSignal
      const start = {
        limits,
        limiter,
        waiters,
        local: slots,
        key,
        ownBucket,
        by: `${task.run}.${asset.name}.${index}`,
        ordinal,
        alone,
        signal,
        waiting,
      }
      await runLimited(start, (inner) => {
        nowMs = performance.now()
        return runOne(index, inner)
      })
    } catch (thrown) {
      if (thrown instanceof ComeAgain) report.comeAgain(index, thrown)
      // Not begun. It goes back as one that may begin at once, and waits there for the pause to
      // end.
      else if (held.paused && thrown instanceof Paused) report.comeAgain(index, new ComeAgain('paused', 0))
      else await fail(index, performance.now(), thrown)
    }
  }

  const running = new Set<Promise<void>>()
  let broken: { readonly error: unknown } | undefined
  let next = task.from
  let end = task.to
  let waiting: Turn | undefined
  let handingBack: Promise<void> | undefined
  /**
   * Instances that wait behind long ones go to whoever has room: a lease is meant to be short, and
   * this one is not. Also said when none is left to hand back, so that the engine has others work
   * on what comes next (a lease of one says nothing by it). And a paused scatter gets back what is
   * not begun; how long that took says nothing.
   */
  const handBack = (): void => {
    const heldMs = performance.now() - startedMs
    const isLong =
      heldMs >= (task.serial ? 2 * LONG_MS : LONG_MS) ||
      (heldMs >= BLOCKED_MS && slots.free === 0 && !slots.turnedOverWithin(TURN_MS))
    if (handingBack || signal.aborted || !(isLong || held.paused)) return
    if (next >= end && (held.paused || task.to - task.from === 1)) return
    if (next === task.from) cut = true
    end = next
    handingBack = returnLease(shared, held, task, { from: next, ...(held.paused ? {} : { heldMs }) })
    handingBack.catch(() => undefined)
    waiting?.cancelWait()
  }
  const ticker = setInterval(
    () => {
      void report.flushIfDue(performance.now())
      handBack()
    },
    task.serial ? LIMITED_LOOK_MS : LOOK_MS,
  )
  let yieldedMs = startedMs
  let hasSlot = false
  let hasPlace = false
  try {
    while (next < end) {
      if (places && !hasPlace && !places.tryTake()) {
        waiting = places.turn()
        if (!(await waiting.granted)) break
        nowMs = performance.now()
      }
      hasPlace = places !== undefined
      if (!hasSlot && !slots.tryTake()) {
        waiting = slots.turn()
        if (!(await waiting.granted)) break
        nowMs = performance.now()
      }
      hasSlot = true
      if (signal.aborted) {
        cut = true
        break
      }
      if (held.paused) handBack()
      // Handed back, perhaps while a slot was on its way here.
      if (next >= end) break
      const index = next++
      const pending = limits ? runLimitedOne(limits, index) : runOne(index)
      if (pending) {
        hasSlot = false
        hasPlace = false
        const one = pending.finally(() => {
          if (!limits) slots.give()
          places?.give()
          held.running.delete(index)
          running.delete(one)
        })
        // Awaited below with the others; by then one that was broken may be gone.
        one.catch((error: unknown) => {
          broken ??= { error }
        })
        running.add(one)
        nowMs = performance.now()
      } else {
        if (slots.waiting > 0) {
          slots.give()
          hasSlot = false
        }
        if (places && places.waiting > 0) {
          places.give()
          hasPlace = false
        }
      }
      if (report.isDue(nowMs)) {
        await report.flushIfDue(nowMs)
        nowMs = performance.now()
      }
      if (nowMs - yieldedMs > YIELD_MS) {
        // Code that never waits must not keep signs of life, cancels and other tasks from their
        // turn.
        await setImmediate()
        nowMs = performance.now()
        yieldedMs = nowMs
      }
    }
    if (hasSlot) slots.give()
    if (hasPlace) places?.give()
    hasSlot = false
    hasPlace = false
    await Promise.all(running)
    if (broken) throw broken.error
  } finally {
    if (hasSlot) slots.give()
    if (hasPlace) places?.give()
    clearInterval(ticker)
  }
  const heldMs = performance.now() - startedMs
  await report.end(cut ? undefined : heldMs)
  // If this was not stored, the lease is delivered again, and its next worker finds what is left.
  await handingBack
  emit('flowstone:lease.stop', {
    worker: shared.id,
    run: task.run,
    asset: asset.name,
    instances: end - task.from,
    durationMs: heldMs,
  })
  if (cut && signal.reason instanceof HandBack) await returnLease(shared, held, task)
}

/**
 * Keys and dependencies, within the time limit of an instance. What fails here fails every instance
 * of the lease, as if each had loaded its own; undefined then, and when the work is not wanted any
 * more.
 */
async function load(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
  report: Report,
): Promise<{ keyChunk: KeyChunk; deps: Deps } | undefined> {
  const { signal } = held.abort
  try {
    return await runCode(signal, task.timeoutMs, async () => {
      const [keyChunk, deps] = await Promise.all([
        shared.values.keyChunk(held.shard, parseRunId(task.run).id, assetName(task.asset), task.keyChunk),
        shared.values.deps(task.deps, asset),
      ])
      return { keyChunk, deps }
    })
  } catch (thrown) {
    if (signal.aborted) {
      if (signal.reason instanceof HandBack) await returnLease(shared, held, task)
      return undefined
    }
    // NATS is unreachable: no attempt is charged, and the lease is retried.
    if (isUnreachable(thrown)) throw thrown
    const failure = failureOf(thrown)
    for (let index = task.from; index < task.to; index++) report.failure(index, 0, failure)
    await report.end(undefined)
    return undefined
  }
}

/** Reports that the worker that held a lease before has died. The engine leases the rest again. */
export async function reportLostLease(shared: WorkerShared, held: InFlightTask, task: LeaseTask): Promise<void> {
  const { lease } = task
  const ids = { run: parseRunId(task.run).id, asset: assetName(task.asset), lease }
  await appendLeaseFact(shared, held, { name: 'lease.lost', ids, data: { lease, worker: shared.id } })
}

/**
 * Returns a lease that this worker does not finish. The engine leases the rest again, instance by
 * instance. With `rest`, only the instances from `rest.from` on are returned, none of which was
 * started; the engine leases them as it leases new ones.
 */
export async function returnLease(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  rest?: { readonly from: number; readonly heldMs?: number },
): Promise<void> {
  const { lease } = task
  const ids = {
    run: parseRunId(task.run).id,
    asset: assetName(task.asset),
    // The worker may return the instances before `from` later. That is another fact.
    lease: rest ? `${lease}-${rest.from}` : lease,
  }
  const heldMs = rest?.heldMs === undefined ? {} : { heldMs: Math.round(rest.heldMs) }
  const data = { lease, worker: shared.id, ...(rest ? { from: rest.from, ...heldMs } : {}) }
  await appendLeaseFact(shared, held, { name: 'lease.returned', ids, data })
}

async function appendLeaseFact(shared: WorkerShared, held: InFlightTask, fact: FactDraft): Promise<void> {
  await shared.logOf(held.shard).appendOnce(factEntry(shared.names, held.shard, fact))
}
