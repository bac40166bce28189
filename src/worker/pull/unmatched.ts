/**
 * Unmatched tasks wait for workers with other code. A worker that gets a task whose shape it does
 * not have moves it once, to a subject that names asset and shape. Only workers with that shape
 * listen there, so the task costs nothing more while it waits. They hear of it by a notification,
 * and look by themselves now and then.
 */

import type { Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { decode, encodeJson } from '../../../streams/codec.ts'
import { ensureUnmatchedConsumer } from '../../../streams/consumers.ts'
import { messageOf } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { UnmatchedName } from '../../../streams/subjects.ts'
import { encodeTask } from '../../../streams/tasks.ts'
import type { Topology } from '../../../streams/topology.ts'
import type { Connection } from '../../log/connection.ts'
import { STALE_HEADER } from '../../log/entries.ts'
import { listen } from '../../log/listen.ts'
import type { Logger } from '../../telemetry.ts'
import type { Code } from '../attempt/code.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { InFlightTask } from './in-flight-task.ts'
import { type Delivery, Puller } from './puller.ts'

const LOOK_MS = 5000
/** What a notification announced may not be on the stream yet. */
const NOTE_GRACE_MS = 5000

const notification = z.object({ shard: z.int(), subject: z.string() })

/**
 * Moves a task that this worker has no code for. The caller acknowledges the message it came with.
 */
export async function keepUnmatched(shared: WorkerShared, held: InFlightTask): Promise<void> {
  const { connection, names } = shared
  const { shard, task, delivery } = held
  const [queue = 'default', priority = '1'] = delivery.subject.split('.').slice(4, 6)
  const name = { pipeline: task.pipeline, queue, priority: Number(priority), asset: task.asset, shape: task.shape }
  const subject = names.unmatchedTask(shard, name, task.run)
  const headers = { 'Fs-Task': task.id, [STALE_HEADER]: '1' }
  // Of a chain, what is left of it.
  await shared.workOf(shard).append({ subject, ...encodeTask(task), headers })
  if (!connection.isClosed)
    connection.tell(
      names.notification('unmatched', task.pipeline),
      encodeJson({ shard, subject: names.unmatchedFilter(shard, name) }),
    )
}

interface Source {
  readonly priority: number
  readonly puller: Puller
  readonly sinceMs: number
}

export interface UnmatchedOptions {
  readonly connection: Connection
  readonly topology: Topology
  readonly logger: Logger
  readonly ackWaitMs: number
  readonly code: Code
  /** Only these queues. Undefined: any. */
  readonly queues: readonly string[] | undefined
  readonly onDelivery: (delivery: Delivery) => void
  /** There may be work. */
  readonly onChange: () => void
}

/** Unmatched tasks that wait for this worker's code. */
export class UnmatchedTasks {
  readonly #options: UnmatchedOptions
  readonly #sources = new Map<string, Source>()
  readonly #opening = new Set<string>()
  #subscriptions: Subscription[] = []
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(options: UnmatchedOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const { connection, topology, code } = this.#options
    this.#subscriptions = code.pipelines.map((pipeline) =>
      listen(connection.nc, topology.names.notification('unmatched', pipeline), (message) => {
        const notice = notificationOf(message.data)
        if (notice) void this.#open(notice.shard, notice.subject)
      }),
    )
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    await this.#look()
  }

  /** Those whose consumers answer. */
  get open(): Source[] {
    return [...this.#sources.values()].filter(({ puller }) => !puller.inTrouble)
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    for (const { puller } of this.#sources.values()) puller.stop()
    if (!this.#options.connection.isClosed) for (const subscription of this.#subscriptions) subscription.unsubscribe()
  }

  async close(): Promise<void> {
    await Promise.all([...this.#sources.values()].map(({ puller }) => puller.close()))
    this.#sources.clear()
  }

  async #look(): Promise<void> {
    const { connection, topology, logger } = this.#options
    const { names, shards } = topology
    try {
      const jsm = await jetstreamManager(connection.nc)
      const found = new Set<string>()
      for (let shard = 0; shard < shards && !this.#stopped; shard++) {
        const info = await jsm.streams.info(names.work(shard), { subjects_filter: names.allUnmatched(shard) })
        for (const subject of Object.keys(info.state.subjects ?? {})) {
          const key = await this.#open(shard, subject)
          if (key !== undefined) found.add(key)
        }
      }
      for (const [key, { puller, sinceMs }] of this.#sources) {
        if (found.has(key) || performance.now() - sinceMs < NOTE_GRACE_MS) continue
        puller.stop()
        void puller.close()
        this.#sources.delete(key)
      }
    } catch (error) {
      // That the server is away is said by the connection.
      if (connection.isUp && !this.#stopped)
        logger.warn(`unmatched tasks could not be listed: ${messageOf(error)}; the next look is in ${LOOK_MS} ms`)
    }
  }

  /** Returns its key where it is for this worker. */
  async #open(shard: number, subject: string): Promise<string | undefined> {
    const { topology, code, queues } = this.#options
    const name = topology.names.parseUnmatched(subject)
    if (!name || this.#stopped || !code.has(name) || (queues && !queues.includes(name.queue))) return undefined
    const key = `${shard}.${topology.names.unmatchedConsumer(name)}`
    const there = this.#sources.get(key)
    if ((there && !there.puller.inTrouble) || this.#opening.has(key)) return key
    this.#opening.add(key)
    try {
      await this.#ensure(shard, name, key, there?.puller)
    } catch (error) {
      this.#options.logger.warn(
        `unmatched tasks of ${name.pipeline}/${name.asset} cannot be read: ${messageOf(error)}; the next try is in ${LOOK_MS} ms`,
      )
    } finally {
      this.#opening.delete(key)
    }
    return key
  }

  async #ensure(shard: number, name: UnmatchedName, key: string, puller: Puller | undefined): Promise<void> {
    const { connection, topology, ackWaitMs, onDelivery, onChange } = this.#options
    const { names } = topology
    const jsm = await jetstreamManager(connection.nc)
    const consumer = await ensureUnmatchedConsumer(jsm, names, shard, name, { ackWaitMs })
    if (this.#stopped) return
    if (puller) puller.restored()
    else {
      const on = { delivery: onDelivery, trouble: () => void this.#look() }
      const made = new Puller(connection, names.work(shard), consumer, shard, on)
      this.#sources.set(key, { priority: name.priority, puller: made, sinceMs: performance.now() })
    }
    onChange()
  }
}

function notificationOf(data: Uint8Array): z.infer<typeof notification> | undefined {
  try {
    return notification.safeParse(decode(data, undefined)).data
  } catch {
    return undefined
  }
}
