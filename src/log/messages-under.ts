/** All messages of a stream under some subjects, in order. */
import { FlowStoneError } from '../../streams/errors.ts'
import { atMost } from '../options/timer.ts'
import type { Connection } from './connection.ts'
import { MessageBuffer } from './message-buffer.ts'
import { directSince, leaderGet, type StoredMessage, streamBounds } from './nats.ts'
import { OrderedPull } from './ordered-pull.ts'

/** After such a silence the reader asks whether anything is left: it may have been purged. */
const SILENCE_MS = 1000
/** So long no consumer gave anything, though something is left. */
const IN_VAIN_MS = 60_000
/** A consumer that gives nothing for so long is replaced, though it seems to be alive. */
const TRUSTED_MS = 10_000
const HEARD_MS = 2500
const PAUSE_MS = 100
/** More is asked for while these are looked at. */
const TAKEN_MAX = 100

/**
 * From a sequence or a time on, up to the last one that is there when it begins, or to what is left
 * of them when others are purged meanwhile. `filters`: none may cover another one. Throws
 * FlowStoneError when the reading breaks before that: what came is then not all. `reader_stopped`:
 * the stream was made anew, or gave nothing. `too_many_readers` or `denied`: nobody more may read.
 * `no_stream`, `closed`, and `unreachable` when the server is away for a minute.
 */
export async function* messagesUnder(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  from: number | Date = 1,
): AsyncGenerator<StoredMessage> {
  const [{ created }, lasts] = await Promise.all([
    connection.read((nc) => streamBounds(nc, stream)),
    lastsOf(connection, stream, filters),
  ])
  const fromMs = typeof from === 'number' ? Number.NEGATIVE_INFINITY : from.getTime()
  const wanted = filters.filter((_, i) => (lasts[i]?.timeMs ?? Number.NEGATIVE_INFINITY) >= fromMs)
  const end = Math.max(0, ...lasts.map((message) => (message && message.timeMs >= fromMs ? message.seq : 0)))
  const start = typeof from === 'number' ? from : await firstSince(connection, stream, wanted, from)
  if (end < start) return
  using reading = new Reading(connection, { stream, filters, created, end, start })
  for (;;) {
    const messages = await reading.take()
    for (const message of messages) {
      if (message.seq > end) return
      if (message.timeMs >= fromMs) yield message
    }
    if (messages.length === 0 || messages.at(-1)?.seq === end) return
  }
}

interface Stretch {
  readonly stream: string
  /** When the stream was made. */
  readonly created: string
  readonly filters: readonly string[]
  readonly start: number
  readonly end: number
}

/** What is held of a stretch, and the consumer that brings more of it. */
class Reading implements Disposable {
  readonly #connection: Connection
  readonly #stretch: Stretch
  readonly #offReconnect: () => void
  readonly #buffer: MessageBuffer
  #cameMs = 0
  #pull: OrderedPull | undefined
  #wake: (() => void) | undefined

  constructor(connection: Connection, stretch: Stretch) {
    this.#connection = connection
    this.#stretch = stretch
    this.#buffer = new MessageBuffer(stretch.start)
    // A server that was started again has forgotten the consumer.
    this.#offReconnect = connection.onReconnect(() => this.#pull?.stop())
  }

  /** What is there, at most `TAKEN_MAX` messages; none: no more comes. */
  async take(): Promise<StoredMessage[]> {
    const { stream, end } = this.#stretch
    const sinceMs = performance.now()
    for (;;) {
      const messages = this.#buffer.take(TAKEN_MAX)
      if (messages.length > 0) {
        this.#pull?.more()
        return messages
      }
      if (this.#buffer.next > end) return []
      const pull = await this.#open()
      const isLate = (await atMost(SILENCE_MS, this.#woken(pull))) === 'late'
      if (!this.#buffer.isEmpty) continue
      if (isLate && !(await this.#isAnyLeft())) return []
      const nowMs = performance.now()
      // A large message may take long on a slow line. Nothing else is heard meanwhile.
      if (nowMs - this.#cameMs > TRUSTED_MS && nowMs - pull.heardMs < HEARD_MS) pull.stop()
      if (pull.denied) throw pull.denied
      if (!pull.hasEnded) continue
      if (nowMs - sinceMs > IN_VAIN_MS)
        throw new FlowStoneError('reader_stopped', `stream ${stream} gave its reader nothing before message ${end}`)
      await this.#connection.ready(PAUSE_MS)
    }
  }

  [Symbol.dispose](): void {
    this.#offReconnect()
    this.#pull?.stop()
  }

  async #woken(pull: OrderedPull): Promise<void> {
    if (!this.#buffer.isEmpty || pull.hasEnded) return
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }

  /** The consumer that is there, or another one behind what was read. */
  async #open(): Promise<OrderedPull> {
    if (this.#pull && !this.#pull.hasEnded) return this.#pull
    const isFirst = this.#pull === undefined
    if (this.#connection.isClosed)
      throw new FlowStoneError('closed', `the connection was closed while ${this.#stretch.stream} was read`)
    const opened: Promise<OrderedPull>[] = []
    try {
      const pull = await this.#connection.read(() => {
        const opening = this.#opening()
        opened.push(opening)
        return opening
      })
      void pull.ended.then(() => this.#wake?.())
      this.#pull = pull
      this.#cameMs = performance.now()
      if (!isFirst) await this.#mustBeTheSame()
      return pull
    } finally {
      // Others may still come, from the next server.
      for (const opening of opened) opening.then((one) => one !== this.#pull && one.stop()).catch(() => undefined)
    }
  }

  #opening(): Promise<OrderedPull> {
    const { stream, filters } = this.#stretch
    return OrderedPull.open(this.#connection, {
      stream,
      from: this.#buffer.next,
      filters,
      hasRoom: () => this.#buffer.hasRoom,
      onMessage: (message, seq, timeMs) => {
        if (!this.#buffer.add(message, seq, timeMs)) return
        this.#cameMs = performance.now()
        this.#wake?.()
      },
    })
  }

  async #mustBeTheSame(): Promise<void> {
    const { stream, created } = this.#stretch
    const now = await this.#connection.read((nc) => streamBounds(nc, stream))
    if (now.created !== created)
      throw new FlowStoneError('reader_stopped', `stream ${stream} was made anew while it was read`)
  }

  async #isAnyLeft(): Promise<boolean> {
    const { stream, filters, end } = this.#stretch
    const seq = Math.max(1, this.#buffer.next)
    const next = filters.map((next_by_subj) =>
      this.#connection.read((nc) => leaderGet(nc, stream, { seq, next_by_subj })),
    )
    return (await Promise.all(next)).some((message) => message !== undefined && message.seq <= end)
  }
}

async function lastsOf(
  connection: Connection,
  stream: string,
  filters: readonly string[],
): Promise<(StoredMessage | undefined)[]> {
  return await Promise.all(
    filters.map((last_by_subj) => connection.read((nc) => leaderGet(nc, stream, { last_by_subj }))),
  )
}

/** The sequence of the first message since a time, or of one before it. */
async function firstSince(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  since: Date,
): Promise<number> {
  const firsts = filters.map((filter) => connection.read((nc) => directSince(nc, stream, since, filter)))
  // A replica may not have it yet.
  return Math.min(...(await Promise.all(firsts)).map((first) => first?.seq ?? 1))
}
