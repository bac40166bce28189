/** `flow.scatter`: look into a scatter and act on it, by id (`<run id>.<asset>`). */

import { type RunRequest, runIdFor } from '../../projections/run/request.ts'
import { isDone, isFailed, segmentOf } from '../../projections/scatter/bits.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type RunState, redriveIn, specOf, stateKey } from '../../projections/state.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { type AssetName, parseBarrierId, parseRunId, type RunId } from '../../streams/ids.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import type { ErrorView } from '../../streams/thrown.ts'
import { factIn } from '../log/doc-source.ts'
import { factEntry } from '../log/entries.ts'
import { isSealed } from '../log/history.ts'
import { missingRun } from '../log/pruned.ts'
import { reasonOf } from '../options/reason.ts'
import { append, earlierTrace, hasFailed, inTrace, newestAttempt } from '../runs/request.ts'
import { Values } from '../worker/attempt/values.ts'
import { readFailures } from '../worker/gather/gather.ts'
import { Run } from './run.ts'
import { readBarrier, readRun } from './run-doc.ts'
import type { RunDeps } from './run-view.ts'
import { type ScatterStatus, statusOf } from './scatter-status.ts'
import { seeScatter } from './seen-workers.ts'

/** An instance that is not done: its place in the scatter, from 0, and its key. */
export interface PendingInstance {
  readonly index: number
  readonly key: unknown
}

/** An instance that failed for good, and by what. */
export interface FailedInstance extends PendingInstance {
  readonly error: ErrorView
  /** How often it was executed. */
  readonly attempts: number
}

interface Found {
  readonly barrier: BarrierState
  readonly run: RunState
  readonly spec: AssetSpec | undefined
}

/** `flow.scatter`: looks at scatters, and operates them. A scatter is named `<run>.<asset>`. */
export class Scatters {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /**
   * Counts, rate, and why what waits is waiting. From the state bucket, which may lag the log by
   * some 50 ms; what runs at this moment is asked of the workers, which takes some 30 ms. Throws
   * `not_found`.
   */
  async status(id: string): Promise<ScatterStatus> {
    const { barrier, run, spec } = await this.#find(id)
    const { clock, docs } = this.#deps
    // Only what is out can be in a worker's hands. Of the past nobody can be asked.
    const isOut = !docs.past && barrier.status === 'open' && Object.keys(barrier.leases).length > 0
    const { shard } = parseBarrierId(id)
    const seen = isOut && spec ? await seeScatter(this.#deps, shard, run, spec) : undefined
    const { pipeline, version } = run
    const whole = redriveIn(run, barrier.asset)?.total
    const status = statusOf({ id, barrier, spec, whole, pipeline, version, seen, nowMs: clock.now() })
    return docs.past ? { ...status, waitingFor: [] } : status
  }

  /** The scatters of a run. */
  async list(runId: string): Promise<ScatterStatus[]> {
    const run = await this.#run(runId, runId)
    const found: ScatterStatus[] = []
    for (const asset of Object.keys(run.assets)) {
      const status = await this.status(`${run.id}.${asset}`).catch((error: unknown) => {
        if (error instanceof FlowStoneError && error.code === 'not_found') return undefined
        throw error
      })
      if (status) found.push(status)
    }
    return found
  }

  /** Instances that have not ended, in index order, with their keys. */
  async *pending(id: string): AsyncGenerator<PendingInstance> {
    const { barrier } = await this.#find(id)
    const { names, connection, io, docs } = this.#deps
    const { run, asset, shard } = parseBarrierId(id)
    const values = new Values(connection, names, io)
    const isOpen = barrier.status === 'open' && !docs.past
    const read = async (key: string): Promise<unknown> =>
      isOpen ? await docs.read(shard, key) : await docs.ofRun(run, key)
    let segment: { n: number; bits: Uint8Array | undefined } | undefined
    let keyChunk = barrier.stored > 0 ? await values.keyChunk(shard, run, asset, 0) : undefined
    for (let index = 0; keyChunk && index < barrier.stored; index++) {
      const n = segmentOf(index)
      if (segment?.n !== n) {
        const bits = await read(stateKey.segment(run, asset, n))
        segment = { n, bits: bits instanceof Uint8Array ? bits : undefined }
      }
      if (index >= keyChunk.end) keyChunk = await values.keyChunk(shard, run, asset, index)
      if (segment.bits && (isDone(segment.bits, index) || isFailed(segment.bits, index))) continue
      yield { index, key: keyChunk.key(index) }
    }
  }

  /**
   * Instances that failed for good, in index order, with key, attempts, and the error that counted
   * as their end. Only of a scatter that is closed: throws `not_closed`.
   */
  async *failures(id: string): AsyncGenerator<FailedInstance> {
    const { barrier } = await this.#findSettled(id)
    if (barrier.status === 'open')
      throw new FlowStoneError(
        'not_closed',
        `scatter ${id} is still running; its failures are listed when it is closed (status has their count)`,
      )
    if (barrier.failed === 0) return
    const { connection, names, io } = this.#deps
    const { run, asset, shard } = parseBarrierId(id)
    const values = new Values(connection, names, io)
    yield* readFailures({ connection, names, io, values, shard, run, asset }, barrier.stored)
  }

  /**
   * Ends a scatter early: what runs is aborted, what waits is not begun, and counts as neither. Its
   * asset fails with `cancelled`. No error when it has ended.
   */
  async cancel(id: string, reason?: string): Promise<void> {
    const data = reasonOf('scatter.cancel', reason)
    await this.#mustBeThere(id)
    const { names, logOf, by } = this.#deps
    const { run, asset, shard } = parseBarrierId(id)
    if (await isSealed(this.#deps, run)) return
    await logOf(shard).appendOnce(
      factEntry(names, shard, { name: 'scatter.cancel_requested', ids: { run, asset }, data }, by),
    )
  }

  /**
   * Begins nothing more of a scatter until `resume`. What runs is finished; what workers have in
   * their hands and have not begun goes back, and costs no attempt. Survives everything. Its keys
   * are still taken in, what waits at a gate goes on when that ends, and `totalTimeout` runs. May
   * be done twice; no error when the scatter has ended. Throws `not_found`.
   */
  async pause(id: string, reason?: string): Promise<void> {
    const data = reasonOf('scatter.pause', reason)
    await this.#hold(id, (ids) => ({ name: 'scatter.paused', ids, data }))
  }

  /** Goes on with a paused scatter. No error when it is not paused. Throws `not_found`. */
  async resume(id: string): Promise<void> {
    await this.#hold(id, (ids) => ({ name: 'scatter.resumed', ids, data: {} }))
  }

  async #hold(id: string, fact: (ids: { run: RunId; asset: AssetName }) => FactDraft): Promise<void> {
    await this.#mustBeThere(id)
    const { names, logOf, by } = this.#deps
    const { run, asset, shard } = parseBarrierId(id)
    if (await isSealed(this.#deps, run)) return
    await logOf(shard).append(factEntry(names, shard, fact({ run, asset }), by))
  }

  /**
   * Runs again what did not succeed of a closed scatter (failed, or never begun), and then all that
   * is downstream of it; everything else is taken from the earlier run. Returns the new run, whose
   * gather sees the results of both. Asked for again it gives the same run, and `isNew` of the
   * handle is false; once that has failed, a new one, which keeps what the failed one brought. A
   * redrive can be redriven. Options of the scatter hold: a `failureThreshold` is one of the whole
   * scatter. Throws `not_redrivable`.
   */
  async redrive(id: string): Promise<Run> {
    const refuse = (why: string): FlowStoneError => new FlowStoneError('not_redrivable', `scatter ${id} ${why}`)
    const { barrier, run } = await this.#findSettled(id)
    if (barrier.status === 'open') throw refuse('is still running; cancel it first, or wait')
    if (barrier.total === undefined) throw refuse('ended before all of its keys were known; materialize its asset anew')
    if (barrier.total !== barrier.stored)
      throw refuse('has other keys than its scatter function gave in the end; materialize its asset anew')
    if (barrier.succeeded === barrier.total && !(await hasFailed(this.#deps, run.id)))
      throw refuse('has nothing that failed')
    return await this.#redriveFrom(id, { barrier, run, spec: undefined })
  }

  /** The redrive of this scatter; or, where that has failed, the redrive of what it left. */
  async #redriveFrom(id: string, { barrier, run }: Found): Promise<Run> {
    const { shards } = this.#deps
    const { asset } = parseBarrierId(id)
    const total = redriveIn(run, asset)?.total ?? barrier.total ?? 0
    const data: RunRequest = inTrace({
      pipeline: run.pipeline,
      version: run.version,
      target: run.target,
      upstream: run.upstream,
      ...(run.partition === undefined ? {} : { partition: run.partition }),
      redrive: { run: run.id, asset, total },
      ...earlierTrace(run),
      ...(run.concurrency === undefined ? {} : { concurrency: run.concurrency }),
    })
    const first = runIdFor(data, 'redrive', id, shards)
    if (await append(this.#deps, first, data)) return new Run(this.#deps, first, { isNew: true })
    const newest = await newestAttempt(this.#deps, data, 'redrive', id)
    if (!(await hasFailed(this.#deps, newest.id))) return new Run(this.#deps, newest.id)
    const left = `${newest.id}.${asset}`
    const found = await this.#findEnded(left)
    if (found && found.barrier.total !== undefined && found.barrier.total === found.barrier.stored)
      return await this.#redriveFrom(left, found)
    // It failed before its scatter knew what to run: it left nothing to go on with.
    const next = runIdFor(data, 'redrive', id, shards, newest.attempt + 1)
    const isNew = await append(this.#deps, next, { ...data, retryOf: newest.id })
    return new Run(this.#deps, next, { isNew })
  }

  /** A scatter of a run that has ended, once it is closed too; undefined when it never began. */
  async #findEnded(id: string): Promise<Found | undefined> {
    if (!(await this.#onLog(id, 'scatter.started'))) return undefined
    for (let look = 1; ; look++) {
      const found = await this.#findSettled(id)
      if (found.barrier.status !== 'open') return found
      if (look > 50) throw new FlowStoneError('state_behind', `scatter ${id} is not closed yet; try again`)
      await this.#deps.connection.ready(20 * look)
    }
  }

  async #run(runId: string, id: string): Promise<RunState> {
    await this.#deps.found()
    const { shards } = this.#deps
    const { shard } = parseRunId(runId)
    // A partition of the log that is not there would be waited for.
    const run = shard < shards ? await readRun(this.#deps, runId) : undefined
    if (!run) throw await missingRun(this.#deps, runId, id === runId ? '' : `scatter ${id}: `)
    return run
  }

  async #isEnding(id: string): Promise<boolean> {
    return (await this.#onLog(id, 'scatter.closed')) || (await this.#onLog(id, 'scatter.ended_early'))
  }

  async #onLog(id: string, event: 'scatter.started' | 'scatter.ended_early' | 'scatter.closed'): Promise<boolean> {
    await this.#deps.found()
    const { docs, shards } = this.#deps
    const { run, asset, shard } = parseBarrierId(id)
    if (shard >= shards) return false
    return (await factIn(docs, run, event, { run, asset })) !== undefined
  }

  /**
   * On the log, of which the state bucket may not know yet. What is missing there, the bucket can
   * say in more words.
   */
  async #mustBeThere(id: string): Promise<void> {
    if (!(await this.#onLog(id, 'scatter.started'))) await this.#find(id)
  }

  /**
   * As the log has it: when the scatter is closed there, waits for the state bucket to say so too.
   */
  async #findSettled(id: string): Promise<Found> {
    const { connection, docs } = this.#deps
    if (docs.past) return await this.#find(id)
    for (let look = 1; ; look++) {
      const found = await this.#find(id).catch(async (error: unknown) => {
        if (!(await this.#onLog(id, 'scatter.started'))) throw error
        if (look > 50)
          throw new FlowStoneError(
            'state_behind',
            `scatter ${id} is on its log, but the state of its shard is behind; is an engine running? Try again`,
          )
        return undefined
      })
      if (found && (found.barrier.status !== 'open' || !(await this.#isEnding(id)))) return found
      // It is closed; to say from an old document that it runs would be wrong.
      if (look > 50)
        throw new FlowStoneError(
          'state_behind',
          `scatter ${id} has ended, but the state of its shard is behind its log; is an engine running? Try again`,
        )
      await connection.ready(20 * look)
    }
  }

  async #find(id: string): Promise<Found> {
    const { run: runId, asset, shard } = parseBarrierId(id)
    const run = await this.#run(runId, id)
    const [barrier, doc] = await Promise.all([
      readBarrier(this.#deps, run, asset),
      this.#deps.docs.read(shard, stateKey.pipeline(run.pipeline, run.version)),
    ])
    // The bucket's type of document follows from its key.
    const pipeline = doc as PipelineSpec | undefined
    const spec = pipeline && specOf(pipeline, asset)
    if (!barrier) {
      if (spec && !spec.scatter)
        throw new FlowStoneError(
          'not_found',
          `asset ${asset} of run ${runId} is plain: it has no scatter; its state is in the run's status (flowstone status ${runId})`,
        )
      const hint = run.assets[asset] ? ' (yet)' : nearest(asset, Object.keys(run.assets))
      throw new FlowStoneError('not_found', `run ${runId} has no scatter ${asset}${hint}`)
    }
    return { barrier, run, spec }
  }
}
