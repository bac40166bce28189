/** `flow.events`: where subscriptions stand, what was refused, and what messages would start. */

import { eventRunId } from '../../projections/events/request.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { TakenEvent } from '../../streams/event-schemas.ts'
import { type FactOf, factPath, parsePath } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import type { Topology } from '../../streams/topology.ts'
import { type Pipeline, pipelinesOf } from '../define/pipeline.ts'
import { isSubscription, type Subscription } from '../define/subscription.ts'
import { askAll } from '../log/ask.ts'
import { isSealed } from '../log/history.ts'
import { leaderGet } from '../log/nats.ts'
import { factIfAny } from '../log/read-fact.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { targetOf } from '../runs/owner.ts'
import { Mapper } from '../worker/events/mapper.ts'
import { type RetryAnswer, retryAnswer } from '../worker/events/retries.ts'
import { openSource } from '../worker/events/source.ts'
import { takenUpTo } from '../worker/events/taken.ts'
import type { RunDeps } from './run-view.ts'
import { listSubscriptions, type SubscriptionView } from './subscriptions.ts'

/** A message that started no run. */
export interface RefusedEvent {
  readonly pipeline: string
  readonly subscription: string
  /** Where the message is. */
  readonly stream: string
  readonly seq: number
  readonly key: string | undefined
  /** Its Nats-Msg-Id. */
  readonly msgId: string | undefined
  readonly reason: string
  readonly at: Date
}

/** What a message would do. */
export interface EventTest {
  readonly seq: number
  readonly subject: string
  /**
   * `run`: starts one. `exists`: its run is there. `waits`: for others, with `batch` or `debounce`.
   * `left`: the filter leaves it out. `refused`: it cannot start one.
   */
  readonly outcome: 'run' | 'exists' | 'waits' | 'left' | 'refused'
  readonly run?: string
  readonly key?: string
  readonly partition?: string
  readonly tags?: Readonly<Record<string, string>>
  /** By input; of `batch` and the like, the list with this message alone. */
  readonly input?: Readonly<Record<string, unknown>>
  /** Of `refused`: why. */
  readonly reason?: string
}

/** Which messages a test looks at. */
export interface EventTestOptions {
  /** The first message to look at. Default: the first one that was not taken yet. */
  readonly fromSeq?: number
  /** How many messages, at most 1,000. Default 10. */
  readonly count?: number
  /** Where several pipelines have the subscription. */
  readonly pipeline?: Pipeline
}

const READ_AHEAD = 64
const COUNT_MAX = 1000
const ANSWER_MS = 10_000
const SETTLE_MS = 250

type EventsDeps = RunDeps & { readonly topology: () => Promise<Topology> }

/** Look at messages of subscriptions, and have refused ones taken. */
export class Events {
  readonly #deps: EventsDeps

  constructor(deps: EventsDeps) {
    this.#deps = deps
  }

  /**
   * Where each subscription stands, by name: how far it has read, what waits, and which runs are
   * open. `removed`: also those that the current version of their pipeline has no more.
   */
  async list(options: { readonly removed?: boolean } = {}): Promise<SubscriptionView[]> {
    refuseUnknown('events.list', options, ['removed'])
    await this.#deps.found()
    const refused = new Map<string, number>()
    for (const { subject } of await this.#refusedSubjects({ pipeline: '*', asset: '*' })) {
      const { pipeline, subscription } = parsePath(this.#deps.names.factPath(subject) ?? '')?.ids ?? {}
      const name = `${pipeline}/${subscription}`
      refused.set(name, (refused.get(name) ?? 0) + 1)
    }
    return await listSubscriptions(this.#deps, refused, options.removed === true)
  }

  /**
   * Messages that started no run, newest first, at most `limit` (default 100). Those that were
   * taken since (`retry`) are left out. `subscription`: only of this one, such as
   * `'orders/order-created'`. Meant for people, not for loops.
   */
  async refused(options: { readonly subscription?: string; readonly limit?: number } = {}): Promise<RefusedEvent[]> {
    refuseUnknown('events.refused', options, ['subscription', 'limit'])
    const { subscription, limit = 100 } = options
    if (!(Number.isSafeInteger(limit) && limit >= 1))
      throw new InvalidError(`events.refused: limit must be a whole number from 1, got ${shown(limit)}`)
    const found = await this.#refused(subscription, limit)
    return found.map(({ data, timeMs }) => ({
      pipeline: data.pipeline,
      subscription: data.subscription,
      stream: data.stream,
      seq: data.seq,
      key: data.key,
      msgId: data.msgId,
      reason: data.reason,
      at: new Date(timeMs),
    }))
  }

  /**
   * Has a worker read a refused message again, and take it: after its code was changed, say. Gives
   * the id of its run; undefined where it waits for other messages. Throws `not_found` when no such
   * message was refused or no worker answers, and InvalidError when it is refused again.
   */
  async retry(subscription: string, seq: number): Promise<string | undefined> {
    const { connection, names, by } = this.#deps
    const at = 'events.retry'
    const { pipeline, asset: name } = targetOf(at, subscription)
    if (!Number.isSafeInteger(seq))
      throw new InvalidError(`${at}: seq must be the number of a message, got ${shown(seq)}`)
    const found = (await this.#refused(subscription, Number.POSITIVE_INFINITY)).find(({ data }) => data.seq === seq)
    if (!found)
      throw new FlowStoneError(
        'not_found',
        `${at}: message ${seq} of ${subscription} was not refused, or was taken since`,
      )
    const asked = encodeJson({ subscription: name, source: found.ids.source, seq, ...(by === undefined ? {} : { by }) })
    const options = { timeoutMs: ANSWER_MS, settleMs: SETTLE_MS }
    const messages = await connection.read((nc) => askAll(nc, names.eventRetry(pipeline), asked, options))
    const answers = messages.flatMap(({ data }): RetryAnswer[] => {
      const parsed = retryAnswer.safeParse(decode(data, undefined)).data
      return parsed ? [parsed] : []
    })
    const good = answers.find((answer) => 'run' in answer || 'waits' in answer) ?? answers[0]
    if (!good) throw new FlowStoneError('not_found', `${at}: no worker with ${subscription} answers; start one`)
    if ('refused' in good) throw new InvalidError(`${at}: message ${seq} is refused again: ${good.refused}`)
    if ('left' in good) throw new InvalidError(`${at}: the filter of ${subscription} leaves message ${seq} out`)
    return 'run' in good ? good.run : undefined
  }

  /**
   * What messages of a subscription's stream would do. Calls its functions here, and starts
   * nothing.
   */
  async test(subscription: Subscription, options: EventTestOptions = {}): Promise<EventTest[]> {
    const at = 'events.test'
    if (!isSubscription(subscription)) throw new InvalidError(`${at} takes what subscription(name, …) returned`)
    refuseUnknown(at, options, ['fromSeq', 'count', 'pipeline'])
    const { count = 10, fromSeq } = options
    for (const [field, value] of Object.entries({ count, fromSeq: fromSeq ?? 1 }))
      if (!Number.isSafeInteger(value) || value < 1 || (field === 'count' && value > COUNT_MAX))
        throw new InvalidError(`${at}: ${field} must be a whole number from 1${field === 'count' ? ' to 1000' : ''}`)
    const { connection, names } = this.#deps
    const topology = await this.#deps.topology()
    const pipeline = options.pipeline ?? ownerOf(at, subscription)
    const jsm = await jetstreamManager(connection.nc)
    const { spec } = subscription.definition
    const source = await openSource(jsm, topology, pipeline.name, spec)
    const place = { pipeline: pipeline.name, subscription: subscription.name, source: source.id }
    const mapper = new Mapper(pipeline.spec, subscription, this.#deps.io)
    const results: EventTest[] = []
    let seq = fromSeq ?? ((await takenUpTo(connection, names, place)) ?? 0) + 1
    while (results.length < count) {
      const query = { seq, next_by_subj: source.filter ?? '>' }
      const message = await connection.read((nc) => leaderGet(nc, source.stream, query))
      if (!message) break
      seq = message.seq + 1
      const event = await mapper.map({ ...message, headers: new Map(message.headers) })
      results.push({
        seq: message.seq,
        subject: message.subject,
        ...(await this.#outcome(pipeline.spec, place, topology, event)),
      })
    }
    return results
  }

  async #outcome(
    pipeline: PipelineSpec,
    place: { readonly subscription: string; readonly source: string },
    { shards }: Topology,
    event: TakenEvent | undefined,
  ): Promise<Omit<EventTest, 'seq' | 'subject'>> {
    if (!event) return { outcome: 'left' }
    if (event.refused !== undefined) return { outcome: 'refused', reason: event.refused }
    const { connection, names, io } = this.#deps
    const { key, partition, tags, input = {} } = event
    const run = eventRunId(pipeline, place.subscription, place, event, shards)
    const values = await Promise.all(
      Object.entries(input).map(async ([name, value]) => [name, await io.load(value)] as const),
    )
    const given = {
      ...(key === undefined ? {} : { key }),
      ...(partition === undefined ? {} : { partition }),
      ...(tags === undefined ? {} : { tags }),
      input: Object.fromEntries(values),
    }
    if (event.group !== undefined) return { outcome: 'waits', ...given }
    const { shard } = parseRunId(run)
    const subject = names.fact(shard, factPath('run.requested', { run }))
    const there = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
    const isThere = there !== undefined || (await isSealed(this.#deps, run))
    return { outcome: isThere ? 'exists' : 'run', run, ...given }
  }

  async #refused(named: string | undefined, limit: number): Promise<FactOf<'event.refused'>[]> {
    await this.#deps.found()
    const { connection, names } = this.#deps
    const of = named === undefined ? { pipeline: '*', asset: '*' } : targetOf('events', named)
    const open = await this.#refusedSubjects(of)
    const facts: FactOf<'event.refused'>[] = []
    // Of each stream the newest messages first; then all by time.
    const some = open.toSorted((a, b) => b.seq - a.seq).slice(0, Math.min(open.length, limit))
    for (let i = 0; i < some.length; i += READ_AHEAD) {
      const read = some.slice(i, i + READ_AHEAD).map(async ({ subject }) => {
        const message = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj: subject }))
        const fact = message && factIfAny(names, 0, message)
        return fact?.name === 'event.refused' ? [fact] : []
      })
      facts.push(...(await Promise.all(read)).flat())
    }
    return facts.toSorted((a, b) => b.seq - a.seq)
  }

  /** Of messages that were not taken since. */
  async #refusedSubjects(of: {
    readonly pipeline: string
    readonly asset: string
  }): Promise<{ readonly subject: string; readonly seq: number }[]> {
    const ids = { pipeline: of.pipeline, subscription: of.asset, source: '*', seq: '*' }
    const [refused, retried] = await Promise.all([
      this.#subjects(factPath('event.refused', ids)),
      this.#subjects(factPath('event.retried', ids)),
    ])
    const taken = new Set(retried.map(({ subject }) => subject.replace('.retried.', '.refused.')))
    return refused.filter(({ subject }) => !taken.has(subject))
  }

  async #subjects(path: string): Promise<{ readonly subject: string; readonly seq: number }[]> {
    const { connection, names } = this.#deps
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.fact(0, path)
    const info = await connection.read(() => jsm.streams.info(names.log(0), { subjects_filter: filter }))
    return Object.keys(info.state.subjects ?? {}).map((subject) => ({
      subject,
      seq: Number(subject.slice(subject.lastIndexOf('.') + 1)),
    }))
  }
}

function ownerOf(at: string, subscription: Subscription): Pipeline {
  const owner = pipelinesOf(subscription.definition.run).findLast(({ subscriptions }) =>
    subscriptions.includes(subscription),
  )
  if (owner) return owner
  throw new InvalidError(
    `${at}: subscription ${subscription.name} is in no pipeline; give it to one: pipeline(name, assets, { subscriptions: [ … ] })`,
  )
}
