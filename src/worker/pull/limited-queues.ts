/**
 * Limited queues that are open: barriers with `maxConcurrent`, each with a consumer of its own that
 * lets no more leases out than that. A notification announces a new limited queue to the workers,
 * but it may be lost. So each worker also reads the document of the queues now and then, and that
 * document decides. A limited queue that is gone from it is closed.
 */

import type { Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import type { LimitedQueuesState } from '../../../projections/scatter/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { decode } from '../../../streams/codec.ts'
import { ensureLimitedQueueConsumer } from '../../../streams/consumers.ts'
import { messageOf } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Topology } from '../../../streams/topology.ts'
import type { Connection } from '../../log/connection.ts'
import { readDoc } from '../../log/documents.ts'
import { listen } from '../../log/listen.ts'
import { leaderGet } from '../../log/nats.ts'
import { every, type Timer } from '../../options/timer.ts'
import type { Logger } from '../../telemetry.ts'
import { type Delivery, Puller } from './puller.ts'

const LOOK_MS = 3000
/** A limited queue heard of by a note is not in the document until the next checkpoint. */
const NOTE_GRACE_MS = 5000

const note = z.object({
  shard: z.int(),
  pipeline: z.string(),
  queue: z.string(),
  priority: z.int(),
  run: z.string(),
  asset: z.string(),
  maxConcurrent: z.int(),
  shape: z.string(),
})
type OpenLimitedQueue = z.infer<typeof note>

export interface LimitedQueue {
  /** `<run>.<asset>` */
  readonly key: string
  readonly maxConcurrent: number
  readonly priority: number
  readonly puller: Puller
  readonly sinceMs: number
}

export interface LimitedQueuesOptions {
  readonly connection: Connection
  readonly topology: Topology
  readonly logger: Logger
  readonly ackWaitMs: number
  readonly queues: readonly { readonly pipeline: string; readonly queue: string }[]
  /** Whether this worker has the code for it. */
  readonly fits: (limitedQueue: OpenLimitedQueue) => boolean
  readonly onDelivery: (delivery: Delivery) => void
  /** Called when a limited queue was opened, or came back: there may be work. */
  readonly onChange: () => void
}

export class LimitedQueues {
  readonly #options: LimitedQueuesOptions
  readonly #limitedQueues = new Map<string, LimitedQueue>()
  readonly #opening = new Set<string>()
  readonly #subscriptions: Subscription[] = []
  #timer: Timer | undefined
  #looking: Promise<void> | undefined
  #lookAgain = false
  #stopped = false

  constructor(options: LimitedQueuesOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const { connection, topology, queues } = this.#options
    for (const { pipeline, queue } of queues) {
      const subscription = listen(
        connection.nc,
        topology.names.notification('limited_queue', `${pipeline}.${queue}`),
        (message) => {
          const limitedQueue = note.safeParse(decode(message.data, undefined)).data
          if (limitedQueue) void this.#open(limitedQueue)
        },
      )
      this.#subscriptions.push(subscription)
    }
    this.#timer = every(LOOK_MS, () => void this.#look())
    await this.#look()
  }

  /** Limited queues whose consumers answer. */
  get open(): LimitedQueue[] {
    return [...this.#limitedQueues.values()].filter((limitedQueue) => !limitedQueue.puller.inTrouble)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    for (const { puller } of this.#limitedQueues.values()) puller.stop()
    if (!this.#options.connection.isClosed) for (const subscription of this.#subscriptions) subscription.unsubscribe()
  }

  async close(): Promise<void> {
    await Promise.all([...this.#limitedQueues.values()].map(({ puller }) => puller.close()))
    this.#limitedQueues.clear()
  }

  /**
   * One at a time. Who asks while one is under way has another one follow it: that one may have
   * read what has changed since.
   */
  #look(): Promise<void> {
    if (this.#looking) {
      this.#lookAgain = true
      return this.#looking
    }
    this.#looking = this.#lookOnce().finally(() => {
      this.#looking = undefined
      const again = this.#lookAgain && !this.#stopped
      this.#lookAgain = false
      if (again) void this.#look()
    })
    return this.#looking
  }

  async #lookOnce(): Promise<void> {
    const { connection, topology, queues, logger } = this.#options
    const { names, shards } = topology
    try {
      const found = new Set<string>()
      for (let shard = 0; shard < shards; shard++) {
        for (const { pipeline, queue } of queues) {
          // The bucket's type of document follows from its key.
          const doc = (await readDoc(
            connection,
            names,
            names.stateBucket(shard),
            stateKey.limitedQueues(pipeline, queue),
          )) as LimitedQueuesState | undefined
          for (const [id, { priority, maxConcurrent, shape }] of Object.entries(doc?.limitedQueues ?? {})) {
            const [run = '', asset = ''] = id.split('.')
            found.add(`${shard}.${id}`)
            await this.#open({ shard, pipeline, queue, priority, run, asset, maxConcurrent, shape })
          }
        }
      }
      for (const [key, limitedQueue] of this.#limitedQueues) {
        // A consumer that is gone while its limited queue is not on the list was removed with it.
        if (
          found.has(key) ||
          (performance.now() - limitedQueue.sinceMs < NOTE_GRACE_MS && !limitedQueue.puller.inTrouble)
        )
          continue
        limitedQueue.puller.stop()
        void limitedQueue.puller.close()
        this.#limitedQueues.delete(key)
      }
    } catch (error) {
      if (connection.isUp)
        logger.warn(`limited queues could not be read: ${messageOf(error)}; the next look is in ${LOOK_MS} ms`)
    }
  }

  async #isClosed({ shard, run, asset }: OpenLimitedQueue): Promise<boolean> {
    const { connection, topology } = this.#options
    const subject = topology.names.fact(shard, factPath('scatter.closed', { run, asset }))
    return (
      (await connection.read((nc) => leaderGet(nc, topology.names.log(shard), { last_by_subj: subject }))) !== undefined
    )
  }

  async #open(limitedQueue: OpenLimitedQueue): Promise<void> {
    const key = `${limitedQueue.shard}.${limitedQueue.run}.${limitedQueue.asset}`
    const there = this.#limitedQueues.get(key)
    // Another version's: left to workers that have it.
    if (!this.#options.fits(limitedQueue)) return
    if (this.#stopped || (there && !there.puller.inTrouble) || this.#opening.has(key)) return
    const { connection, topology, ackWaitMs, onDelivery, onChange, logger } = this.#options
    this.#opening.add(key)
    try {
      const jsm = await jetstreamManager(connection.nc)
      // The document may lag behind the end, and a consumer made now would be nobody's.
      if (await this.#isClosed(limitedQueue)) {
        there?.puller.stop()
        void there?.puller.close()
        this.#limitedQueues.delete(key)
        return
      }
      const consumer = await ensureLimitedQueueConsumer(
        jsm,
        topology.names,
        limitedQueue.shard,
        limitedQueue,
        limitedQueue.maxConcurrent,
        { ackWaitMs },
      )
      if (this.#stopped) return
      if (there) {
        there.puller.restored()
        onChange()
        return
      }
      const on = { delivery: onDelivery, trouble: () => void this.#look() }
      const puller = new Puller(connection, topology.names.work(limitedQueue.shard), consumer, limitedQueue.shard, on, {
        standing: true,
      })
      const { run, asset, priority, maxConcurrent } = limitedQueue
      this.#limitedQueues.set(key, {
        key: `${run}.${asset}`,
        maxConcurrent,
        priority,
        puller,
        sinceMs: performance.now(),
      })
      onChange()
    } catch (error) {
      logger.warn(
        `limited queue of scatter ${limitedQueue.run}.${limitedQueue.asset} could not be opened: ${messageOf(error)}; it is tried again in ${LOOK_MS} ms`,
      )
    } finally {
      this.#opening.delete(key)
    }
  }
}
