/** Runs the instances of one lease, each for itself, and puts how they ended into its report. */
import type { LeaseTask } from '../../../streams/tasks.ts'
import { snapshot } from '../../../streams/value.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { Suspension } from '../../define/gates.ts'
import type { Limits } from '../../define/limits.ts'
import { channelOf, type InstanceEvent, type LeaseCounts } from '../../telemetry.ts'
import { callAs, executions } from '../attempt/executions.ts'
import { type Limited, type LimitedStart, runLimited } from '../attempt/limits.ts'
import {
  type Failure,
  failureOf,
  isThenable,
  runCode,
  type SignalSource,
  Timed,
  whileWanted,
} from '../attempt/run-code.ts'
import {
  codeBegins,
  codeEnds,
  InstanceContextOf,
  InstanceGates,
  InstancesOf,
  type WorkerShared,
} from '../attempt/shared.ts'
import { InstanceSpans } from '../attempt/traced.ts'
import type { Deps, KeyChunk } from '../attempt/values.ts'
import { comeAgain, Paused } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { type Ahead, aheadOf } from './ahead.ts'
import { inlineMax, type Report } from './report.ts'

const completions = channelOf('flowstone:scatter.instance_complete')
const failures = channelOf('flowstone:scatter.instance_fail')

/** What the instances of a lease have in common. */
export interface LeaseParts {
  readonly shared: WorkerShared
  readonly held: InFlightTask
  readonly task: LeaseTask
  readonly asset: AnyAsset
  readonly report: Report
  readonly keyChunk: KeyChunk
  readonly deps: Deps
  /** When this worker began with the lease. */
  readonly startedMs: number
}

export class InstanceRunner {
  readonly #shared: WorkerShared
  readonly #held: InFlightTask
  readonly #task: LeaseTask
  readonly #asset: AnyAsset
  readonly #report: Report
  readonly #keyChunk: KeyChunk
  readonly #deps: Deps
  readonly #gates: InstanceGates
  readonly #instances: InstancesOf
  readonly #signal: AbortSignal
  readonly #own: SignalSource
  /** For what waits for a limit. */
  readonly #waiting: AbortSignal
  readonly #inlineBytes: number
  /** Whether the last one had ended when it returned: the next one mostly has, too. */
  #isQuick = false
  readonly #ahead: Ahead
  #cut = false
  readonly #counts = { succeeded: 0, failed: 0, suspended: 0, returned: 0 }
  #error: unknown
  readonly #spans: InstanceSpans | undefined
  /**
   * The clock is read once an instance: where one that returned at once ends, the next begins.
   * Whoever waits before the next one reads it again.
   */
  nowMs: number

  constructor({ shared, held, task, asset, report, keyChunk, deps }: LeaseParts) {
    this.#shared = shared
    this.#held = held
    this.#task = task
    this.#asset = asset
    this.#ahead = aheadOf(asset)
    this.#report = report
    this.#keyChunk = keyChunk
    this.#deps = deps
    this.#gates = gatesOf(shared, held, task, asset)
    this.#instances = new InstancesOf(shared, task, asset.name, this.#gates, shared.logs.of(task, 'execute'))
    this.#signal = held.abort.signal
    this.#own = held.abort
    this.#waiting = asset.definition.limits ? held.waiting : held.abort.signal
    this.#inlineBytes = inlineMax(shared.connection)
    this.#spans = InstanceSpans.of(shared, task)
    // Keys and dependencies were loaded before: the first instance does not count for that.
    this.nowMs = performance.now()
  }

  /** How the instances ended so far. `error`: the first one. */
  get counts(): Omit<LeaseCounts, 'instances'> & { readonly error?: unknown } {
    return { ...this.#counts, error: this.#error }
  }

  /** An instance was aborted, and is not in the report. */
  get wasCut(): boolean {
    return this.#cut
  }

  /** A promise only where there is something to wait for. */
  run(index: number, parent = this.#signal): undefined | Promise<void> {
    const begunMs = this.nowMs
    try {
      const value = this.#start(index, parent)
      const pending = isThenable(value) ? this.#await(index, begunMs, value) : this.#keep(index, begunMs, value)
      return pending && this.#caught(index, begunMs, pending)
    } catch (thrown) {
      return this.#fail(index, begunMs, thrown)
    }
  }

  // What is called for each instance makes no closures: those of code that lasts are made apart.

  #start(index: number, parent: AbortSignal): unknown {
    const key = this.#keyChunk.key(index)
    const { timeoutMs } = this.#task
    parent.throwIfAborted()
    if (timeoutMs !== undefined) return this.#startTimed(index, key, new Timed(parent, timeoutMs))
    if (parent !== this.#signal) return whileWanted(parent, this.#execute(index, key, { signal: parent }))
    return whileWanted(parent, this.#execute(index, key, this.#own))
  }

  /** As `runCode` does it. */
  #startTimed(index: number, key: unknown, timed: Timed): unknown {
    let result: unknown
    try {
      result = this.#execute(index, key, timed)
    } catch (error) {
      timed.end()
      throw error
    }
    return timed.of(result)
  }

  #await(index: number, begunMs: number, value: Promise<unknown>): Promise<void> {
    this.#held.running.set(index, begunMs)
    return value.then((settled) => this.#keep(index, begunMs, settled))
  }

  #caught(index: number, begunMs: number, pending: Promise<void>): Promise<void> {
    return pending.catch((thrown: unknown) => this.#fail(index, begunMs, thrown))
  }

  /** As `run`, once the limits let it; gives its local slot back itself. */
  async runLimited(limits: Limits, index: number, more: Pick<LimitedStart, 'ahead' | 'onTurn'> = {}): Promise<void> {
    const start = { ...this.#limitedStart(limits, index), ...more }
    let limited: Limited<void>
    try {
      limited = await runLimited(start, (signal) => {
        const begunMs = performance.now()
        this.nowMs = begunMs
        const pending = this.run(index, signal)
        const took = (): void => this.#ahead.took(performance.now() - begunMs)
        if (pending) return pending.finally(took)
        took()
        return pending
      })
    } catch (thrown) {
      // Not begun. It goes back as one that may begin at once, and waits there for the pause to
      // end.
      if (this.#held.paused && thrown instanceof Paused) this.#report.comeAgain(index, comeAgain('paused', 0))
      else this.#fail(index, performance.now(), thrown)
      return
    }
    if (limited.kind !== 'come_again') return
    this.#counts.returned += 1
    this.#report.comeAgain(index, limited)
  }

  #limitedStart(limits: Limits, index: number): LimitedStart {
    const { limiter, waiters, slots } = this.#shared
    const { run, alone = false, ordinal } = this.#task
    const asset = this.#asset.name
    return {
      limits,
      limiter,
      waiters,
      local: slots,
      key: this.#keyChunk.key(index),
      ownBucket: `scatter:${run}.${asset}`,
      by: `${run}.${asset}.${index}`,
      ordinal,
      alone,
      signal: this.#signal,
      waiting: this.#waiting,
    }
  }

  #execute(index: number, key: unknown, source: SignalSource): unknown {
    const ctx = new InstanceContextOf(this.#instances, source, key, index)
    const deps = this.#deps.get(source)
    return deps instanceof Promise ? deps.then((loaded) => this.#call(ctx, loaded)) : this.#call(ctx, deps)
  }

  #call(ctx: InstanceContextOf, deps: Readonly<Record<string, unknown>>): unknown {
    const { execute } = this.#asset.definition
    codeBegins(this.#shared, this.#held.slot)
    try {
      const result = this.#spans?.isSampled(ctx.index)
        ? this.#spans.within(ctx.index, () => executions.run(ctx, execute, ctx, deps))
        : this.#isQuick
          ? callAs(ctx, execute, ctx, deps)
          : executions.run(ctx, execute, ctx, deps)
      this.#isQuick = !isThenable(result)
      return result
    } finally {
      codeEnds(this.#shared)
    }
  }

  #keep(index: number, begunMs: number, value: unknown): undefined | Promise<void> {
    if (value instanceof Suspension) return this.#suspend(index, begunMs, value)
    this.#gates.checkValue(index)
    const bytes = this.#report.write(value)
    // First, as a getter may throw when it is looked at again.
    if (bytes > this.#inlineBytes) this.#report.undo()
    const taken = bytes > this.#inlineBytes ? snapshot(value) : undefined
    this.nowMs = performance.now()
    const ms = this.nowMs - begunMs
    if (completions.hasSubscribers) completions.publish(this.#event(index, ms))
    if (bytes <= this.#inlineBytes) {
      this.#succeeded(index, ms)
      this.#leave(index)
      this.#report.value(index, ms, bytes)
      return undefined
    }
    const { run, pipeline, partition, timeoutMs } = this.#task
    const context = { run, pipeline, asset: this.#asset.name, partition }
    const within = runCode(this.#signal, timeoutMs, () => this.#shared.io.store('nats', taken, context))
    return Promise.resolve(within).then((ref) => {
      this.#succeeded(index, ms)
      this.#leave(index)
      this.#report.ref(index, ms, ref, bytes)
    })
  }

  #succeeded(index: number, ms: number): void {
    this.#counts.succeeded += 1
    this.#spans?.ended(index, ms, 'value')
  }

  /**
   * It waits at a gate: reported as soon as the gate is stored, it leaves the lease, and its slot
   * goes to another.
   */
  async #suspend(index: number, begunMs: number, suspension: Suspension): Promise<void> {
    const opener = this.#gates.of(index)
    const gate = await opener.suspend(suspension, () => [])
    await opener.takeKept(this.#signal)
    this.#gates.take(index)
    this.#counts.suspended += 1
    this.#spans?.ended(index, performance.now() - begunMs, 'suspended')
    this.#report.leaves(opener.left(gate))
    this.#report.suspended(index, performance.now() - begunMs, gate)
  }

  /**
   * Gates that it opened and does not wait at end when its end counts, and not before: it may have
   * been taken for lost, and another execution wait there.
   */
  #leave(index: number): void {
    const opener = this.#gates.take(index)
    if (opener) this.#report.leaves(opener.left())
  }

  #fail(index: number, begunMs: number, thrown: unknown): undefined {
    this.nowMs = performance.now()
    // Aborted: cancelled work counts for nothing, and handed back work is somebody else's.
    if (this.#signal.aborted) {
      this.#cut = true
      return
    }
    const failure = failureOf(thrown)
    if (failure.outcome !== 'returned') this.#leave(index)
    const ms = this.nowMs - begunMs
    if (failure.outcome === 'returned') this.#counts.returned += 1
    else this.#failed(index, ms, failure)
    this.#report.failure(index, ms, failure)
    if (failures.hasSubscribers) this.#publishFailure(index, ms, failure)
  }

  #failed(index: number, ms: number, { outcome, thrown }: Failure): void {
    this.#counts.failed += 1
    this.#error ??= thrown
    this.#spans?.ended(index, ms, outcome, thrown)
  }

  #publishFailure(index: number, ms: number, { outcome, thrown }: Failure): void {
    const isLast = outcome === 'terminal' || this.#task.attempt >= this.#task.maxAttempts
    failures.publish({ ...this.#event(index, ms), error: thrown, outcome, isLast })
  }

  #event(index: number, durationMs: number): InstanceEvent {
    return {
      worker: this.#shared.id,
      run: this.#task.run,
      asset: this.#asset.name,
      index,
      key: this.#keyChunk.key(index),
      attempt: this.#task.attempt,
      durationMs,
    }
  }
}

function gatesOf(shared: WorkerShared, { shard }: InFlightTask, task: LeaseTask, asset: AnyAsset): InstanceGates {
  const generation = task.gates ?? task.ordinal
  return new InstanceGates(shared, (index) => ({
    shard,
    run: task.run,
    pipeline: task.pipeline,
    asset: asset.name,
    prefix: `i${index}a${generation}`,
    attempt: generation,
    index,
    keyChunk: task.keyChunk,
    payloadSchema: asset.definition.payloadSchema,
    trace: task.trace,
  }))
}
