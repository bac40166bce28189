/**
 * A worker's part in a thread beside the main one, with a connection of its own. Code that blocks
 * the event loop also blocks the signs of life for all tasks of the process. And a process that
 * ends cannot wait for an answer. The thread can do both.
 *
 * It costs nothing while all goes well: tasks are written into memory that both threads share. It
 * looks there only when the main thread was not seen for a second.
 */
import { messageOf } from '../../../streams/errors.ts'
import { inboxOf } from '../../log/ask.ts'
import type { Connection } from '../../log/connection.ts'
import { socketOf, writeNow } from '../../log/one-write.ts'
import type { Logger } from '../../telemetry.ts'
import { CLOCK, CURRENT, type FromHelper, HEAD_BYTES, type LastWords, STATE, type ToHelper } from './helper-code.ts'
import { type HelperPart, joinThread } from './helper-thread.ts'

const SLOT_BYTES = 1024
const TICK_MS = 200
/** From so long on, a held-up event loop is worth a line. */
const BLOCKED_MS = 1000
const STOP_MS = 500
/** A worker that starts waits so long for the thread, and then begins without. */
const READY_MS = 5000

export interface HelperOptions {
  readonly worker: string
  readonly questions: readonly string[]
  readonly slots: number
  readonly ackWaitMs: number
  readonly maxBlockedMs: number
  readonly owned: boolean
  readonly logger: Logger
  /** Called after the event loop was held up for so long. */
  readonly onBlocked: (ms: number) => void
}

export class Helper {
  readonly #clock: Float64Array
  readonly #state: Int32Array
  readonly #lengths: Int32Array
  readonly #texts: Uint8Array
  readonly #free: number[]
  readonly #part: HelperPart
  readonly #connection: Connection
  readonly #ticker: NodeJS.Timeout
  readonly #encoder = new TextEncoder()
  readonly #options: HelperOptions
  #isReady = false
  readonly #onReady = Promise.withResolvers<void>()
  #isOver = false
  #tickedMs = performance.now()

  /**
   * Undefined where threads may not be started (Node's permissions), or the server is reached by
   * WebSocket.
   */
  static start(connection: Connection, options: HelperOptions): Helper | undefined {
    if (/^wss?:/.test(connection.nc.getServer())) return undefined
    try {
      return new Helper(connection, options)
    } catch (error) {
      options.logger.warn(
        `${options.worker} has no helper thread: ${messageOf(error)}; code that holds up its event loop may lose its tasks`,
      )
      return undefined
    }
  }

  private constructor(connection: Connection, options: HelperOptions) {
    const { slots } = options
    const memory = new SharedArrayBuffer(HEAD_BYTES + 4 * slots + SLOT_BYTES * slots)
    this.#clock = new Float64Array(memory, 0, 1)
    this.#state = new Int32Array(memory, 8, 2)
    this.#lengths = new Int32Array(memory, HEAD_BYTES, slots)
    this.#texts = new Uint8Array(memory, HEAD_BYTES + 4 * slots)
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i)
    this.#state[CURRENT] = -1
    this.#clock[CLOCK] = monotonicMs()
    this.#connection = connection
    this.#options = options
    const { worker, questions, ackWaitMs, maxBlockedMs, owned } = options
    const data = {
      memory,
      slots,
      slotBytes: SLOT_BYTES,
      servers: serversOf(connection),
      tls: tlsOf(connection),
      worker,
      questions,
      inbox: inboxOf(connection.nc),
      ackWaitMs,
      maxBlockedMs,
      owned,
    }
    this.#part = joinThread(data, (error) => {
      this.#isReady = false
      if (!this.#isOver)
        options.logger.warn(
          `the helper thread of ${worker} has ended: ${messageOf(error)}; code that holds up its event loop may lose its tasks`,
        )
      this.#isOver = true
      this.#onReady.resolve()
    })
    this.#part.port.on('message', (message: FromHelper) => this.#hear(message))
    // It alone keeps no process alive.
    this.#part.port.unref()
    this.#ticker = setInterval(() => this.#tick(), TICK_MS)
    this.#ticker.unref()
  }

  /** Resolves when the thread has a connection, or cannot be waited for any longer. */
  async ready(): Promise<void> {
    if (this.#isReady || this.#isOver) return
    const timer = setTimeout(this.#onReady.resolve, READY_MS)
    await this.#onReady.promise
    clearTimeout(timer)
  }

  /**
   * A task is in this process's hands, to be answered at `reply`. Returns its slot; -1 when there
   * is none left.
   */
  hold(reply: string, label: string): number {
    const slot = this.#free.pop()
    if (slot === undefined) return -1
    this.#write(slot, reply, label)
    return slot
  }

  renew(slot: number, reply: string, label: string): void {
    if (slot >= 0) this.#write(slot, reply, label)
  }

  release(slot: number): void {
    if (slot < 0) return
    this.#lengths[slot] = 0
    this.#free.push(slot)
  }

  /** Whose code is called now, until `-1` is said. */
  calls(slot: number): void {
    this.#state[CURRENT] = slot
  }

  /**
   * Has the last words of this process stored, and waits for that: nothing else runs meanwhile.
   * False when it could not be said.
   */
  lastWords(words: LastWords): boolean {
    if (!this.#isReady || this.#isOver) return false
    this.#isOver = true
    hangUp(this.#connection)
    this.#state[STATE] = 1
    this.#say({ last: words })
    return Atomics.wait(this.#state, STATE, 1, words.withinMs + STOP_MS) !== 'timed-out'
  }

  stop(): void {
    this.#isOver = true
    clearInterval(this.#ticker)
    this.#part.close()
  }

  #write(slot: number, reply: string, label: string): void {
    const start = slot * SLOT_BYTES
    const { written } = this.#encoder.encodeInto(`${reply}\n${label}`, this.#texts.subarray(start, start + SLOT_BYTES))
    this.#lengths[slot] = written
  }

  #tick(): void {
    this.#clock[CLOCK] = monotonicMs()
    const nowMs = performance.now()
    const lateMs = nowMs - this.#tickedMs - TICK_MS
    this.#tickedMs = nowMs
    if (lateMs >= BLOCKED_MS) this.#options.onBlocked(lateMs)
  }

  #hear(message: FromHelper): void {
    if ('connected' in message) {
      this.#isReady = true
      this.#onReady.resolve()
    } else if ('nonce' in message) {
      this.#say({ server: this.#connection.nc.getServer() })
      this.#sign(message.nonce)
    }
  }

  /** The user's function or file may fail. The thread then tries what it knows, and asks again. */
  #sign(nonce: string): void {
    try {
      this.#say({ auth: authOf(this.#connection, nonce) })
    } catch (error) {
      if (!this.#isOver)
        this.#options.logger.warn(
          `the helper thread of ${this.#options.worker} got no credentials: ${messageOf(error)}; it tries again`,
        )
    }
  }

  #say(message: ToHelper): void {
    this.#part.port.postMessage(message)
  }
}

/**
 * Ends the main thread's connection at once. Its requests for tasks would still be there while the
 * last words are stored, and what is handed back would be delivered to this process again.
 */
function hangUp({ nc }: Connection): void {
  writeNow(nc)
  socketOf(nc)?.destroy()
}

function optionsOf({ nc }: Connection): object {
  const options: unknown = Reflect.get(nc, 'options')
  return typeof options === 'object' && options !== null ? options : {}
}

function serversOf(connection: Connection): string[] {
  const servers: unknown = Reflect.get(optionsOf(connection), 'servers')
  const given = Array.isArray(servers) ? servers : [servers]
  return [connection.nc.getServer(), ...given.filter((one) => typeof one === 'string')].map((one) =>
    // Who logs in is said by `authOf`.
    one.replace(/^(\w+:\/\/)?[^@/]*@/, '$1'),
  )
}

function tlsOf(connection: Connection): Record<string, unknown> | undefined {
  const tls: unknown = Reflect.get(optionsOf(connection), 'tls')
  if (typeof tls !== 'object' || tls === null) return undefined
  // What is no plain value cannot be handed to a thread.
  return Object.fromEntries(
    Object.entries(tls).filter(([, value]) => typeof value !== 'function' && value !== undefined),
  )
}

function authOf(connection: Connection, nonce: string): Record<string, unknown> {
  const found: unknown = Reflect.get(optionsOf(connection), 'authenticator')
  const list: unknown[] = Array.isArray(found) ? found : [found]
  let auth: Record<string, unknown> = {}
  for (const one of list) {
    if (typeof one !== 'function') continue
    const reported: unknown = one(nonce)
    if (typeof reported === 'object' && reported !== null) auth = { ...auth, ...reported }
  }
  return auth
}

/**
 * The same for all threads of a machine; a host's clock that is set does not look like a loop that
 * was blocked.
 */
function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n)
}
