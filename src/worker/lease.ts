/**
 * Runs the instances of a lease, with the worker's own concurrency, and reports them in groups: when the lease ends, and every 50 ms while it lasts.
 * The lease is acknowledged only after the last report is stored.
 */
import { setImmediate } from 'node:timers/promises'
import { encodeMsgpack, measure } from '../../streams/codec.ts'
import { ConflictError } from '../../streams/errors.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { type AssetName, assetName, parseRunId, type RunId } from '../../streams/ids.ts'
import type { ScatterOutcomes } from '../../streams/schemas.ts'
import type { LeaseTask } from '../../streams/tasks.ts'
import type { AnyAsset } from '../define/asset.ts'
import type { Limits } from '../define/limits.ts'
import { factEntry } from '../engine/entries.ts'
import { channelOf, emit, type InstanceEvent } from '../telemetry.ts'
import { HandBack, type Held } from './held.ts'
import { ComeAgain, runLimited } from './limits.ts'
import { failureOf, isThenable, runCode } from './run-code.ts'
import { InstanceContextOf, type WorkerShared } from './shared.ts'
import type { Turn } from './slots.ts'

const completions = channelOf('flowstone:scatter.instance_complete')
const failures = channelOf('flowstone:scatter.instance_fail')

const REPORT_MS = 50
/** A lease is cut to last some 60 ms. After this long, what it has not begun is handed back. */
const LONG_MS = 150
const YIELD_MS = 20
const REPORT_BYTES = 256 * 1024
/** Values up to this many bytes ride in the outcomes; larger ones go to the object store. */
const INLINE_MAX_BYTES = 16 * 1024

export async function runLease(shared: WorkerShared, held: Held, task: LeaseTask, asset: AnyAsset): Promise<void> {
  const run = parseRunId(task.run).id
  const name = assetName(asset.name)
  const startedMs = performance.now()
  const [slab, deps] = await Promise.all([
    shared.values.slab(held.p, run, name, task.slab),
    shared.values.deps(task.deps),
  ])
  const report = new Report(shared, held.p, run, name, task)
  const { signal } = held.abort
  const { slots } = shared
  let cut = false
  /** The clock is read once an instance: where one that returned at once ends, the next begins. */
  let nowMs = startedMs

  const keep = (index: number, begunMs: number, value: unknown): undefined | Promise<void> => {
    const bytes = measure(value)
    nowMs = performance.now()
    const ms = nowMs - begunMs
    if (completions.hasSubscribers) completions.publish(instanceEvent(index, ms))
    if (bytes <= INLINE_MAX_BYTES) {
      report.value(index, ms, value, bytes)
      return undefined
    }
    const stored = shared.io.store('nats', value, { run: task.run, asset: asset.name, partition: task.partition })
    return stored.then((ref) => report.ref(index, ms, ref))
  }
  const fail = (index: number, begunMs: number, thrown: unknown): void => {
    nowMs = performance.now()
    // Aborted: cancelled work counts for nothing, and handed back work is somebody else's.
    if (signal.aborted) {
      cut = true
      return
    }
    const failure = failureOf(thrown)
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
    key: slab.keys[index - slab.offset],
    attempt: task.attempt,
    durationMs,
  })
  /** A promise only where there is something to wait for. */
  const runOne = (index: number, parent = signal): undefined | Promise<void> => {
    const begunMs = nowMs
    try {
      const key = slab.keys[index - slab.offset]
      const value = runCode(parent, task.timeoutMs, (inner) =>
        asset.definition.execute(new InstanceContextOf(shared, task, asset, inner, key, index), deps),
      )
      if (isThenable(value)) held.running.set(index, begunMs)
      const pending = isThenable(value)
        ? value.then((settled) => keep(index, begunMs, settled))
        : keep(index, begunMs, value)
      return pending?.catch((thrown: unknown) => fail(index, begunMs, thrown))
    } catch (thrown) {
      fail(index, begunMs, thrown)
      return undefined
    }
  }

  const { limits } = asset.definition
  const ownBucket = `scatter:${task.run}.${asset.name}`
  /** As `runOne`, once the limits let it; gives its local slot back itself. */
  const runLimitedOne = async (limits: Limits, index: number): Promise<void> => {
    const { limiter, waiters } = shared
    const key = slab.keys[index - slab.offset]
    try {
      await runLimited({ limits, limiter, waiters, local: slots, key, ownBucket, signal }, (inner) => {
        nowMs = performance.now()
        return runOne(index, inner)
      })
    } catch (thrown) {
      if (thrown instanceof ComeAgain) report.comeAgain(index, thrown)
      else fail(index, performance.now(), thrown)
    }
  }

  const running = new Set<Promise<void>>()
  let next = task.from
  let end = task.to
  let waiting: Turn | undefined
  let handingBack: Promise<void> | undefined
  /**
   * Instances that wait behind long ones go to whoever has room: a lease is meant to be short, and this one is not. And a paused scatter gets back what is not begun; how
   * long that took says nothing.
   */
  const handBack = (): void => {
    const heldMs = performance.now() - startedMs
    if ((heldMs < LONG_MS && !held.paused) || next >= end || signal.aborted) return
    if (next === task.from) cut = true
    end = next
    handingBack = splitLease(shared, held, task, 'handed_back', { from: next, ...(held.paused ? {} : { heldMs }) })
    handingBack.catch(() => undefined)
    waiting?.leave()
  }
  const ticker = setInterval(() => {
    void report.flushIfDue(performance.now())
    handBack()
  }, REPORT_MS)
  let yieldedMs = startedMs
  let hasSlot = false
  try {
    while (next < end) {
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
        const one = pending.finally(() => {
          if (!limits) slots.give()
          held.running.delete(index)
          running.delete(one)
        })
        running.add(one)
        if (task.serial) await one
        nowMs = performance.now()
      } else if (slots.waiting > 0) {
        slots.give()
        hasSlot = false
      }
      if (report.isDue(nowMs)) {
        await report.flushIfDue(nowMs)
        nowMs = performance.now()
      }
      if (nowMs - yieldedMs > YIELD_MS) {
        // Code that never waits must not keep signs of life, cancels and other tasks from their turn.
        await setImmediate()
        nowMs = performance.now()
        yieldedMs = nowMs
      }
    }
    if (hasSlot) slots.give()
    hasSlot = false
    await Promise.all(running)
  } finally {
    if (hasSlot) slots.give()
    clearInterval(ticker)
  }
  const heldMs = performance.now() - startedMs
  await report.end(cut ? undefined : heldMs)
  // Not stored: the lease comes again, and who gets it then finds what is left.
  await handingBack
  emit('flowstone:lease.stop', {
    worker: shared.id,
    run: task.run,
    asset: asset.name,
    instances: end - task.from,
    durationMs: heldMs,
  })
  if (cut && signal.reason instanceof HandBack) await splitLease(shared, held, task, 'handed_back')
}

/** Tells the engine that what is not done of this lease must be leased again: one by one, or, where none of it was begun (`rest`), in leases as usual. */
export async function splitLease(
  shared: WorkerShared,
  held: Held,
  task: LeaseTask,
  reason: 'lost' | 'handed_back',
  /** Only the instances from here on, of which none was begun. */
  rest?: { readonly from: number; readonly heldMs?: number },
): Promise<void> {
  const { lease } = task
  const ids = {
    run: parseRunId(task.run).id,
    asset: assetName(task.asset),
    // What is kept may be split later, as a whole: that is another fact.
    lease: rest ? `${lease}-${rest.from}` : lease,
  }
  const heldMs = rest?.heldMs === undefined ? {} : { heldMs: Math.round(rest.heldMs) }
  const data = { lease, reason, worker: shared.id, ...(rest ? { from: rest.from, ...heldMs } : {}) }
  const fact: FactDraft = { name: 'scatter.split', ids, data }
  try {
    await shared.logOf(held.p).append(factEntry(shared.names, held.p, fact))
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
  }
}

interface Columns {
  at: number[]
  ms: number[]
  values: unknown[]
  refs: NonNullable<ScatterOutcomes['refs']>
  errors: NonNullable<ScatterOutcomes['errors']>
}

class Report {
  readonly #shared: WorkerShared
  readonly #p: number
  readonly #run: RunId
  readonly #asset: AssetName
  readonly #task: LeaseTask
  #columns = emptyColumns()
  #bytes = 0
  #sinceMs = performance.now()
  #sending: Promise<unknown>[] = []
  #failed: unknown

  constructor(shared: WorkerShared, p: number, run: RunId, asset: AssetName, task: LeaseTask) {
    this.#shared = shared
    this.#p = p
    this.#run = run
    this.#asset = asset
    this.#task = task
  }

  value(index: number, ms: number, value: unknown, bytes: number): void {
    this.#add(index, ms, value)
    this.#grow(bytes)
  }

  ref(index: number, ms: number, stored: NonNullable<ScatterOutcomes['refs']>[number][1]): void {
    this.#columns.refs.push([this.#columns.at.length, stored])
    this.#add(index, ms, null)
    this.#grow(200)
  }

  failure(index: number, ms: number, failure: ReturnType<typeof failureOf>): void {
    const { outcome, error, retryAfterMs } = failure
    this.#columns.errors.push([
      this.#columns.at.length,
      { outcome, error, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
    ])
    this.#add(index, ms, null)
    this.#grow(300 + error.message.length + (error.stack?.length ?? 0))
  }

  /** Not begun: its turn is not near. */
  comeAgain(index: number, thrown: ComeAgain): void {
    const { code, message, delayMs } = thrown
    const retryAfterMs = Math.ceil(delayMs)
    this.failure(index, 0, { outcome: 'handed_back', error: { code, message }, retryAfterMs, thrown })
  }

  /** Many may end in the same moment: what is full goes at once, or it would grow over what a message may hold. */
  #grow(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes >= REPORT_BYTES) this.#send(undefined)
  }

  isDue(nowMs: number): boolean {
    return this.#columns.at.length > 0 && (this.#bytes >= REPORT_BYTES || nowMs - this.#sinceMs >= REPORT_MS)
  }

  /** Sends what there is when it is old or large enough; waits only when much is under way. */
  async flushIfDue(nowMs: number): Promise<void> {
    if (!this.isDue(nowMs)) return
    this.#send(undefined)
    if (this.#sending.length > 8) await Promise.allSettled(this.#sending)
  }

  /** Sends the rest, and waits until all of it is stored. Throws if any of it could not be: the lease then comes again. */
  async end(heldMs: number | undefined): Promise<void> {
    if (heldMs !== undefined || this.#columns.at.length > 0) this.#send(heldMs)
    await Promise.allSettled(this.#sending)
    if (this.#failed !== undefined) throw this.#failed
  }

  #send(heldMs: number | undefined): void {
    const { at, ms, values, refs, errors } = this.#columns
    const data: ScatterOutcomes = {
      lease: this.#task.lease,
      ordinal: this.#task.ordinal,
      worker: this.#shared.id,
      at,
      ms,
      values: encodeMsgpack(values),
      ...(refs.length > 0 ? { refs } : {}),
      ...(errors.length > 0 ? { errors } : {}),
      ...(heldMs === undefined ? {} : { heldMs: Math.round(heldMs * 100) / 100 }),
    }
    this.#columns = emptyColumns()
    this.#bytes = 0
    this.#sinceMs = performance.now()
    const fact: FactDraft = { name: 'scatter.outcomes', ids: { run: this.#run, asset: this.#asset }, data }
    const sending = this.#shared
      .logOf(this.#p)
      .append(factEntry(this.#shared.names, this.#p, fact))
      .catch((error: unknown) => {
        this.#failed = error
      })
      .finally(() => {
        this.#sending = this.#sending.filter((other) => other !== sending)
      })
    this.#sending.push(sending)
  }

  #add(index: number, ms: number, value: unknown): void {
    if (this.#columns.at.length === 0) this.#sinceMs = performance.now()
    this.#columns.at.push(index)
    this.#columns.ms.push(Math.round(ms * 100) / 100)
    this.#columns.values.push(value)
  }
}

function emptyColumns(): Columns {
  return { at: [], ms: [], values: [], refs: [], errors: [] }
}
