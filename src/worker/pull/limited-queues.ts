/**
 * Lanes that are open: barriers with `maxConcurrent`, each with a consumer of its own that lets no more leases out than that. A worker hears of a new lane by a note,
 * and reads the queue's document now and then, which is the truth: a note may be lost, and a lane is closed by being gone from there.
 */

import type { Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { type LanesState, stateKey } from '../../../projections/state.ts'
import { decode } from '../../../streams/codec.ts'
import { messageOf } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { ensureLaneConsumer, type Topology } from '../../../streams/topology.ts'
import { readDoc } from '../../engine/shard/store.ts'
import type { Connection } from '../../log/connection.ts'
import { listen } from '../../log/listen.ts'
import { leaderGet } from '../../log/nats.ts'
import { every, type Timer } from '../../options/timer.ts'
import type { Logger } from '../../telemetry.ts'
import { type Delivery, Puller } from './puller.ts'

const LOOK_MS = 3000
/** A lane heard of by a note is not in the document until the next checkpoint. */
const NOTE_GRACE_MS = 5000

const note = z.object({
  p: z.int(),
  pipeline: z.string(),
  queue: z.string(),
  priority: z.int(),
  run: z.string(),
  asset: z.string(),
  maxConcurrent: z.int(),
  shape: z.string(),
})
type OpenLane = z.infer<typeof note>

export interface Lane {
  /** `<run>.<asset>` */
  readonly key: string
  readonly maxConcurrent: number
  readonly priority: number
  readonly puller: Puller
  readonly sinceMs: number
}

export interface LanesOptions {
  readonly connection: Connection
  readonly topology: Topology
  readonly logger: Logger
  readonly ackWaitMs: number
  readonly queues: readonly { readonly pipeline: string; readonly queue: string }[]
  /** Whether this worker has the code for it. */
  readonly fits: (lane: OpenLane) => boolean
  readonly onDelivery: (delivery: Delivery) => void
  /** Called when a lane was opened, or came back: there may be work. */
  readonly onChange: () => void
}

export class Lanes {
  readonly #options: LanesOptions
  readonly #lanes = new Map<string, Lane>()
  readonly #opening = new Set<string>()
  readonly #subscriptions: Subscription[] = []
  #timer: Timer | undefined
  #looking: Promise<void> | undefined
  #lookAgain = false
  #stopped = false

  constructor(options: LanesOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const { connection, topology, queues } = this.#options
    for (const { pipeline, queue } of queues) {
      const subscription = listen(connection.nc, topology.names.note('lane', `${pipeline}.${queue}`), (message) => {
        const lane = note.safeParse(decode(message.data, undefined)).data
        if (lane) void this.#open(lane)
      })
      this.#subscriptions.push(subscription)
    }
    this.#timer = every(LOOK_MS, () => void this.#look())
    await this.#look()
  }

  /** Lanes whose consumers answer. */
  get open(): Lane[] {
    return [...this.#lanes.values()].filter((lane) => !lane.puller.inTrouble)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    for (const { puller } of this.#lanes.values()) puller.stop()
    if (!this.#options.connection.isClosed) for (const subscription of this.#subscriptions) subscription.unsubscribe()
  }

  async close(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map(({ puller }) => puller.close()))
    this.#lanes.clear()
  }

  /** One at a time. Who asks while one is under way has another one follow it: that one may have read what has changed since. */
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
    const { names, partitions } = topology
    try {
      const found = new Set<string>()
      for (let p = 0; p < partitions; p++) {
        for (const { pipeline, queue } of queues) {
          // The bucket's type of document follows from its key.
          const doc = (await readDoc(connection, names, names.stateBucket(p), stateKey.lanes(pipeline, queue))) as
            | LanesState
            | undefined
          for (const [id, { priority, maxConcurrent, shape }] of Object.entries(doc?.lanes ?? {})) {
            const [run = '', asset = ''] = id.split('.')
            found.add(`${p}.${id}`)
            await this.#open({ p, pipeline, queue, priority, run, asset, maxConcurrent, shape })
          }
        }
      }
      for (const [key, lane] of this.#lanes) {
        // A consumer that is gone while its lane is not on the list was removed with it.
        if (found.has(key) || (performance.now() - lane.sinceMs < NOTE_GRACE_MS && !lane.puller.inTrouble)) continue
        lane.puller.stop()
        void lane.puller.close()
        this.#lanes.delete(key)
      }
    } catch (error) {
      if (connection.isUp)
        logger.warn(`lanes could not be read: ${messageOf(error)}; the next look is in ${LOOK_MS} ms`)
    }
  }

  async #isClosed({ p, run, asset }: OpenLane): Promise<boolean> {
    const { connection, topology } = this.#options
    const subject = topology.names.fact(p, factPath('scatter.closed', { run, asset }))
    return (
      (await connection.read((nc) => leaderGet(nc, topology.names.log(p), { last_by_subj: subject }))) !== undefined
    )
  }

  async #open(lane: OpenLane): Promise<void> {
    const key = `${lane.p}.${lane.run}.${lane.asset}`
    const there = this.#lanes.get(key)
    // Another version's: left to workers that have it.
    if (!this.#options.fits(lane)) return
    if (this.#stopped || (there && !there.puller.inTrouble) || this.#opening.has(key)) return
    const { connection, topology, ackWaitMs, onDelivery, onChange, logger } = this.#options
    this.#opening.add(key)
    try {
      const jsm = await jetstreamManager(connection.nc)
      // The document may lag behind the end, and a consumer made now would be nobody's.
      if (await this.#isClosed(lane)) {
        there?.puller.stop()
        void there?.puller.close()
        this.#lanes.delete(key)
        return
      }
      const consumer = await ensureLaneConsumer(jsm, topology.names, lane.p, lane, lane.maxConcurrent, { ackWaitMs })
      if (this.#stopped) return
      if (there) {
        there.puller.restored()
        onChange()
        return
      }
      const on = { delivery: onDelivery, trouble: () => void this.#look() }
      const puller = new Puller(connection, topology.names.work(lane.p), consumer, lane.p, on, { standing: true })
      const { run, asset, priority, maxConcurrent } = lane
      this.#lanes.set(key, { key: `${run}.${asset}`, maxConcurrent, priority, puller, sinceMs: performance.now() })
      onChange()
    } catch (error) {
      logger.warn(
        `lane of scatter ${lane.run}.${lane.asset} could not be opened: ${messageOf(error)}; it is tried again in ${LOOK_MS} ms`,
      )
    } finally {
      this.#opening.delete(key)
    }
  }
}
