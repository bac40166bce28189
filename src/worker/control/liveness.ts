/**
 * Which workers there are. Each stores its name with a sign of life now and then, and removes it
 * when it ends in order. This distinguishes the reasons why a task is delivered again: its worker
 * died, or the task was handed back, came late, or was never received by anybody.
 *
 * Nothing of this costs a task anything: it is asked only about what is delivered again.
 */

import { errors, type Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { decode, encodeJson } from '../../../streams/codec.ts'
import type { Names } from '../../../streams/subjects.ts'
import { inboxOf } from '../../log/ask.ts'
import type { Connection } from '../../log/connection.ts'
import { listen } from '../../log/listen.ts'
import { directAll, publish } from '../../log/nats.ts'
import { atMost } from '../../options/timer.ts'

/**
 * A worker that died leaves its name. For so long, a task delivered again can be traced to it.
 */
const KEPT_S = 7 * 86_400
const BEAT_MIN_MS = 1000
/** Who does not answer within this time gives no sign of life. */
const ANSWER_MS = 700
const FINISHED_MAX = 20_000

const sign = z.object({ pipelines: z.array(z.string()), beatMs: z.number() })
const question = z.object({ messages: z.array(z.string()).max(5000) })
const answer = z.object({ worker: z.string(), holds: z.array(z.string()), ended: z.array(z.string()) })

export interface WorkerSeen {
  readonly id: string
  /** By the server's clock: it was alive then. */
  readonly seenMs: number
  readonly beatMs: number
  readonly pipelines: readonly string[]
}

export interface Heard {
  /** Workers that answered. */
  readonly alive: ReadonlySet<string>
  /** Messages that some worker holds now. */
  readonly held: ReadonlySet<string>
  /** Messages whose outcome some worker has stored. */
  readonly ended: ReadonlySet<string>
}

export class Liveness {
  readonly #connection: Connection
  readonly #names: Names
  readonly #id: string
  readonly #pipelines: readonly string[]
  readonly #beatMs: number
  readonly #isHeld: (message: string) => boolean
  readonly #ended = new Set<string>()
  #subscriptions: Subscription[] = []
  #timer: NodeJS.Timeout | undefined
  #beating: Promise<unknown> = Promise.resolve()
  #isNamed = false

  constructor(
    connection: Connection,
    names: Names,
    options: {
      readonly id: string
      readonly pipelines: readonly string[]
      readonly ackWaitMs: number
      /** Whether this worker holds the message. */
      readonly isHeld: (message: string) => boolean
    },
  ) {
    this.#connection = connection
    this.#names = names
    this.#id = options.id
    this.#pipelines = options.pipelines
    this.#beatMs = Math.max(BEAT_MIN_MS, Math.round(options.ackWaitMs / 3))
    this.#isHeld = options.isHeld
  }

  /** Resolves when its name is stored: no task may come before. */
  async start(): Promise<void> {
    const { nc } = this.#connection
    this.#subscriptions = this.#pipelines.map((pipeline) =>
      listen(nc, this.#names.holders(pipeline), (message) => {
        const asked = question.safeParse(decode(message.data, undefined)).data?.messages
        if (!asked) return
        const holds = asked.filter((one) => this.#isHeld(one))
        const ended = asked.filter((one) => this.#ended.has(one))
        message.respond(encodeJson({ worker: this.#id, holds, ended }))
      }),
    )
    this.#isNamed = true
    await this.#beat()
    this.#timer = setInterval(() => {
      this.#beating = this.#beat().catch(() => undefined)
    }, this.#beatMs)
  }

  /** It ends in order: nothing is lost with it. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#beating
    if (this.#connection.isClosed) return
    for (const subscription of this.#subscriptions) subscription.unsubscribe()
    if (!this.#isNamed) return
    const entry = { subject: this.subject, payload: new Uint8Array(), headers: { 'KV-Operation': 'DEL' } }
    await publish(this.#connection.nc, entry, undefined, 2000).catch(() => undefined)
  }

  /** The key with this worker's name. */
  get subject(): string {
    return this.#names.kvSubject(this.#names.controlBucket, `worker.${this.#id}`)
  }

  /**
   * The outcome of this message is stored. Should the acknowledgement get lost, it is known that
   * nothing is left to do.
   */
  ended(message: string): void {
    if (this.#ended.size >= FINISHED_MAX) for (const oldest of this.#ended) if (this.#ended.delete(oldest)) break
    this.#ended.add(message)
  }

  /** All workers that left their names and did not take them away. */
  async seen(): Promise<WorkerSeen[]> {
    return await workersSeen(this.#connection, this.#names)
  }

  /**
   * Asks all workers of a pipeline about these messages, until all that are expected to answer
   * have, or for so long as one that lives may take. Where none is expected, none is asked.
   */
  async ask(pipeline: string, messages: readonly string[], expected: ReadonlySet<string>): Promise<Heard> {
    const { nc } = this.#connection
    const alive = new Set<string>()
    const held = new Set<string>()
    const ended = new Set(messages.filter((one) => this.#ended.has(one)))
    if (expected.size === 0) return { alive, held, ended }
    const inbox = inboxOf(nc)
    const { promise: all, resolve } = Promise.withResolvers<void>()
    const subscription = listen(nc, inbox, (message) => {
      // Nobody is there to answer.
      if (message.data.length === 0) return
      const reported = answer.safeParse(decode(message.data, undefined)).data
      if (!reported) return
      alive.add(reported.worker)
      // What this worker has just been given again is what is asked about.
      if (reported.worker !== this.#id) for (const one of reported.holds) held.add(one)
      for (const one of reported.ended) ended.add(one)
      if ([...expected].every((id) => alive.has(id))) resolve()
    })
    try {
      // A question that the connection broke with is asked again: silence would mean nothing.
      await this.#connection.read(async () => {
        nc.publish(this.#names.holders(pipeline), encodeJson({ messages }), { reply: inbox })
        // Code that holds up this process holds up the answers. Those that came stand before this.
        if ((await atMost(ANSWER_MS, all)) === 'late') await nc.flush()
      })
    } finally {
      if (!this.#connection.isClosed) subscription.unsubscribe()
    }
    return { alive, held, ended }
  }

  async #beat(): Promise<void> {
    const entry = {
      subject: this.subject,
      payload: encodeJson({ pipelines: this.#pipelines, beatMs: this.#beatMs }),
      headers: { 'Nats-TTL': `${KEPT_S}s` },
    }
    await publish(this.#connection.nc, entry, undefined, 5000)
  }
}

/** All workers that left their names and did not take them away. */
export async function workersSeen(connection: Connection, names: Names): Promise<WorkerSeen[]> {
  const stream = names.kvStream(names.controlBucket)
  const prefix = names.kvSubject(names.controlBucket, 'worker.')
  const messages = await connection.read((nc) =>
    // The bucket keeps one message of a key.
    directAll(nc, stream, `${prefix}*`).catch((error: unknown) => {
      if (error instanceof errors.NoRespondersError) return []
      throw error
    }),
  )
  return messages.flatMap(({ subject, payload, timeMs: seenMs }) => {
    const reported = signOf(payload)
    return reported ? [{ ...reported, id: subject.slice(prefix.length), seenMs }] : []
  })
}

/** Undefined for what no worker wrote, or took away. */
function signOf(payload: Uint8Array): z.infer<typeof sign> | undefined {
  try {
    return payload.length === 0 ? undefined : sign.safeParse(decode(payload, undefined)).data
  } catch {
    return undefined
  }
}

/** How a message of WORK is named in questions. */
export function messageName(shard: number, seq: number): string {
  return `${shard}.${seq}`
}
