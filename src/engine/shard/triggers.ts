/**
 * Copies the triggers of external clients from the stream of triggers to the log, message by
 * message. From then on a trigger is a fact like any other: folded in order, and folded again by a
 * rebuild.
 *
 * Only the two streams remember how far this came. It begins with the first trigger in the stream.
 * A copy on the log refuses a second one, and copied triggers are deleted from time to time. So an
 * engine may die at any point, and two engines may do this at once.
 */

import { received } from '../../../projections/run/trigger.ts'
import { BY_HEADER } from '../../../streams/by.ts'
import { messageOf } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import { traceOfMessage } from '../../../streams/trace.ts'
import type { Appender } from '../../log/appender.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import type { StoredMessage } from '../../log/nats.ts'
import { Reader } from '../../log/reader.ts'
import type { Logger } from '../../telemetry.ts'

export interface TriggersContext {
  readonly connection: Connection
  readonly names: Names
  /** Of the shard that takes triggers: the first one. */
  readonly log: Appender
  readonly logger: Logger
}

const BATCH = 500
const TAKE_AWAY_MS = 1000
const AGAIN_MS = 1000

export class Triggers {
  readonly #context: TriggersContext
  #reader: Reader | undefined
  #stopped = false
  #copied = 0
  #timer: NodeJS.Timeout | undefined

  constructor(context: TriggersContext) {
    this.#context = context
    void this.#run()
  }

  /** What is under way is finished or not; whoever is next does the rest. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#reader?.stop()
  }

  async #run(): Promise<void> {
    const { connection, names } = this.#context
    while (!this.#stopped && !connection.isClosed) {
      const reader = new Reader(connection, names.triggers, 1)
      this.#reader = reader
      try {
        await this.#copyFrom(reader)
      } catch {
        // The stream was deleted: an engine makes it again, and it counts anew.
        clearTimeout(this.#timer)
        this.#timer = undefined
      } finally {
        reader.stop()
      }
      if (!this.#stopped) await connection.ready(AGAIN_MS)
    }
  }

  async #copyFrom(reader: Reader): Promise<void> {
    while (!this.#stopped) {
      const messages = await reader.take(BATCH)
      await Promise.all(messages.map((message) => this.#copy(message)))
      const last = messages.at(-1)
      if (!last || this.#stopped) continue
      this.#copied = last.seq
      this.#timer ??= setTimeout(() => void this.#takeAway(), TAKE_AWAY_MS)
    }
  }

  async #copy(message: StoredMessage): Promise<void> {
    const { connection, names, log, logger } = this.#context
    const draft = received({
      seq: message.seq,
      timeMs: message.timeMs,
      subject: names.triggerTarget(message.subject) ?? '',
      payload: message.payload,
      contentType: message.headers.get('Content-Type'),
      msgId: message.headers.get('Nats-Msg-Id'),
      by: message.headers.get(BY_HEADER),
      trace: traceOfMessage(message.headers),
    })
    for (let said = false; !this.#stopped; said = true) {
      try {
        // It exists if an earlier engine copied it, or this one did and the answer was lost.
        await log.appendOnce(factEntry(names, 0, draft))
        return
      } catch (error) {
        if (this.#stopped || connection.isClosed) return
        if (!said) logger.warn(`trigger ${message.seq} is not on the log yet: ${messageOf(error)}; it is tried again`)
        await connection.ready(AGAIN_MS)
      }
    }
  }

  async #takeAway(): Promise<void> {
    const { connection, names } = this.#context
    this.#timer = undefined
    try {
      const jsm = await jetstreamManager(connection.nc)
      await jsm.streams.purge(names.triggers, { seq: this.#copied + 1 })
    } catch {
      // They stay until the next ones are copied.
    }
  }
}
