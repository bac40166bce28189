/** `flow.triggers`: what outsiders asked for and could not get. Read from the log. */

import { type RunRequest, runIdFor } from '../../projections/run/request.ts'
import { identityOf, triggerBodyOf } from '../../projections/run/trigger.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { type FactOf, factPath } from '../../streams/facts.ts'
import { parseRunId, runId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { shown } from '../../streams/shown.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import { runFact } from '../log/run-fact.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { registeredPipeline } from '../runs/registered.ts'
import { inTrace, requestTrigger } from '../runs/request.ts'
import { runRequestOf } from '../runs/run-request.ts'
import { Run } from './run.ts'
import type { RunDeps } from './run-view.ts'

/** A trigger that was refused. */
export interface RefusedTrigger {
  /** Which one it is: what `retry` takes. */
  readonly id: string
  readonly pipeline: string | undefined
  readonly asset: string
  readonly reason: string
  /** The Nats-Msg-Id it came with. */
  readonly msgId: string | undefined
  readonly at: Date
  /** Whether what was sent is kept, so that it can be taken after all. */
  readonly kept: boolean
  /** The run that was started when it was taken after all. */
  readonly run: string | undefined
}

type Refused = FactOf<'trigger.refused'>

const READ_AHEAD = 64

/** Look at triggers that were refused, and have them taken after all. */
export class Triggers {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /**
   * Triggers that were refused, newest first, at most `limit` (default 100). Meant for people, not
   * for loops.
   */
  async refused(options: { readonly limit?: number } = {}): Promise<RefusedTrigger[]> {
    refuseUnknown('triggers.refused', options, ['limit'])
    const { limit = 100 } = options
    if (!(Number.isSafeInteger(limit) && limit >= 1))
      throw new InvalidError(`triggers.refused: limit must be a whole number from 1, got ${shown(limit)}`)
    await this.#deps.found()
    const { connection, names } = this.#deps
    const stream = names.log(0)
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.fact(0, factPath('trigger.refused', { trigger: '*' }))
    const info = await connection.read(() => jsm.streams.info(stream, { subjects_filter: filter }))
    const seqOf = (trigger: string): number => Number.parseInt(trigger, 10)
    const triggers = Object.keys(info.state.subjects ?? {})
      .map((subject) => subject.split('.').at(-2) ?? '')
      .toSorted((a, b) => seqOf(b) - seqOf(a))
      .slice(0, options.limit ?? 100)
    const found: RefusedTrigger[] = []
    for (let i = 0; i < triggers.length; i += READ_AHEAD) {
      const some = await Promise.all(triggers.slice(i, i + READ_AHEAD).map((trigger) => this.#find(trigger)))
      found.push(...(await Promise.all(some.flatMap((fact) => (fact ? [this.#view(fact)] : [])))))
    }
    return found
  }

  /**
   * Takes a refused trigger after all, by the newest version of its pipeline. Gives its run; called
   * again, the same run. Throws `not_found` for a trigger that was not refused, and for a pipeline
   * or asset that is not there. Throws InvalidError when it is refused again, or its body was not
   * kept. Throws ConflictError when its key or Nats-Msg-Id was used for another request.
   */
  async retry(id: string): Promise<Run> {
    const at = 'triggers.retry'
    await this.#deps.found()
    if (typeof id !== 'string' || !/^\d+-\d+$/.test(id))
      throw new InvalidError(`${at}: ${shown(id)} is no trigger's id; flowstone trigger ls lists them`)
    const fact = await this.#find(id)
    if (!fact) throw new FlowStoneError('not_found', `${at}: trigger ${id} was not refused, or that is long ago`)
    const { pipeline, asset, msgId } = fact.data
    const message = await this.#message(fact)
    if (!message) throw new InvalidError(`${at}: what trigger ${id} sent is too large to be kept; have it sent again`)
    if (pipeline === undefined) throw new InvalidError(`${at}: trigger ${id} is refused again: ${fact.data.reason}`)
    const body = triggerBodyOf(message)
    if ('problem' in body) throw new InvalidError(`${at}: trigger ${id} is refused again: ${body.problem}`)
    const spec = await registeredPipeline(at, this.#deps, pipeline)
    const { io } = this.#deps
    const { partition, upstream, key, input, tags, concurrency } = body.asked
    const request = await runRequestOf(
      { at: `${at}: trigger ${id}`, pipeline: spec, target: asset, io },
      {
        ...(partition === undefined ? {} : { partition }),
        ...(upstream === undefined ? {} : { upstream }),
        ...(key === undefined ? {} : { key }),
        ...(input === undefined ? {} : { input }),
        ...(tags === undefined ? {} : { tags }),
        ...(concurrency === undefined ? {} : { concurrency }),
      },
    )
    const data: RunRequest = inTrace({ ...request, trigger: triggerOf(id, msgId) })
    const started = await requestTrigger(this.#deps, identityOf(fact, key), data)
    return new Run(this.#deps, started.id, { isNew: started.isNew, ...(key === undefined ? {} : { key }) })
  }

  async #find(trigger: string): Promise<Refused | undefined> {
    const fact = await this.#fact('trigger.refused', trigger)
    return fact?.name === 'trigger.refused' ? fact : undefined
  }

  async #fact(name: 'trigger.refused' | 'trigger.received', trigger: string) {
    const { connection, names } = this.#deps
    const last_by_subj = names.fact(0, factPath(name, { trigger }))
    const message = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj }))
    return message && factOf(names, 0, message)
  }

  /** What was sent: with the refusal, or in the copy of the trigger while that is on the log. */
  async #message({ ids, data }: Refused): Promise<Parameters<typeof triggerBodyOf>[0] | undefined> {
    if (data.kept) return { payload: Buffer.from(data.kept.body, 'base64'), contentType: data.kept.contentType }
    const received = await this.#fact('trigger.received', ids.trigger)
    return received?.name === 'trigger.received' && received.data.problem === undefined ? received.data : undefined
  }

  async #view(fact: Refused): Promise<RefusedTrigger> {
    const { ids, data, timeMs } = fact
    const { pipeline, asset, reason, msgId, kept } = data
    return {
      id: ids.trigger,
      pipeline,
      asset,
      reason,
      msgId,
      at: new Date(timeMs),
      kept: kept !== undefined && pipeline !== undefined,
      run: await this.#runOf(fact),
    }
  }

  /** With a concurrency key its run may be in any shard. */
  async #runOf(fact: Refused): Promise<string | undefined> {
    const { kept, msgId, pipeline } = fact.data
    if (!kept || pipeline === undefined) return undefined
    const body = triggerBodyOf({ payload: Buffer.from(kept.body, 'base64'), contentType: kept.contentType })
    if ('problem' in body) return undefined
    const { space, key } = identityOf(fact, body.asked.key)
    const { shards } = this.#deps
    const id = runIdFor({ pipeline }, space, key, shards)
    const own = parseRunId(id).shard
    const unique = id.slice(id.indexOf('-') + 1)
    const places = body.asked.concurrency || shards > 1 ? Array.from({ length: shards }, (_, q) => q) : [own]
    for (const shard of places) {
      const run = runId(shard, unique)
      const trigger = (await runFact(this.#deps, run, 'run.requested'))?.data.trigger
      // Another request may have had the key.
      if (trigger?.seq === triggerOf(fact.ids.trigger, msgId).seq && trigger.msgId === msgId) return run
    }
    return undefined
  }
}

function triggerOf(id: string, msgId: string | undefined): NonNullable<RunRequest['trigger']> {
  return { seq: Number.parseInt(id, 10), ...(msgId === undefined ? {} : { msgId }) }
}
