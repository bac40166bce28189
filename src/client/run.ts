/** A handle on a run: wait for it, watch it, cancel it. Any process can have one. */

import { Kvm } from '@nats-io/kv'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type ListedRun, type RunState, stateKey } from '../../projections/state.ts'
import { decode } from '../../streams/codec.ts'
import { FlowStoneError, RunFailedError } from '../../streams/errors.ts'
import { type FactOf, factPath } from '../../streams/facts.ts'
import { parseRunId, type RunId } from '../../streams/ids.ts'
import { jetstream } from '../../streams/jetstream.ts'
import { type ValueAt, valueAt } from '../../streams/schemas.ts'
import { causeFrom, describe, viewOfError } from '../../streams/thrown.ts'
import { loadValueAt } from '../io/stored-values.ts'
import { factIn } from '../log/doc-source.ts'
import { factEntry } from '../log/entries.ts'
import { stopWatch } from '../log/forget-consumer.ts'
import { isSealed, sealedFact } from '../log/history.ts'
import { listen } from '../log/listen.ts'
import { directGet, directGetIfAny } from '../log/nats.ts'
import { missingRun, prunedProblem } from '../log/pruned.ts'
import { factOf } from '../log/read-fact.ts'
import { reasonOf } from '../options/reason.ts'
import { checkSignal } from '../options/signal.ts'
import { unlessAborted } from '../options/timer.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type HookCall, hookCalls } from './hooks.ts'
import { readBarrier, readRun } from './run-doc.ts'
import { explainRun, type RunStatus } from './run-status.ts'
import type { RunDeps, RunView } from './run-view.ts'

/** A scatter and its counts, as far as the state bucket knows. */
export interface ScatterView {
  readonly run: string
  readonly asset: string
  readonly status: BarrierState['status']
  /** Unknown until the scatter function has given all its keys. */
  readonly total: number | undefined
  /** Keys stored so far. */
  readonly stored: number
  readonly succeeded: number
  readonly failed: number
  /** Stored and not done: waiting, leased or to be retried. */
  readonly pending: number
  /** Of `pending`: waiting at a signal gate, or going on from one. */
  readonly suspended: number
  /** Whether nothing more of it is begun for the time being. */
  readonly paused: boolean
}

/** What `run.watch` yields each time something has changed: the run and its scatters. */
export interface RunUpdate {
  readonly run: RunView
  readonly scatters: readonly ScatterView[]
}

/** A caller that has waited so many looks gets one warning if an engine or a worker is missing. */
const WARN_LOOKS = 5
/** How often a waiting caller looks by itself, should the note that wakes it get lost. */
const LOOK_MS = 2000
/**
 * A run that was started so short ago has not ended: its end will be noted. Should it have, the
 * first look comes so late.
 */
const YOUNG_MS = 5
const FIRST_LOOK_MS = 50
/** After a watch that ended, the next one is begun. */
const WATCH_AGAIN_MS = 500

/** A handle on a run: its result, its status, its updates. It holds no connection of its own. */
export class Run<V = unknown> {
  readonly id: RunId
  /**
   * Whether the call that gave this handle started the run. False: it was there before, under the
   * same key, as the same redrive, or as asked for by id.
   */
  readonly isNew: boolean
  readonly #key: string | undefined
  readonly #shard: number
  readonly #deps: RunDeps
  readonly #madeMs = performance.now()

  constructor(deps: RunDeps, id: string, { isNew = false, key }: { isNew?: boolean; key?: string } = {}) {
    const parsed = parseRunId(id)
    this.isNew = isNew
    this.#key = key
    this.id = parsed.id
    this.#shard = parsed.shard
    this.#deps = deps
  }

  /**
   * The target's value, when the run has ended. Rejects with RunFailedError: its code and message
   * are those of the asset at fault, or `cancelled`. Read from the log, so it is exact. `signal`
   * ends the wait, not the run. Throws `not_found` for a run of a partition of the log that is not
   * there.
   */
  async result(options: { signal?: AbortSignal } = {}): Promise<V> {
    refuseUnknown('result', options, ['signal'])
    checkSignal('result: signal', options.signal)
    await this.#mustBePossible()
    const early = new EarlyValue(this.#deps, options.signal)
    const { status, value, result, asset, error } = await this.#finished(options.signal, early)
    // What the target's function returned, by its declared type.
    if (status === 'succeeded' && result) return (await this.#deps.io.load(result, options.signal)) as V
    if (status === 'succeeded' && value) return (await early.at(value)) as V
    const code = error?.code ?? (status === 'cancelled' ? 'cancelled' : 'run_failed')
    const message =
      status === 'cancelled'
        ? `run ${this.id} was ${error ? `skipped: ${error.message}` : 'cancelled'}`
        : `run ${this.id} failed${asset ? ` at ${asset}` : ''}: ${error ? describe(error) : 'unknown error'}`
    const old =
      this.isNew || this.#key === undefined
        ? ''
        : ` (an earlier run under key ${JSON.stringify(this.#key)}; to try again: materialize with onFailed: 'retry')`
    const cause = error && status === 'failed' ? causeFrom(error) : undefined
    throw new RunFailedError(code, `${message}${old}`, {
      runId: this.id,
      status: status === 'cancelled' ? 'cancelled' : 'failed',
      ...(asset === undefined ? {} : { asset }),
      ...(cause ? { cause } : {}),
    })
  }

  /**
   * What the run looks like now, and why what waits in it is waiting. From the state bucket, which
   * may lag the log by some 50 ms, under load by 250 ms. Where something waits, workers are asked,
   * which takes some 30 ms. Undefined when there is no such run.
   */
  async status(): Promise<RunStatus | undefined> {
    if (!(await this.#isPossible())) return undefined
    const doc = await this.#doc()
    const view = doc ? viewOfRun(doc) : await this.#requested()
    return view && (await explainRun(this.#deps, this.#shard, view, doc))
  }

  /** As `status`, without the reasons: asks no worker. */
  async view(): Promise<RunView | undefined> {
    if (!(await this.#isPossible())) return undefined
    const doc = await this.#doc()
    return doc ? viewOfRun(doc) : await this.#requested()
  }

  /**
   * What the run was given, by the name of the input, as it was given; `{}` for a run without
   * inputs. From the log. Throws `not_found`.
   */
  async input(): Promise<Record<string, unknown>> {
    const { connection, names, io } = this.#deps
    const fact = (await this.#isPossible()) ? await this.#request() : undefined
    if (!fact) throw await missingRun(this.#deps, this.id)
    const at = { shard: this.#shard, seq: fact.seq }
    const given = Object.keys(fact.data.input ?? {}).map(
      async (input) => [input, await loadValueAt(connection, names, io, { ...at, input })] as const,
    )
    return Object.fromEntries(await Promise.all(given))
  }

  /** As the log has it, before an engine has seen it. */
  async #requested(): Promise<RunView | undefined> {
    const fact = await this.#request()
    if (!fact) return undefined
    const { pipeline, version, target, partition, tags, retryOf, concurrency, parent, hook } = fact.data
    const common = { id: this.id, pipeline, version, target, partition, status: 'requested' as const, assets: {} }
    const shown = {
      ...(tags === undefined ? {} : { tags }),
      ...(retryOf === undefined ? {} : { retryOf }),
      ...(concurrency === undefined ? {} : { concurrency }),
      ...(parent === undefined ? {} : { parent: { run: parent.run, asset: parent.asset } }),
      ...(hook === undefined ? {} : { hook }),
    }
    return { ...common, ...shown, requestedAt: new Date(fact.timeMs), finishedAt: undefined }
  }

  async #request(): Promise<FactOf<'run.requested'> | undefined> {
    return await factIn(this.#deps.docs, this.id, 'run.requested')
  }

  /**
   * Calls of hooks that are about this run, as far as the state bucket knows. Of gates: those at
   * which its assets wait, or waited last.
   */
  async hooks(): Promise<HookCall[]> {
    await this.#mustBePossible()
    return await hookCalls(this.#deps, this.id)
  }

  /** Progress, as it comes, until the run has ended. The last update is the ended run. */
  async *watch(options: { signal?: AbortSignal } = {}): AsyncGenerator<RunUpdate> {
    refuseUnknown('watch', options, ['signal'])
    checkSignal('watch: signal', options.signal)
    await this.#mustBePossible()
    const { connection } = this.#deps
    const { signal } = options
    let wake: (() => void) | undefined
    let changed = true
    const onChange = (): void => {
      changed = true
      wake?.()
    }
    const unwatch = this.#onChange(onChange)
    signal?.addEventListener('abort', onChange)
    let last = ''
    try {
      while (!signal?.aborted) {
        if (!changed) {
          await new Promise<void>((resolve) => {
            const timer = setTimeout(resolve, LOOK_MS)
            wake = () => {
              clearTimeout(timer)
              resolve()
            }
          })
        }
        changed = false
        // The server may be away for long: whoever leaves meanwhile is not held up.
        const update = await unlessAborted(this.#update(signal), signal)
        const text = JSON.stringify(update)
        if (update && text !== last) {
          last = text
          yield update
        }
        if (update?.run.finishedAt) return
        if (connection.isClosed) throw new FlowStoneError('closed', 'the connection was closed while a run was watched')
      }
    } catch (error) {
      if (!signal?.aborted) throw error
    } finally {
      signal?.removeEventListener('abort', onChange)
      unwatch()
    }
  }

  /**
   * Calls back when the run's documents change, as far as that is heard of; returns what ends it at
   * once, also while the server is away.
   */
  #onChange(onChange: () => void): () => void {
    const { connection, names } = this.#deps
    let ended = false
    let stop = (): void => undefined
    const follow = async (): Promise<void> => {
      const kv = await new Kvm(jetstream(connection.nc)).open(names.stateBucket(this.#shard), { bindOnly: true })
      const changes = await kv.watch({ key: [stateKey.run(this.id), `barrier.${this.id}.*`], ignoreDeletes: true })
      stop = () => stopWatch(changes)
      if (ended) stop()
      for await (const _ of changes) onChange()
    }
    const again = async (): Promise<void> => {
      while (!ended && !connection.isClosed) {
        // Without it, whoever watches looks by himself now and then.
        await follow().catch(() => undefined)
        await connection.ready(WATCH_AGAIN_MS)
      }
    }
    void again()
    void connection.closed.then(onChange)
    return () => {
      ended = true
      if (!connection.isClosed) stop()
    }
  }

  /**
   * Asks for the run to be cancelled. What runs is aborted, what waits is dropped, what is done
   * stays. No error when the run has ended already. Throws `not_found`.
   */
  async cancel(reason?: string): Promise<void> {
    await this.#mustBePossible()
    const { names, logOf, by } = this.#deps
    const data = reasonOf('run.cancel', reason)
    // It has ended, and its place on the log may be free.
    if (await isSealed(this.#deps, this.id)) return
    // A cancel before the request counts for nothing, and a second one could not be stored.
    if (!(await this.#request())) throw await missingRun(this.#deps, this.id)
    await logOf(this.#shard).appendOnce(
      factEntry(names, this.#shard, { name: 'run.cancel_requested', ids: { run: this.id }, data }, by),
    )
  }

  /** A partition of the log that is not there would be waited for. */
  async #isPossible(): Promise<boolean> {
    await this.#deps.found()
    return this.#shard < this.#deps.shards
  }

  async #mustBePossible(): Promise<void> {
    if (!(await this.#isPossible())) throw new FlowStoneError('not_found', `there is no run ${this.id}`)
  }

  async #update(signal: AbortSignal | undefined): Promise<RunUpdate | undefined> {
    const doc = await this.#doc(signal)
    if (!doc) return undefined
    const barriers = await Promise.all(
      Object.keys(doc.assets).map((asset) => readBarrier(this.#deps, doc, asset, signal)),
    )
    return { run: viewOfRun(doc), scatters: barriers.flatMap((barrier) => (barrier ? [viewOfBarrier(barrier)] : [])) }
  }

  async #doc(signal?: AbortSignal): Promise<RunState | undefined> {
    return await readRun(this.#deps, this.id, signal)
  }

  async #warnOfMissing(): Promise<void> {
    const status = await this.status().catch(() => undefined)
    if (!status) return
    const ofAssets = Object.values(status.assets).flatMap(({ waitingFor }) => waitingFor)
    const missing = [...status.waitingFor, ...ofAssets.filter((reason) => reason.startsWith('a worker'))]
    for (const reason of new Set(missing)) this.#deps.logger.warn(`run ${this.id} waits for ${reason}`)
  }

  async #finished(signal: AbortSignal | undefined, early: EarlyValue): Promise<FinishedData> {
    const { connection, names } = this.#deps
    const subject = names.fact(this.#shard, factPath('run.finished', { run: this.id }))
    let wake: (() => void) | undefined
    let noted = false
    let looks = 0
    const subscription = listen(connection.nc, names.notification('run', this.id), (message) => {
      early.hint(message.data)
      noted = true
      wake?.()
    })
    const onAbort = (): void => wake?.()
    signal?.addEventListener('abort', onAbort)
    const rest = async (ms: number): Promise<void> => {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    // What was noted while the connection was broken was not heard.
    const offReconnect = connection.onReconnect(onAbort)
    try {
      if (this.isNew && performance.now() - this.#madeMs < YOUNG_MS && !signal?.aborted) await rest(FIRST_LOOK_MS)
      for (;;) {
        signal?.throwIfAborted()
        if (connection.isClosed) throw new FlowStoneError('closed', 'the connection was closed while a run was awaited')
        // Before it is noted it is mostly not there, and a replica that lags is asked again at the
        // next look: no need to bother the leader.
        const read = noted ? directGet : directGetIfAny
        noted = false
        // Sent with the question for the end, in one go.
        early.begin()
        const reading = connection
          .untilDisconnect((nc) => read(nc, names.log(this.#shard), { last_by_subj: subject }))
          .catch(unlessDenied)
        const message = await unlessAborted(reading, signal)
        const fact = message && factOf(names, this.#shard, message)
        if (fact?.name === 'run.finished') return fact.data
        if (noted) continue
        // What was started a moment ago is not sealed.
        const isYoung = this.isNew && looks === 0
        const sealed = isYoung ? undefined : await unlessAborted(runFinished(this.#deps, this.id), signal)
        if (sealed) return sealed.data
        const problem = looks === 1 ? await unlessAborted(prunedProblem(this.#deps, this.id), signal) : undefined
        if (problem) throw problem
        looks += 1
        if (looks === WARN_LOOKS) void this.#warnOfMissing()
        await rest(LOOK_MS)
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
      offReconnect()
      if (!connection.isClosed) subscription.unsubscribe()
    }
  }
}

async function runFinished(deps: RunDeps, run: RunId): Promise<FactOf<'run.finished'> | undefined> {
  const fact = await sealedFact(deps, run, factPath('run.finished', { run }))
  return fact?.name === 'run.finished' ? fact : undefined
}

/**
 * The value of a run, asked for where the note of its end says that it stands, while the end itself
 * is read. The end is the truth.
 */
class EarlyValue {
  readonly #deps: RunDeps
  readonly #signal: AbortSignal | undefined
  #hint: Uint8Array | undefined
  #hinted: { readonly at: ValueAt; readonly value: Promise<unknown> } | undefined

  constructor(deps: RunDeps, signal: AbortSignal | undefined) {
    this.#deps = deps
    this.#signal = signal
  }

  hint(note: Uint8Array): void {
    this.#hint = note
  }

  begin(): void {
    const at = this.#hint && !this.#hinted ? hintedAt(this.#hint) : undefined
    if (!at) return
    const value = this.#load(at)
    value.catch(() => undefined)
    this.#hinted = { at, value }
  }

  async at(place: ValueAt): Promise<unknown> {
    const { at, value } = this.#hinted ?? {}
    return at?.shard === place.shard && at.seq === place.seq ? await value : await this.#load(place)
  }

  #load(at: ValueAt): Promise<unknown> {
    const { connection, names, io } = this.#deps
    return loadValueAt(connection, names, io, at, this.#signal)
  }
}

function hintedAt(note: Uint8Array): ValueAt | undefined {
  try {
    return valueAt.safeParse(decode(note, undefined)).data
  } catch {
    return undefined
  }
}

type FinishedData = Extract<ReturnType<typeof factOf>, { name: 'run.finished' }>['data']

export function viewOfRun(doc: ListedRun): RunView {
  const assets = Object.entries(doc.assets).map(
    ([name, { status, attempt, error, gate, child, waitsUntilMs, from }]) => {
      const shown = error ? { error: viewOfError(error) } : {}
      const waits = {
        ...(gate === undefined || child !== undefined || status !== 'suspended'
          ? {}
          : { gate: `${doc.id}.${name}.${gate}` }),
        ...(child === undefined || status !== 'suspended' ? {} : { waitsForRun: child }),
        ...(waitsUntilMs === undefined ? {} : { deadline: new Date(waitsUntilMs) }),
      }
      const reused = from ? { reused: { ...from } } : {}
      return [name, { status, attempt, ...shown, ...waits, ...reused }] as const
    },
  )
  return {
    id: doc.id,
    pipeline: doc.pipeline,
    version: doc.version,
    target: doc.target,
    partition: doc.partition,
    ...(doc.tags === undefined ? {} : { tags: doc.tags }),
    ...(doc.retryOf === undefined ? {} : { retryOf: doc.retryOf }),
    ...startedBy(doc),
    ...(doc.concurrency === undefined ? {} : { concurrency: { ...doc.concurrency } }),
    ...(doc.parent === undefined ? {} : { parent: { run: doc.parent.run, asset: doc.parent.asset } }),
    status: doc.status,
    requestedAt: new Date(doc.requestedMs),
    finishedAt: doc.finishedMs === undefined ? undefined : new Date(doc.finishedMs),
    ...(doc.deadlineMs === undefined ? {} : { deadline: new Date(doc.deadlineMs) }),
    ...(doc.late?.passed ? { lateSince: new Date(doc.late.dueMs) } : {}),
    assets: Object.fromEntries(assets),
  }
}

function startedBy({ schedule, sensor, hook }: ListedRun): Pick<RunView, 'schedule' | 'sensor' | 'hook'> {
  if (hook) return { hook: { ...hook } }
  if (sensor) return { sensor: sensor.name }
  if (!schedule) return {}
  const { name, atMs, by } = schedule
  return { schedule: { name, at: new Date(atMs), ...(by === undefined ? {} : { by }) } }
}

export function viewOfBarrier(barrier: BarrierState): ScatterView {
  const { run, asset, status, total, stored, succeeded, failed, suspended = 0 } = barrier
  const pending = stored - succeeded - failed
  return {
    run,
    asset,
    status,
    total,
    stored,
    succeeded,
    failed,
    pending,
    suspended,
    paused: barrier.paused !== undefined,
  }
}

/** Undefined for what may be read in a while; a permission that is missing is thrown. */
function unlessDenied(error: unknown): undefined {
  if (error instanceof FlowStoneError && error.code === 'denied') throw error
}
