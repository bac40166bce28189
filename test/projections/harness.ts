/**
 * The log, the state bucket and WORK, in memory: the engine's loop without a server. Facts travel
 * as bytes, and a taken place is refused as the server refuses it. Documents live in memory and, as
 * of the last checkpoint, as bytes in a bucket. A restart reads only what `needs` names.
 */

import { isDeepStrictEqual } from 'node:util'
import type { Effect } from '../../projections/effects.ts'
import { gateTimer } from '../../projections/gate/gate.ts'
import { needs, step } from '../../projections/handlers.ts'
import { carrierOf } from '../../projections/run/chain.ts'
import { isEnded } from '../../projections/run/end.ts'
import { planRun } from '../../projections/run/plan.ts'
import { refusalFor, runIdFor } from '../../projections/run/request.ts'
import { received, type TriggerMessage } from '../../projections/run/trigger.ts'
import { abandonment, awaiting, endForParent, isSame } from '../../projections/run/waiters.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { editDoc, type Key, type RunState, specOf, stateKey, type View } from '../../projections/state.ts'
import { attemptEffect, leaseEffect } from '../../projections/tasks.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import {
  type DraftOf,
  decodeFact,
  encodeFact,
  type Fact,
  type FactDraft,
  type FactName,
  type FactOf,
  factPath,
  isRepeatable,
} from '../../streams/facts.ts'
import { type AssetName, assetName, type RunId, runId } from '../../streams/ids.ts'
import { placeOf } from '../../streams/places.ts'
import type { ScatterOutcomes } from '../../streams/scatter-schemas.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import { shapeOf } from '../../streams/shape.ts'
import { decodeTask, encodeTask, type LeaseTask } from '../../streams/tasks.ts'

export type TaskEffect = Extract<Effect, { do: 'task' }>
export type Bucket = ReadonlyMap<string, Uint8Array>
export type { DraftOf } from '../../streams/facts.ts'

/** The engine's documents, in front of a bucket, as src/engine/shard/store.ts keeps them. */
export class Docs implements View {
  readonly #docs = new Map<string, unknown>()
  readonly #touched = new Set<string>()
  readonly #bucket: Map<string, Uint8Array>
  /** While `step` runs: a read of what was not loaded throws. */
  folding = false

  constructor(bucket: Bucket = new Map()) {
    this.#bucket = new Map(bucket)
  }

  has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: Key<D>): D | undefined {
    // A fold that reads what `needs` did not name decides one thing in a warm engine and another in
    // one that has just started.
    if (this.folding && !this.#docs.has(key) && this.#bucket.has(key))
      throw new Error(`the fold reads ${key}, which needs() did not name`)
    return this.#docs.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#docs.set(key, doc)
    this.#touched.add(key)
  }

  delete<D>(key: Key<D>): void {
    this.#docs.set(key, undefined)
    this.#touched.add(key)
  }

  /** What a reader outside of the folds sees. */
  peek<D>(key: Key<D>): D | undefined {
    if (!this.#docs.has(key)) this.load([key])
    return this.get(key)
  }

  load(keys: readonly string[]): void {
    for (const key of keys) {
      const bytes = this.#bucket.get(key)
      if (!this.#docs.has(key)) this.#docs.set(key, bytes && decodeDoc(key, bytes))
    }
  }

  /**
   * Writes what was put since the last time; what was changed and not put is lost here, as it is in
   * the engine.
   */
  checkpoint(): Bucket {
    for (const key of this.#touched) {
      const doc = this.#docs.get(key)
      if (doc === undefined) this.#bucket.delete(key)
      else this.#bucket.set(key, encodeDoc(doc))
    }
    this.#touched.clear()
    return new Map(this.#bucket)
  }

  /** Throws when a document in memory is not what the bucket holds. */
  assertWritten(): void {
    for (const [key, doc] of this.#docs) {
      if (doc === undefined || this.#touched.has(key)) continue
      const bytes = this.#bucket.get(key)
      if (!bytes || Buffer.compare(bytes, encodeDoc(doc)) !== 0) throw new Error(`${key} was changed but not put`)
    }
  }
}

function encodeDoc(doc: unknown): Uint8Array {
  return doc instanceof Uint8Array ? new Uint8Array(doc) : encodeJson(doc)
}

function decodeDoc(key: string, bytes: Uint8Array): unknown {
  return key.startsWith('segment.') ? new Uint8Array(bytes) : decode(bytes, 'application/json')
}

/** A bucket as text by key, so that a difference can be read. */
export function printed(bucket: Bucket): Record<string, string> {
  const entries = [...bucket].sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(
    entries.map(([key, bytes]) => [key, Buffer.from(bytes).toString(key.startsWith('segment.') ? 'base64' : 'utf8')]),
  )
}

export const START_MS = 1_700_000_000_000

export class Sim {
  readonly log: Fact[] = []
  /** Tasks on WORK, by id: due or scheduled, delivered or not, until acknowledged. */
  readonly work = new Map<string, TaskEffect>()
  /** Commands by the sequence of the fact that caused them. */
  readonly issued = new Map<number, readonly Effect[]>()
  /** Schedules on the log. */
  timers: { fact: FactDraft; dueMs: number }[] = []
  docs = new Docs()
  nowMs = START_MS
  /** Facts up to this sequence are folded. */
  folded = 0
  readonly #checkpoints: { seq: number; bucket: Bucket }[] = [{ seq: 0, bucket: new Map() }]
  readonly #taken = new Set<string>()
  readonly #enqueued = new Set<string>()

  /** Stores a fact unless its place is taken. */
  append(draft: FactDraft): Fact | undefined {
    const path = factPath(draft.name, draft.ids)
    if (!isRepeatable(draft.name)) {
      const place = placeOf(draft)
      if (this.#taken.has(place)) return undefined
      this.#taken.add(place)
    }
    const { payload, contentType } = encodeFact(draft)
    const fact = decodeFact({ path, payload, contentType, shard: 0, seq: this.log.length + 1, timeMs: this.nowMs })
    this.log.push(fact)
    return fact
  }

  #isTaken(draft: FactDraft): boolean {
    return this.#taken.has(placeOf(draft))
  }

  /** Folds the next fact, and carries out what it decides. Undefined at the end of the log. */
  fold(): readonly Effect[] | undefined {
    const fact = this.log[this.folded]
    if (!fact) return undefined
    const effects = foldOne(this.docs, fact)
    this.folded = fact.seq
    const before = this.issued.get(fact.seq)
    if (before && JSON.stringify(before) !== JSON.stringify(effects)) {
      throw new Error(
        `fact ${fact.seq} ${fact.name}: decided ${JSON.stringify(before)}, and again ${JSON.stringify(effects)}`,
      )
    }
    this.issued.set(fact.seq, effects)
    for (const effect of effects) this.#carryOut(effect)
    return effects
  }

  settle(): void {
    while (this.fold()) {
      // Until the log's end.
    }
  }

  /**
   * Appends a fact, folds all there is, and returns what this fact decided. Throws when its place
   * is taken.
   */
  apply(draft: FactDraft, timeMs = this.nowMs): readonly Effect[] {
    this.settle()
    this.nowMs = timeMs
    const fact = this.append(draft)
    if (!fact) throw new Error(`the place of ${factPath(draft.name, draft.ids)} is taken`)
    const effects = this.fold() ?? []
    this.settle()
    return effects
  }

  /** A message of an outsider, as the engine copies it to the log. */
  trigger(message: Omit<TriggerMessage, 'seq' | 'timeMs'>): readonly Effect[] {
    return this.apply(received({ ...message, seq: 1_000_000 + this.log.length, timeMs: this.nowMs }))
  }

  checkpoint(): void {
    this.#checkpoints.push({ seq: this.folded, bucket: this.docs.checkpoint() })
  }

  /** Forgets older checkpoints: no crash goes back beyond here. Returns what there is. */
  rebase(): Bucket {
    const bucket = this.docs.checkpoint()
    this.#checkpoints.splice(0, this.#checkpoints.length, { seq: this.folded, bucket })
    return bucket
  }

  /**
   * The engine dies; the next one starts from a checkpoint, `back` before the newest. `forgotten`:
   * WORK no longer knows which ids it has seen.
   */
  crash(back: number, forgotten: boolean): void {
    const at = Math.max(0, this.#checkpoints.length - 1 - back)
    this.#checkpoints.length = at + 1
    const { seq, bucket } = this.#checkpoints[at] ?? { seq: 0, bucket: new Map() }
    this.docs = new Docs(bucket)
    this.folded = seq
    if (forgotten) this.#enqueued.clear()
  }

  /**
   * What src/engine/maintenance/reconciler.ts does: tasks that open things wait for and WORK does
   * not hold are enqueued again. Returns their ids.
   */
  reconcile(): string[] {
    this.settle()
    const repaired: string[] = []
    const add = (effect: Effect, carrier?: string): void => {
      if (effect.do !== 'task' || this.work.has(carrier ?? effect.task.id)) return
      repaired.push(effect.task.id)
      this.work.set(effect.task.id, effect)
    }
    const runs = new Set(this.log.flatMap((fact) => (fact.name === 'run.requested' ? [fact.ids.run] : [])))
    for (const id of runs) {
      const run = this.docs.peek(stateKey.run(id))
      const pipeline = run && this.docs.peek(stateKey.pipeline(run.pipeline, run.version))
      if (!run || !pipeline || run.finishedMs !== undefined) continue
      for (const [name, asset] of Object.entries(run.assets)) {
        const spec = specOf(pipeline, name)
        if (!spec || isEnded(asset) || asset.ending) continue
        if (asset.status === 'queued' || asset.status === 'running')
          add(attemptEffect(run, pipeline, spec, asset), carrierOf(run, name))
        const barrier = this.docs.peek(stateKey.barrier(id, name))
        if (barrier?.status !== 'open' || barrier.closing) continue
        for (const lease of Object.keys(barrier.leases)) add(leaseEffect({ run, spec }, barrier, lease))
      }
    }
    return repaired
  }

  /** Tasks that may run now; when all are scheduled for later, time goes on until one may. */
  due(only?: 'lease'): TaskEffect[] {
    const tasks = [...this.work.values()].filter(({ task }) => only === undefined || task.kind === only)
    const now = tasks.filter(({ dueMs }) => (dueMs ?? 0) <= this.nowMs)
    if (now.length > 0 || tasks.length === 0) return now
    this.nowMs = Math.min(...tasks.map(({ dueMs }) => dueMs ?? 0))
    return this.due(only)
  }

  run(id: RunId): RunState {
    const run = this.docs.peek(stateKey.run(id))
    if (!run) throw new Error(`there is no run ${id}`)
    return run
  }

  facts<N extends FactName>(name: N): FactOf<N>[] {
    return this.log.filter((fact): fact is FactOf<N> => fact.name === name)
  }

  #carryOut(effect: Effect): void {
    switch (effect.do) {
      case 'fact':
        this.append(effect.fact)
        return
      case 'task': {
        if (this.#enqueued.has(effect.task.id)) return
        this.#enqueued.add(effect.task.id)
        const { payload, contentType } = encodeTask(effect.task)
        this.work.set(effect.task.id, { ...effect, task: decodeTask(payload, contentType) })
        return
      }
      case 'plan': {
        const run = this.docs.peek(stateKey.run(effect.run))
        const pipeline = run && this.docs.peek(stateKey.pipeline(run.pipeline, run.version))
        if (!run || !pipeline) return
        const { assets, error } = planRun(
          pipeline,
          run.target,
          run.upstream,
          (asset) => this.docs.peek(stateKey.asset(run.pipeline, asset, run.partition)),
          run.inputs,
        )
        this.append({
          name: 'run.planned',
          ids: { run: run.id },
          data: { assets: [...assets], ...(error ? { error } : {}) },
        })
        return
      }
      case 'request': {
        const { trigger } = effect
        const run = runIdFor(trigger.request, trigger.space, trigger.key, 1)
        if (this.append({ name: 'run.requested', ids: { run }, data: trigger.request })) return
        const refusal = refusalFor(trigger, this.facts('run.requested').find(({ ids }) => ids.run === run)?.data)
        if (refusal) this.append(refusal)
        return
      }
      case 'cancel_gates': {
        // By the log, as the engine does; one that has ended refuses another end.
        for (const { ids } of [...this.facts('gate.created'), ...this.facts('child.requested')])
          if (
            ids.run === effect.run &&
            ids.asset === effect.asset &&
            ids.gate.startsWith(effect.attempt === undefined ? '' : `a${effect.attempt}n`)
          )
            this.append({ name: 'gate.resolved', ids, data: { ...ids, outcome: 'cancelled' } })
        return
      }
      case 'start_child': {
        const wanted = this.facts('child.requested').find(({ ids }) => isDeepStrictEqual(ids, effect.gate))?.data
        const run = wanted?.child as RunId
        if (!wanted || this.append({ name: 'run.requested', ids: { run }, data: wanted.request })) return
        const earlier = this.facts('run.requested').find(({ ids }) => ids.run === run)?.data
        if (!isSame(earlier?.parent, effect.gate)) this.append(awaiting(run, effect.gate))
        return
      }
      case 'abandon_child':
        this.#carryOut({ do: 'start_child', gate: effect.gate })
        this.append(abandonment(effect.child, effect.gate))
        return
      case 'wake_parent': {
        const { run, asset, gate } = effect.waiter
        const finished = this.facts('run.finished').find(({ ids }) => ids.run === effect.run)
        if (!finished) throw new Error(`run ${effect.run} has not ended`)
        const ids = { run: run as RunId, asset: assetName(asset), gate }
        const data = { ...ids, outcome: 'signaled', child: endForParent(finished.data) } as const
        this.append({ name: 'gate.resolved', ids, data })
        return
      }
      case 'extend_gate': {
        const { n, ...ids } = effect.fact.ids
        if (this.#isTaken({ name: 'gate.resolved', ids, data: { ...ids, outcome: 'cancelled' } })) return
        if (this.append(effect.fact))
          this.timers.push({ fact: gateTimer(ids, Number(n)), dueMs: effect.fact.data.deadlineMs })
        return
      }
      case 'time_out_gate':
        if (this.#isTaken(effect.close) || this.#isTaken(effect.end)) return
        this.append(effect.close)
        this.append(effect.end)
        return
      case 'timer': {
        const place = factPath(effect.fact.name, effect.fact.ids)
        if (effect.replaces) this.timers = this.timers.filter(({ fact }) => factPath(fact.name, fact.ids) !== place)
        this.timers.push({ fact: effect.fact, dueMs: effect.dueMs })
        return
      }
      case 'start_run':
      case 'start_evaluated':
        if (this.#isTaken(effect.fired) || this.#isTaken(effect.request)) return
        this.append(effect.fired)
        this.append(effect.request)
        return
      case 'start_sensed':
      case 'alarm':
      case 'abort':
      case 'pause':
      case 'open_limited_queue':
      case 'drop_schedules':
      case 'close_limited_queue':
        return
      default:
        effect satisfies never
    }
  }
}

/** Folds one fact over documents that may still have to be loaded. */
export function foldOne(docs: Docs, fact: Fact): Effect[] {
  for (let missing = needs(docs, docs.has, fact); missing.length > 0; missing = needs(docs, docs.has, fact)) {
    docs.load(missing)
  }
  docs.folding = true
  try {
    return step(docs, fact)
  } finally {
    docs.folding = false
  }
}

// ---- drafts, short ----

export const RUN = runId(0, 'r1')
export const RETRY = { maxAttempts: 3, backoffMinMs: 1000, backoffMaxMs: 60_000 }

/** A scatter with the options that old logs have. */
export const plainScatter: NonNullable<AssetSpec['scatter']> = {
  failureMode: 'all_or_nothing',
  threshold: { fraction: 0 },
  strategy: 'individual',
  duplicates: 'allow',
}

export function spec(name: string, options: Partial<AssetSpec> = {}): AssetSpec {
  const graph = { name, dependsOn: [], queue: 'default', priority: 1, retry: RETRY, ...options }
  return { shape: shapeOf(graph), ...graph }
}

export function registered(assets: AssetSpec[], name = 'p', version = 'v1'): DraftOf<'pipeline.registered'> {
  return { name: 'pipeline.registered', ids: { pipeline: name, version }, data: { name, version, assets } }
}

export function requested(
  target: string,
  options: Partial<DraftOf<'run.requested'>['data']> & { run?: RunId } = {},
): DraftOf<'run.requested'> {
  const { run = RUN, ...data } = options
  return {
    name: 'run.requested',
    ids: { run },
    data: { pipeline: 'p', version: 'v1', target, upstream: 'all', ...data },
  }
}

export function materialized(asset: string, run: RunId = RUN, attempt = 1): DraftOf<'asset.materialized'> {
  const data = { run, asset, pipeline: 'p', attempt, worker: 'w', value: { json: asset }, durationMs: 1 }
  return { name: 'asset.materialized', ids: { pipeline: 'p', asset: assetName(asset), run }, data }
}

export function errored(
  asset: string,
  attempt: number,
  data: Partial<DraftOf<'attempt.ended'>['data']> = {},
): DraftOf<'attempt.ended'> {
  return {
    name: 'attempt.ended',
    ids: { pipeline: 'p', asset: assetName(asset), run: RUN, attempt: String(attempt) },
    data: {
      phase: 'execute',
      worker: 'w',
      outcome: 'error',
      error: { code: 'boom', message: `boom ${attempt}` },
      durationMs: 1,
      ...data,
    },
  }
}

export function startedAttempt(asset: string, attempt: number): DraftOf<'asset.started'> {
  const ids = { pipeline: 'p', asset: assetName(asset), run: RUN, attempt: String(attempt) }
  return { name: 'asset.started', ids, data: { phase: 'execute', worker: 'w', delivery: 1 } }
}

export function cancel(reason?: string): DraftOf<'run.cancel_requested'> {
  return { name: 'run.cancel_requested', ids: { run: RUN }, data: reason === undefined ? {} : { reason } }
}

const scatterIds = (asset: string): { run: RunId; asset: AssetName } => ({ run: RUN, asset: assetName(asset) })

export function scatterStarted(asset = 's', attempt = 1): DraftOf<'scatter.started'> {
  return { name: 'scatter.started', ids: scatterIds(asset), data: { attempt, worker: 'w' } }
}

export function keyChunk(offset: number, count: number, asset = 's'): DraftOf<'scatter.items'> {
  const keys = Array.from({ length: count }, (_, k) => offset + k)
  return {
    name: 'scatter.items',
    ids: { ...scatterIds(asset), offset: String(offset) },
    data: { count, keys, hash: 'h' },
  }
}

export function sized(total: number, asset = 's'): DraftOf<'scatter.sized'> {
  return { name: 'scatter.sized', ids: scatterIds(asset), data: { total } }
}

export type Answer = 'ok' | 'error' | 'now' | 'terminal' | 'returned'

/**
 * The outcomes of some instances of a lease. `now` is an error that asks to be tried again at once.
 */
export function outcomes(
  lease: string,
  answers: readonly (readonly [number, Answer])[],
  options: { worker?: string; heldMs?: number; asset?: string } = {},
): DraftOf<'scatter.outcomes'> {
  const { worker = 'w', asset = 's', heldMs } = options
  const errors = answers.flatMap(([, answer], k): NonNullable<ScatterOutcomes['errors']> => {
    if (answer === 'ok') return []
    const outcome = answer === 'now' ? 'error' : answer
    const error = { code: 'boom', message: 'boom' }
    return [[k, { error, outcome, ...(answer === 'now' ? { retryAfterMs: 0 } : {}) }]]
  })
  const data: ScatterOutcomes = {
    lease,
    ordinal: Number(lease.split('-')[2]),
    worker,
    at: answers.map(([index]) => index),
    ms: answers.map(() => 1),
    values: answers.map(([index, answer]) => (answer === 'ok' ? index : null)),
    ...(errors.length > 0 ? { errors } : {}),
    ...(heldMs === undefined ? {} : { heldMs }),
  }
  return { name: 'scatter.outcomes', ids: scatterIds(asset), data }
}

export function paused(asset = 's'): DraftOf<'scatter.paused'> {
  return { name: 'scatter.paused', ids: scatterIds(asset), data: {} }
}

export function resumed(asset = 's'): DraftOf<'scatter.resumed'> {
  return { name: 'scatter.resumed', ids: scatterIds(asset), data: {} }
}

export function timerFired(timeoutMs: number, asset = 's'): DraftOf<'scatter.timer_fired'> {
  return { name: 'scatter.timer_fired', ids: scatterIds(asset), data: { timeoutMs } }
}

export function split(
  lease: string,
  reason: 'lost' | 'returned',
  asset = 's',
): DraftOf<'lease.lost' | 'lease.returned'> {
  const ids = { ...scatterIds(asset), lease }
  const data = { lease, worker: 'w2' }
  return reason === 'lost' ? { name: 'lease.lost', ids, data } : { name: 'lease.returned', ids, data }
}

/** A worker hands back the instances of a lease from `from` on, which it has not begun. */
export function handBack(lease: string, from: number, heldMs = 100): DraftOf<'lease.returned'> {
  const data = { lease, worker: 'w2', from, heldMs }
  return { name: 'lease.returned', ids: { ...scatterIds('s'), lease: `${lease}-${from}` }, data }
}

/** A run of one scattering asset `s`, its scatter function not begun. */
export function scatterRun(options: Partial<AssetSpec> = {}, more: AssetSpec[] = []): Sim {
  const sim = new Sim()
  sim.apply(registered([spec('s', { scatter: plainScatter, ...options }), ...more]))
  sim.apply(requested(more.at(-1)?.name ?? 's'))
  return sim
}

/** The same, with its keys stored: key chunks of these sizes, and the total. */
export function scattered(keyChunks: readonly number[], options: Partial<AssetSpec> = {}, more: AssetSpec[] = []): Sim {
  const sim = scatterRun(options, more)
  sim.apply(scatterStarted())
  let offset = 0
  for (const count of keyChunks) {
    sim.apply(keyChunk(offset, count))
    offset += count
  }
  sim.apply(sized(offset))
  return sim
}

export function barrierOf(sim: Sim, asset = 's'): BarrierState {
  const barrier = sim.docs.peek(stateKey.barrier(RUN, asset))
  if (!barrier) throw new Error(`there is no barrier of ${asset}`)
  return barrier
}

export function leasesOn(sim: Sim): LeaseTask[] {
  return [...sim.work.values()].flatMap(({ task }) => (task.kind === 'lease' ? [task] : []))
}

/**
 * A worker that takes whatever is due, until nothing is left to do. `answer` says how an instance
 * goes.
 */
export function workOff(sim: Sim, answer: (index: number, task: LeaseTask) => Answer): void {
  for (let turn = 0; turn < 100_000; turn++) {
    sim.settle()
    const task = sim.due('lease')[0]?.task
    if (task?.kind !== 'lease') return
    sim.work.delete(task.id)
    const answers = Array.from(
      { length: task.to - task.from },
      (_, k) => [task.from + k, answer(task.from + k, task)] as const,
    )
    sim.append(outcomes(task.lease, answers, { heldMs: answers.length }))
  }
  throw new Error('the scatter does not end')
}
