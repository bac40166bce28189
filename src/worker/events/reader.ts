/**
 * Reads the messages of a subscription, and puts on the log what comes of them. One worker at a
 * time does it for a subscription: who has the claim. The claim only saves work; the place of each
 * fact decides (taken.ts). A message is acknowledged when its fact is on the log.
 */
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import type { TakenEvent } from '../../../streams/event-schemas.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Topology } from '../../../streams/topology.ts'
import type { Subscription } from '../../define/subscription.ts'
import { Claim } from '../../engine/shard/claim.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { Delivery } from '../pull/puller.ts'
import { Deliveries, SessionEnd } from './deliveries.ts'
import { dropsTaken, keptMessage } from './kept.ts'
import { Mapper } from './mapper.ts'
import { OpenRuns } from './open-runs.ts'
import { RecentEvents } from './recent.ts'
import { openConsumer, openSource, type Source } from './source.ts'
import { EVENTS_MAX, type From, lastTaken, rangesOf, storeTaken, type Taken, type Taker } from './taken.ts'

const PAUSE_MS = 50
const PAUSE_MAX_MS = 5000
/** Messages are asked for as many at a time as take about this many bytes. */
const AHEAD_BYTES = 4 * 1024 * 1024
const FIRST_WANT = 64
/** So many messages without an event are passed over before that is put on the log. */
const SILENT_MAX = 10_000
/** Of a stream of FlowStone's own, so many messages that were taken are kept. */
const KEPT = 100_000
const PURGE_EVERY = 10_000

export class SubscriptionReader {
  readonly #shared: WorkerShared
  readonly #topology: Topology
  readonly #pipeline: PipelineSpec
  readonly #subscription: Subscription
  readonly #mapper: Mapper
  readonly #claim: Claim
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined
  #said = ''
  #messageBytes = 0
  #purged = 0
  readonly #recent = new RecentEvents()

  constructor(shared: WorkerShared, topology: Topology, pipeline: PipelineSpec, subscription: Subscription) {
    this.#shared = shared
    this.#topology = topology
    this.#pipeline = pipeline
    this.#subscription = subscription
    this.#mapper = new Mapper(pipeline, subscription, shared.io)
    const { connection, names, id, logger } = shared
    const key = names.eventReader(pipeline.name, subscription.name)
    this.#claim = new Claim(connection, names, { key }, id, (message) => logger.warn(message))
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** What was taken is on the log; the rest is for the next reader. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { connection } = this.#shared
    const stop = this.#stop.signal
    while (!stop.aborted && !connection.isClosed) {
      try {
        if (!(await this.#claim.tryTake())) {
          await this.#claim.untilFree(stop)
          continue
        }
      } catch (error) {
        if (stop.aborted || connection.isClosed) return
        this.#say(`cannot be claimed: ${messageOf(await connection.explained(error))}`)
        await connection.ready(1000)
        continue
      }
      const lost = new AbortController()
      this.#claim.onLost = () => lost.abort()
      this.#claim.keep()
      try {
        await this.#lead(AbortSignal.any([stop, lost.signal]))
      } finally {
        await this.#claim.release()
      }
    }
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const { connection } = this.#shared
    for (let pauseMs = PAUSE_MS; !signal.aborted && !connection.isClosed; ) {
      try {
        await this.#session(signal, () => {
          pauseMs = PAUSE_MS
          this.#said = ''
        })
      } catch (thrown) {
        if (signal.aborted || connection.isClosed) return
        if (!(thrown instanceof SessionEnd)) {
          this.#say(messageOf(await connection.explained(thrown)))
          pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2)
        }
        await connection.ready(pauseMs)
        // Another reader may have begun while this one had no connection.
        if ((await this.#claim.tryTake().catch(() => undefined)) === false) return
      }
    }
  }

  /** Each reason once, until it works again. */
  #say(why: string): void {
    if (this.#said === why) return
    this.#said = why
    this.#shared.logger.warn(`subscription ${this.#subscription.name} of pipeline ${this.#pipeline.name} waits: ${why}`)
  }

  async #session(signal: AbortSignal, works: () => void): Promise<void> {
    const { connection, names } = this.#shared
    const { spec, start } = this.#subscription.definition
    const pipeline = this.#pipeline.name
    const jsm = await jetstreamManager(connection.nc)
    const source = await openSource(jsm, this.#topology, pipeline, spec)
    const taker: Taker = {
      pipeline,
      subscription: spec.name,
      version: this.#pipeline.version,
      source: source.id,
      stream: source.stream,
    }
    const last = await lastTaken(connection, names, taker)
    const { to, seq } = last ?? (start === 'new' ? await this.#startNew(taker, source) : { to: 0, seq: 0 })
    const openRuns = new OpenRuns(
      { connection, names, shards: this.#topology.shards },
      { pipeline, subscription: spec.name, max: spec.maxOpen },
      to,
    )
    const consumer = await openConsumer(jsm, source, (turn) => names.eventConsumer(pipeline, spec.name, turn), to)
    const deliveries = new Deliveries(connection, source.stream, consumer)
    const place = { chain: to, position: to, seq }
    try {
      while (!signal.aborted) {
        const room = await openRuns.room(source.id, signal)
        const taken = await deliveries.take(Math.min(room, this.#want), signal)
        works()
        if (taken.length > 0) await this.#take(taken, source, taker, place, openRuns)
        deliveries.ack(taken)
        if (source.isOwn) this.#purge(source.stream, place.chain)
      }
    } finally {
      await deliveries.close()
    }
  }

  async #startNew(taker: Taker, { last, stream, retention }: Source): Promise<Taken> {
    if (retention === 'workqueue')
      throw new FlowStoneError(
        'invalid',
        `from.start: all messages of work queue ${stream} are taken, so it must be all`,
      )
    const stored = await storeTaken(this.#shared, taker, { from: 'new', to: last, events: [], after: 0 })
    if (stored) return stored
    throw new SessionEnd('another reader was first')
  }

  /** Throws SessionEnd when another reader was first. */
  async #take(
    deliveries: readonly Delivery[],
    source: Source,
    taker: Taker,
    place: { chain: number; position: number; seq: number },
    openRuns: OpenRuns,
  ): Promise<void> {
    const fresh = deliveries.filter(({ streamSeq }) => streamSeq > place.position)
    const mapped = await Promise.all(fresh.map(async (delivery) => await this.#map(delivery, source)))
    const seen = new Map<string, string>()
    for (const one of mapped) if (one.event && this.#recent.isRepeated(one.event, seen)) one.event = undefined
    for (const { to, events } of rangesOf(this.#shared.connection, mapped)) {
      place.position = to
      if (events.length === 0 && to - place.chain < SILENT_MAX) continue
      const from: From = place.chain
      const stored = await storeTaken(this.#shared, taker, { from, to, events, after: place.seq })
      if (!stored) throw new SessionEnd('another reader was first')
      place.chain = to
      place.seq = stored.seq
      openRuns.took(to, events.filter(({ refused }) => refused === undefined).length)
    }
    this.#recent.remember(seen)
  }

  async #map(
    { subject, payload, headers, streamSeq, timeMs }: Delivery,
    source: Source,
  ): Promise<{
    seq: number
    event: TakenEvent | undefined
  }> {
    const bytes = payload.length + 256
    this.#messageBytes = this.#messageBytes === 0 ? bytes : this.#messageBytes * 0.95 + bytes * 0.05
    const event = await this.#mapper.map({ subject, payload, headers, seq: streamSeq, timeMs })
    if (event?.refused === undefined || !dropsTaken(source)) return { seq: streamSeq, event }
    const message = await keptMessage(this.#shared, this.#pipeline.name, { subject, payload, headers, timeMs })
    return { seq: streamSeq, event: message ? { ...event, message } : event }
  }

  get #want(): number {
    if (this.#messageBytes === 0) return FIRST_WANT
    return Math.max(1, Math.min(EVENTS_MAX, Math.floor(AHEAD_BYTES / this.#messageBytes)))
  }

  /** Only of a stream of FlowStone's own. It is tried again when more was taken. */
  #purge(stream: string, taken: number): void {
    if (taken - KEPT < this.#purged + PURGE_EVERY) return
    this.#purged = taken - KEPT
    void jetstreamManager(this.#shared.connection.nc)
      .then((jsm) => jsm.streams.purge(stream, { seq: this.#purged }))
      .catch(() => undefined)
  }
}
