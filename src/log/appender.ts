/**
 * The appender: all appends of a process to one stream go through it, and it commits in groups.
 *
 * While one group is in flight, further appends wait and leave together in the next. No append
 * waits for a timer: a single one leaves at the end of its turn of the event loop. A small group is
 * sent as plain publishes side by side, a larger one as one atomic batch. (With fsync on every
 * write, an atomic batch costs about seven publishes; measured.)
 *
 * If a batch is refused because of one member, nothing of it is stored. Its members are then sent
 * one by one, and only the one at fault gets the error.
 *
 * A lost answer (connection gone, server killed) leaves a unit *uncertain*. It is sent again. If it
 * was stored the first time, the server refuses it. Then the stored message carries the id of this
 * unit (expected sequence), or the server answers "duplicate" (message id). Either way the caller
 * gets "stored" once, and the log holds it once.
 */
import { randomBytes } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { NatsConnection } from '@nats-io/nats-core'
import { ConflictError, FlowStoneError, InvalidError, messageOf, TimeoutError } from '../../streams/errors.ts'
import type { Connection } from './connection.ts'
import { type Entry, ERR, isFull, leaderGet, type PubAck, publish, publishBatch, UNIT_HEADER } from './nats.ts'
import { asAway } from './unreachable.ts'

export interface Appended {
  /**
   * Sequence of the unit's last message; 0 where a repeat was recognized by its message id in a
   * batch.
   */
  readonly seq: number
}

export type AppendedOnce = 'stored' | 'exists'

export interface AppenderOptions {
  /**
   * Longest wait for one answer before the unit counts as uncertain, in milliseconds. Default
   * 5,000.
   */
  readonly answerTimeoutMs?: number
  /**
   * How long an append is tried again while the server is away, in milliseconds. Default 120,000.
   * Then TimeoutError: perhaps stored, perhaps not.
   */
  readonly giveUpMs?: number
  /**
   * The same while the server says that its storage is full. Default `giveUpMs`. Then
   * FlowStoneError `storage_full`: nothing was stored.
   */
  readonly fullGiveUpMs?: number
  /** Most bytes that wait; more appends wait for room. Default 64 MiB. */
  readonly maxQueuedBytes?: number
}

interface Unit {
  readonly id: string
  readonly entries: readonly Entry[]
  readonly bytes: number
  readonly expectations: readonly string[]
  readonly startedMs: number
  uncertain: boolean
  reported: boolean
  readonly settle: (result: Appended | Error) => void
}

/**
 * `pending`: something is on its way to the place that was to be free. Only a cluster says so.
 * `crowded`: too many batches are open, of others too; nothing was stored. `full`: there is no
 * room; nothing was stored.
 */
type Verdict = { readonly stored: number } | { readonly refused: Error } | 'conflict' | Waiting | 'duplicate'

/** Sent again after a pause, which doubles from the first of the two to the second. */
type Waiting = 'pending' | 'uncertain' | 'crowded' | 'full'

const BATCH_MESSAGES_MAX = 1000
const GROUP_BYTES_MAX = 8 * 1024 * 1024
/** Groups of up to this many single messages go as plain publishes side by side. */
const SIDE_BY_SIDE_MAX = 10
const UNKNOWN_PAUSE_MS = 100
const PAUSES_MS: Readonly<Record<Waiting, readonly [first: number, longest: number]>> = {
  pending: [10, 10],
  uncertain: [100, 100],
  crowded: [20, 250],
  full: [250, 1000],
}

export class Appender {
  readonly #connection: Connection
  readonly #stream: string
  readonly #answerTimeoutMs: number
  readonly #giveUpMs: number
  readonly #fullGiveUpMs: number
  readonly #maxQueuedBytes: number
  readonly #process = randomBytes(9).toString('base64url')
  #queue: Unit[] = []
  #queuedBytes = 0
  #room: (() => void)[] = []
  #busy = false
  #counter = 0
  #idle: (() => void)[] = []

  constructor(connection: Connection, stream: string, options: AppenderOptions = {}) {
    this.#connection = connection
    this.#stream = stream
    this.#answerTimeoutMs = options.answerTimeoutMs ?? 5000
    this.#giveUpMs = options.giveUpMs ?? 120_000
    this.#fullGiveUpMs = options.fullGiveUpMs ?? this.#giveUpMs
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 64 * 1024 * 1024
  }

  /**
   * Stores the entries, all or none. Resolves when they are on the stream.
   *
   * Rejects with:
   *
   * - ConflictError: an expectation does not hold.
   * - InvalidError: a message or batch is too large.
   * - TimeoutError: the server did not answer for `giveUpMs`.
   * - FlowStoneError `storage_full`: the server had no room for `fullGiveUpMs`.
   * - FlowStoneError `denied`: this client may not publish there.
   */
  async append(...entries: Entry[]): Promise<Appended> {
    const id = `${this.#process}.${(this.#counter++).toString(36)}`
    const unit = this.#prepare(id, entries)
    while (this.#queuedBytes > 0 && this.#queuedBytes + unit.bytes > this.#maxQueuedBytes) {
      await new Promise<void>((resolve) => this.#room.push(resolve))
    }
    return await new Promise<Appended>((resolve, reject) => {
      const settle = (result: Appended | Error): void => {
        if (result instanceof Error) reject(result)
        else resolve(result)
      }
      this.#queuedBytes += unit.bytes
      this.#queue.push({ ...unit, settle })
      if (!this.#busy) void this.#run()
    })
  }

  /**
   * As `append`, for entries that may be on the stream already: a conflict is an answer, not an
   * error. `exists`: an expectation did not hold, so nothing of this call was stored.
   */
  async appendOnce(...entries: Entry[]): Promise<AppendedOnce> {
    try {
      await this.append(...entries)
      return 'stored'
    } catch (error) {
      if (error instanceof ConflictError) return 'exists'
      throw error
    }
  }

  /** Resolves when nothing waits and nothing is in flight. */
  async flush(): Promise<void> {
    if (this.#busy) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  get queuedBytes(): number {
    return this.#queuedBytes
  }

  #prepare(id: string, entries: Entry[]): Omit<Unit, 'settle'> {
    const limit = this.#connection.maxPayload
    let bytes = 0
    for (const entry of entries) {
      const size = entry.payload.length + 512 + entry.subject.length
      if (size > limit) {
        throw new InvalidError(
          `a message of ${entry.payload.length} bytes for ${entry.subject} is over the server's max_payload of ${limit}; store large values through an I/O manager, or raise max_payload`,
        )
      }
      bytes += size
    }
    if (entries.length === 0 || entries.length > BATCH_MESSAGES_MAX)
      throw new InvalidError(`an append takes 1 to ${BATCH_MESSAGES_MAX} messages, got ${entries.length}`)
    const expectations = entries.flatMap((entry) => (entry.expect ? [entry.expect.subject ?? entry.subject] : []))
    // What has no expectation is made recognizable by a message id, for the case of a lost answer.
    const marked =
      expectations.length > 0
        ? entries
        : entries.map((entry, i) => (entry.msgId ? entry : { ...entry, msgId: `${id}.${i}` }))
    return {
      id,
      entries: marked,
      bytes,
      expectations,
      startedMs: performance.now(),
      uncertain: false,
      reported: false,
    }
  }

  async #run(): Promise<void> {
    this.#busy = true
    try {
      // What comes in this turn of the event loop shares a group.
      await nextTurn()
      while (this.#queue.length > 0) {
        const group = this.#takeGroup()
        try {
          await this.#sendGroup(group)
        } catch (error) {
          // Unexpected: the callers must get the error, or they wait for ever. A unit that is
          // settled ignores it.
          for (const unit of group)
            this.#done(unit, error instanceof Error ? error : new FlowStoneError('internal', messageOf(error)))
        }
      }
    } finally {
      this.#busy = false
      for (const wake of this.#idle.splice(0)) wake()
    }
  }

  /**
   * Units that may share a batch: no two with the same expectation, because the server checks a
   * batch against the stream, not against itself (tried).
   */
  #takeGroup(): Unit[] {
    const group: Unit[] = []
    const expected = new Set<string>()
    let messages = 0
    let bytes = 0
    let taken = 0
    for (const unit of this.#queue) {
      if (
        group.length > 0 &&
        (messages + unit.entries.length > BATCH_MESSAGES_MAX || bytes + unit.bytes > GROUP_BYTES_MAX)
      )
        break
      if (unit.expectations.some((subject) => expected.has(subject))) break
      for (const subject of unit.expectations) expected.add(subject)
      messages += unit.entries.length
      bytes += unit.bytes
      group.push(unit)
      taken += 1
    }
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken)
    return group
  }

  async #sendGroup(group: Unit[]): Promise<void> {
    let open = group
    let together = true
    for (let round = 0; open.length > 0; round++) {
      const verdicts = together ? await this.#sendTogether(open) : await this.#sendApart(open)
      const again: Unit[] = []
      let pauseMs = 0
      for (const [i, unit] of open.entries()) {
        const verdict = verdicts === 'apart' ? 'again' : (verdicts[i] ?? 'uncertain')
        if (verdict === 'again') again.push(unit)
        else if (isWaiting(verdict)) {
          const waiting = verdict
          // It is not known yet whether the message in flight will be stored. So no caller can get
          // an answer yet.
          if (waiting === 'uncertain') unit.uncertain = true
          const [first, longest] = PAUSES_MS[waiting]
          pauseMs = Math.max(pauseMs, Math.min(longest, first * 2 ** Math.min(round, 10)))
          // Others that wait for room in the same way must not come at the same time.
          if (waiting === 'crowded') pauseMs *= 0.5 + Math.random() / 2
          const giveUpMs = waiting === 'full' ? this.#fullGiveUpMs : this.#giveUpMs
          if (performance.now() - unit.startedMs > giveUpMs) this.#done(unit, this.#givenUp(unit, waiting, giveUpMs))
          else again.push(unit)
        } else if (verdict === 'conflict') {
          const resolved = unit.uncertain
            ? await this.#findOwn(unit)
            : new ConflictError(`${unit.expectations.join(', ')}: another append was first`)
          if (resolved === 'unknown') {
            again.push(unit)
            pauseMs = Math.max(pauseMs, UNKNOWN_PAUSE_MS)
          } else this.#done(unit, resolved)
        } else if (verdict === 'duplicate') this.#done(unit, { seq: 0 })
        else if ('stored' in verdict) this.#done(unit, { seq: verdict.stored })
        else this.#done(unit, verdict.refused)
      }
      if (verdicts === 'apart') together = false
      open = again
      if (pauseMs > 0 && open.length > 0) await this.#connection.ready(pauseMs)
    }
  }

  #givenUp({ uncertain }: Unit, waiting: Waiting, afterMs: number): FlowStoneError {
    if (waiting === 'full' && !uncertain)
      return new FlowStoneError(
        'storage_full',
        `JetStream storage is full: ${this.#stream} took no message for ${afterMs} ms, and nothing was stored. Delete streams or raise the limit, then try again`,
      )
    const why = waiting === 'crowded' ? 'had too many batches open' : 'did not answer'
    return asAway(
      new TimeoutError(
        `${this.#stream} ${why} for ${afterMs} ms; whether the append was stored is not known. Is nats-server up?`,
      ),
    )
  }

  #done(unit: Unit, result: Appended | Error): void {
    if (unit.reported) return
    unit.reported = true
    this.#queuedBytes -= unit.bytes
    unit.settle(result)
    for (const wake of this.#room.splice(0)) wake()
  }

  /** `apart`: the batch was refused as a whole, because of some member. */
  async #sendTogether(units: Unit[]): Promise<Verdict[] | 'apart'> {
    const single = units.every((unit) => unit.entries.length === 1)
    if (single && units.length <= SIDE_BY_SIDE_MAX) return this.#sendApart(units)
    if (units.length === 1) return this.#sendApart(units)
    const verdict = await this.#sendBatch(units)
    if (verdict === 'conflict' || verdict === 'pending' || verdict === 'duplicate') return 'apart'
    // What is one message needs no batch.
    if (verdict === 'crowded' && single) return 'apart'
    if (typeof verdict === 'string') return units.map(() => verdict)
    if ('refused' in verdict) return 'apart'
    let seq = verdict.stored - units.reduce((n, unit) => n + unit.entries.length, 0)
    return units.map((unit) => {
      seq += unit.entries.length
      return { stored: seq }
    })
  }

  /** Each unit by itself: single messages side by side, batches one after the other. */
  async #sendApart(units: Unit[]): Promise<Verdict[]> {
    const verdicts = new Map<Unit, Verdict>()
    const singles = units.filter((unit) => unit.entries.length === 1)
    for (let i = 0; i < singles.length; i += 100) {
      const some = singles.slice(i, i + 100)
      const results = await Promise.all(some.map((unit) => this.#sendOne(unit)))
      for (const [k, unit] of some.entries()) verdicts.set(unit, results[k] ?? 'uncertain')
    }
    for (const unit of units) if (unit.entries.length > 1) verdicts.set(unit, await this.#sendBatch([unit]))
    return units.map((unit) => verdicts.get(unit) ?? 'uncertain')
  }

  async #sendOne(unit: Unit): Promise<Verdict> {
    const [entry] = unit.entries
    if (!entry) return 'uncertain'
    return this.#ask((nc) => publish(nc, entry, unit.id, this.#answerTimeoutMs))
  }

  async #sendBatch(units: Unit[]): Promise<Verdict> {
    const entries = units.flatMap((unit) => unit.entries.map((entry) => ({ entry, unit: unit.id })))
    const batchId = randomBytes(12).toString('base64url')
    return this.#ask((nc) => publishBatch(nc, entries, batchId, this.#answerTimeoutMs))
  }

  async #ask(send: (nc: NatsConnection) => Promise<PubAck>): Promise<Verdict> {
    let ack: PubAck | undefined
    try {
      ack = await this.#connection.untilDisconnect(send)
    } catch (error) {
      // No answer, or nobody there to answer: only looking tells. A closed connection never comes
      // back.
      if (this.#connection.isClosed)
        return {
          refused: new FlowStoneError('closed', `the connection is closed: ${messageOf(error)}`, { cause: error }),
        }
      if (error instanceof FlowStoneError && error.code === 'denied') return { refused: error }
      this.#connection.suspect()
      return 'uncertain'
    }
    if (ack === undefined) return 'uncertain'
    if (!ack.error) return { stored: ack.seq }
    const { errCode, code, description } = ack.error
    if (errCode === ERR.wrongLastSequence) return 'conflict'
    if (errCode === ERR.wrongLastSequenceConstant) return 'pending'
    if (errCode === ERR.duplicateInBatch) return 'duplicate'
    if (isFull(ack.error)) return 'full'
    if (errCode === ERR.incompleteBatch || code === 429) return 'crowded'
    // The server is in trouble; it passes.
    if (code >= 500) return 'uncertain'
    return { refused: new FlowStoneError('refused', `${this.#stream} refused the append: ${description} (${errCode})`) }
  }

  /** After an uncertain send met a conflict: is the stored message ours? */
  async #findOwn(unit: Unit): Promise<Appended | Error | 'unknown'> {
    for (const [i, entry] of unit.entries.entries()) {
      if (!entry.expect) continue
      const subject = entry.expect.subject ?? entry.subject
      try {
        const found = await leaderGet(
          this.#connection.nc,
          this.#stream,
          { last_by_subj: subject },
          this.#answerTimeoutMs,
        )
        if (found?.headers.get(UNIT_HEADER) === unit.id) return { seq: found.seq + unit.entries.length - 1 - i }
      } catch {
        return 'unknown'
      }
    }
    return new ConflictError(`${unit.expectations.join(', ')}: another append was first`)
  }
}

function isWaiting(verdict: Verdict): verdict is Waiting {
  return typeof verdict === 'string' && verdict in PAUSES_MS
}
