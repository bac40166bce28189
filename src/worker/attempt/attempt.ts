/**
 * One execution of an asset's own code: `execute` of a plain asset and what continues after its
 * gates, the scatter function, or the gather. Puts on the log how it ended.
 */
import { CancelledError, ConflictError, InvalidError } from '../../../streams/errors.ts'
import type { FactDraft, FactIds } from '../../../streams/facts.ts'
import { hashOfValue } from '../../../streams/fingerprint.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { StoredValue, ValueAt } from '../../../streams/schemas.ts'
import type { AttemptTask } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { Suspension } from '../../define/gates.ts'
import type { Appended, AppendedOnce } from '../../log/appender.ts'
import { factEntry } from '../../log/entries.ts'
import { isSealed } from '../../log/history.ts'
import { isAway } from '../../log/unreachable.ts'
import { emit, type MaterializationEvent } from '../../telemetry.ts'
import type { CodeSpan } from '../../tracing.ts'
import { GateOpener } from '../gates/opener.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { type AttemptParts, runPhase } from './phase.ts'
import { isRefused, shorterAndShorter } from './refused.ts'
import { type Failure, failureOf } from './run-code.ts'
import type { WorkerShared } from './shared.ts'
import { beginSpan } from './traced.ts'

/**
 * An attempt that lasts longer than this is announced on the log, so that it can be seen who works
 * on it.
 */
const ANNOUNCE_MS = 25

/** A value on the log. */
export interface Made {
  readonly at: ValueAt
  readonly hash: string
  readonly stored: StoredValue
  /** Of the fact that has it. */
  readonly bytes: number
}

/**
 * Runs the task and puts its outcome on the log. Resolves when that is stored: with the value, if
 * there is one.
 */
export async function runAttempt(
  shared: WorkerShared,
  held: InFlightTask,
  task: AttemptTask,
  asset: AnyAsset,
): Promise<Made | undefined> {
  return await new Attempt(shared, held, task, asset).run()
}

/**
 * A delivery after which nothing was heard: the worker before is lost, and its attempt with it. The
 * engine decides what follows.
 */
export async function reportLost(shared: WorkerShared, held: InFlightTask, task: AttemptTask): Promise<void> {
  const message = `the worker that ran attempt ${task.attempt} of ${task.asset} died or was cut off`
  const failure: Failure = { outcome: 'lost', error: { code: 'worker_lost', message }, thrown: undefined }
  await reportFailure(shared, held, task, failure)
}

type Outcome =
  /** Its value, once stored; the scatter function has none. */
  | { readonly kind: 'value'; readonly stored: StoredValue | undefined }
  /** It waits at a gate, and that is on the log. */
  | { readonly kind: 'suspended' }
  | { readonly kind: 'failed'; readonly failure: Failure }

class Attempt {
  readonly #shared: WorkerShared
  readonly #held: InFlightTask
  readonly #task: AttemptTask
  readonly #parts: AttemptParts
  readonly #event: MaterializationEvent
  readonly #ids: FactIds<'attempt.ended'>
  /** For its span. */
  #ended: { readonly outcome: string; readonly error?: unknown } = { outcome: 'value' }

  constructor(shared: WorkerShared, held: InFlightTask, task: AttemptTask, asset: AnyAsset) {
    const run = parseRunId(task.run).id
    const name = assetName(asset.name)
    const generation = task.gates ?? task.attempt
    const opener = new GateOpener(shared, {
      shard: held.shard,
      run: task.run,
      pipeline: task.pipeline,
      asset: asset.name,
      prefix: `a${generation}`,
      attempt: generation,
      payloadSchema: asset.definition.payloadSchema,
      trace: task.trace,
    })
    this.#shared = shared
    this.#held = held
    this.#task = task
    this.#parts = { shared, held, task, asset, run, name, opener }
    this.#event = {
      worker: shared.id,
      run: task.run,
      pipeline: task.pipeline,
      asset: asset.name,
      phase: task.kind,
      attempt: task.attempt,
      ...(task.partition === undefined ? {} : { partition: task.partition }),
    }
    this.#ids = idsOf(task)
  }

  async run(): Promise<Made | undefined> {
    const span = beginSpan(this.#shared, this.#task)
    try {
      return await this.#run(span)
    } catch (error) {
      this.#ended = { outcome: 'unstored', error }
      throw error
    } finally {
      span.end({ 'flowstone.outcome': this.#ended.outcome }, this.#ended.error)
    }
  }

  async #run(span: CodeSpan): Promise<Made | undefined> {
    const startedMs = performance.now()
    const announce = setTimeout(() => this.#announce(), ANNOUNCE_MS)
    emit('flowstone:materialization.start', this.#event)
    // Also of one that is delivered again: who gets it next announces it.
    let outcome = await span.run(() => this.#outcome()).finally(() => clearTimeout(announce))
    this.#ended = { outcome: outcome.kind === 'suspended' ? 'suspended' : 'value' }
    this.#held.stores()
    const durationMs = performance.now() - startedMs
    if (outcome.kind === 'value' && outcome.stored) {
      const hash = hashOfValue(outcome.stored)
      const materialized = await this.#materialize(outcome.stored, hash, durationMs)
      // Ended already: by another attempt, or cancelled. What this one did does not count.
      if (materialized === 'exists') return undefined
      if ('seq' in materialized) {
        emit('flowstone:materialization.stop', { ...this.#event, durationMs })
        const { seq, bytes } = materialized
        return { at: { shard: this.#held.shard, seq }, hash, stored: outcome.stored, bytes }
      }
      outcome = { kind: 'failed', failure: materialized }
    }
    // It waits, whatever comes of this: no failure of its code.
    if (outcome.kind === 'suspended') await this.#parts.opener.takeKept(this.#held.abort.signal)
    if (outcome.kind === 'failed') await this.#fail(outcome.failure, durationMs)
    else emit('flowstone:materialization.stop', { ...this.#event, durationMs })
    return undefined
  }

  #announce(): void {
    const data = { phase: this.#task.kind, worker: this.#shared.id, delivery: this.#held.count }
    append(this.#shared, this.#held, { name: 'asset.started', ids: this.#ids, data }).catch(() => undefined)
  }

  async #outcome(): Promise<Outcome> {
    try {
      const { value, stored } = await runPhase(this.#parts)
      if (!(value instanceof Suspension)) return { kind: 'value', stored }
      await this.#suspend(value)
      return { kind: 'suspended' }
    } catch (thrown) {
      // What it needs is away, which is no failure of its code: it is delivered anew, as is what
      // could not be stored.
      if (isAway(thrown) && !this.#held.abort.signal.aborted) throw thrown
      return { kind: 'failed', failure: failureOf(thrown) }
    }
  }

  async #suspend(suspension: Suspension): Promise<void> {
    const { kind } = this.#task
    const { opener, name } = this.#parts
    if (kind === 'scatter' || kind === 'gather')
      throw new InvalidError(`${kind} of ${name} returned a gate; only execute, onSignal and onTimeout can wait at one`)
    // What is left is ended by the engine, if this counts: another worker may have taken this
    // execution over meanwhile, and wait at the same gates.
    const suspended = (gate: string): FactDraft => {
      const left = opener.left(gate)
      const data = { gate, worker: this.#shared.id, ...(left.length === 0 ? {} : { left }) }
      return { name: 'asset.suspended', ids: this.#ids, data }
    }
    this.#held.waitsAtGate = true
    await opener.suspend(suspension, (gate) => [factEntry(this.#shared.names, this.#held.shard, suspended(gate))])
  }

  async #materialize(
    value: StoredValue,
    hash: string,
    durationMs: number,
  ): Promise<(Appended & { readonly bytes: number }) | 'exists' | Failure> {
    const { run: runText, pipeline, attempt, partition, key, msgId, fingerprint, inputs } = this.#task
    const { run, name } = this.#parts
    const data = {
      run: runText,
      asset: name,
      pipeline,
      ...(partition === undefined ? {} : { partition }),
      ...(key === undefined ? {} : { key }),
      ...(msgId === undefined ? {} : { msgId }),
      attempt,
      worker: this.#shared.id,
      value,
      hash,
      ...(fingerprint === undefined ? {} : { fingerprint }),
      ...(inputs === undefined ? {} : { inputs }),
      durationMs: Math.round(durationMs),
    }
    const fact: FactDraft = { name: 'asset.materialized', ids: { pipeline, asset: name, run }, data }
    if (await isTooLate(this.#shared, this.#held)) return 'exists'
    try {
      const { shard } = this.#held
      const entry = factEntry(this.#shared.names, shard, fact)
      const { seq } = await this.#shared.logOf(shard).append(entry)
      return { seq, bytes: entry.payload.length }
    } catch (error) {
      if (error instanceof ConflictError) return 'exists'
      // Anything else is tried with the next delivery.
      if (!isRefused(error)) throw error
      return failureOf(error)
    }
  }

  async #fail(failure: Failure, durationMs: number): Promise<void> {
    const { thrown: error, outcome } = failure
    this.#ended = outcome === 'returned' ? { outcome } : { outcome, error: error ?? failure.error }
    const isLast = outcome === 'terminal' || (outcome !== 'returned' && this.#task.attemptsLeft === 0)
    emit('flowstone:materialization.exception', { ...this.#event, durationMs, error, outcome, isLast })
    // Its asset has ended, which is why it was aborted: there is nobody to report to.
    if (this.#held.abort.signal.aborted && error instanceof CancelledError) return
    await reportFailure(this.#shared, this.#held, this.#task, failure, durationMs)
  }
}

function idsOf({ pipeline, asset, run, attempt }: AttemptTask): FactIds<'attempt.ended'> {
  return { pipeline, asset: assetName(asset), run: parseRunId(run).id, attempt: String(attempt) }
}

async function append(shared: WorkerShared, held: InFlightTask, fact: FactDraft): Promise<AppendedOnce> {
  if (await isTooLate(shared, held)) return 'exists'
  return await shared.logOf(held.shard).appendOnce(factEntry(shared.names, held.shard, fact))
}

/** An attempt that lasted so long may have outlived its run. */
const LONG_MS = 60_000

/** Its run has ended so long ago that the log knows nothing of it. */
async function isTooLate(shared: WorkerShared, { heldMs, task }: InFlightTask): Promise<boolean> {
  return heldMs > LONG_MS && (await isSealed(shared, task.run))
}

/** An attempt that has not brought a value. */
export async function reportFailure(
  shared: WorkerShared,
  held: InFlightTask,
  task: AttemptTask,
  failure: Failure,
  durationMs = 0,
): Promise<void> {
  const data = {
    phase: task.kind,
    worker: shared.id,
    outcome: failure.outcome,
    ...(failure.retryAfterMs === undefined ? {} : { retryAfterMs: failure.retryAfterMs }),
    durationMs: Math.round(durationMs),
  }
  let refusal: unknown
  for (const error of shorterAndShorter(failure.error)) {
    try {
      // It exists if it was reported before: by this worker, or by the one that took over.
      await append(shared, held, { name: 'attempt.ended', ids: idsOf(task), data: { ...data, error } })
      return
    } catch (thrown) {
      if (!isRefused(thrown)) throw thrown
      refusal = thrown
    }
  }
  throw refusal
}
