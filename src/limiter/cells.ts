/**
 * Cells in the limits bucket. They are read from the leader. A write names the sequence that was
 * read, so a cell that changed since then refuses it.
 */

import { type KV, Kvm, KvWatchInclude } from '@nats-io/kv'
import type { Answer } from '../../projections/limits/rate-round.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { encodeToken } from '../../streams/ids.ts'
import { jetstream } from '../../streams/jetstream.ts'
import type { Names } from '../../streams/subjects.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { stopWatch } from '../log/forget-consumer.ts'
import { ERR, isFull, isPassing, isPassingRefusal, leaderGet, publish } from '../log/nats.ts'
import { type Question, Relay } from './relay.ts'

export type CellKind = 'rate' | 'slots'

/**
 * The content of a key. `payload` is undefined if there is none, or only the marker of a deleted
 * cell.
 */
export interface StoredCell {
  /** What a write must expect: 0 if the key holds nothing. */
  readonly seq: number
  /** Server time of the message, rounded up. */
  readonly timeMs: number
  readonly payload: Uint8Array | undefined
}

export interface CellWrite {
  readonly key: string
  readonly payload: Uint8Array
  readonly expectSeq: number
  /** The server removes the cell when nobody writes it for so long. */
  readonly lifeMs: number
}

/**
 * `sentMs`: the cell was stored after this time (monotonic). It is known if the write was answered.
 */
export type Stored =
  | { readonly seq: number; readonly sentMs: number }
  | { readonly seq: number; readonly sentMs?: undefined; readonly found: StoredCell }
  | 'conflict'
  | 'lost'

const ANSWER_MS = 5000
const RETRY_MS = 50
const FULL_PAUSE_MS = 500
/** More than the cell needs, because the server counts whole seconds. */
const SPARE_S = 2
const MARKER_S = 60

export class Cells {
  readonly connection: Connection
  readonly clock: ServerClock
  readonly #names: Names
  #kv: Promise<KV> | undefined

  constructor(connection: Connection, names: Names, clock: ServerClock) {
    this.connection = connection
    this.clock = clock
    this.#names = names
  }

  key(kind: CellKind, bucket: string): string {
    return `${kind}.${encodeToken(bucket)}`
  }

  relay(process: string, serve: (question: Question) => Promise<readonly Answer[]>): Relay {
    return new Relay(this.connection, this.#names, process, serve)
  }

  /** Whether no cell can be written at present. */
  get isFull(): boolean {
    return this.connection.status.full.includes(this.#stream)
  }

  get #stream(): string {
    return this.#names.kvStream(this.#names.limitsBucket)
  }

  /** Says why no answer came, for people. */
  get whySilent(): string {
    if (this.isFull) return `JetStream storage is full (${this.#stream})`
    const { state } = this.connection.status
    return state === 'away' ? 'NATS is away' : 'NATS did not answer in time'
  }

  /** The pause before asking again: a moment, or until the connection is back. */
  async retry(): Promise<void> {
    if (this.connection.isClosed) throw closed()
    await this.connection.ready(RETRY_MS)
  }

  /** Undefined when nobody answers. */
  async read(key: string): Promise<StoredCell | undefined> {
    const { connection } = this
    const stream = this.#names.kvStream(this.#names.limitsBucket)
    const query = { last_by_subj: this.#names.kvSubject(this.#names.limitsBucket, key) }
    try {
      const answer = await connection.untilDisconnect(async (nc) => ({
        found: await leaderGet(nc, stream, query, ANSWER_MS),
      }))
      if (!answer) return undefined
      const { found } = answer
      if (!found) return { seq: 0, timeMs: 0, payload: undefined }
      this.clock.heard(found.timeMs)
      // The marker of a cell that expired, was deleted or was reset is empty.
      return { seq: found.seq, timeMs: found.timeMs + 1, payload: found.payload.length > 0 ? found.payload : undefined }
    } catch (error) {
      // The server is not there yet, or the stream has no leader. Whoever waits asks again.
      return unlessPassing(error)
    }
  }

  /**
   * Returns the sequence of the write. `conflict`: another client wrote first. `unknown`: no answer
   * came. The write may be stored, may not be stored, or may still be stored later.
   */
  async write({ key, payload, expectSeq, lifeMs }: CellWrite): Promise<number | 'conflict' | 'unknown'> {
    const entry = {
      subject: this.#names.kvSubject(this.#names.limitsBucket, key),
      payload,
      expect: { seq: expectSeq },
      headers: { 'Nats-TTL': String(Math.ceil(lifeMs / 1000) + SPARE_S) },
    }
    const ack = await this.connection
      .untilDisconnect((nc) => publish(nc, entry, undefined, ANSWER_MS))
      .catch((error: unknown) => unlessPassing(error))
    if (!ack) return 'unknown'
    if (!ack.error) return ack.seq
    const { errCode, description } = ack.error
    if (errCode === ERR.wrongLastSequence || errCode === ERR.wrongLastSequenceConstant) return 'conflict'
    if (isFull(ack.error)) await this.connection.ready(FULL_PAUSE_MS)
    if (isPassingRefusal(ack.error)) return 'unknown'
    throw new FlowStoneError('limits', `limit ${key} could not be stored: ${description}`)
  }

  /**
   * Writes, and finds out the result if no answer came. It checks if `has` recognizes the stored
   * payload. If not, it sends the write again under the same expectation: the server accepts only
   * one. `lost`: it was not stored, or was overwritten too long ago to be found. `wanted`: whether
   * a caller still waits.
   */
  async store(wish: CellWrite, has: (payload: Uint8Array) => boolean, wanted: () => boolean): Promise<Stored> {
    let uncertain = false
    for (;;) {
      const sentMs = performance.now()
      const outcome = await this.write(wish)
      if (typeof outcome === 'number') return { seq: outcome, sentMs }
      if (outcome === 'conflict' && !uncertain) return 'conflict'
      uncertain = true
      if (outcome === 'unknown') await this.retry()
      const found = await this.read(wish.key)
      if (found?.payload && has(found.payload)) return { seq: found.seq, found }
      if (found ? found.seq !== wish.expectSeq : !wanted()) return 'lost'
    }
  }

  /**
   * Calls back with each cell that is stored from now on. After a reconnect it calls back without
   * a cell. This is a hint: a call may be missing. Returns a function that ends the watch.
   */
  watch(key: string, onUpdate: (cell: StoredCell | undefined) => void): () => void {
    let ended = false
    let stop = (): void => undefined
    const offReconnect = this.connection.onReconnect(() => onUpdate(undefined))
    const follow = async (): Promise<void> => {
      this.#kv ??= new Kvm(jetstream(this.connection.nc)).open(this.#names.limitsBucket)
      const updates = await (await this.#kv).watch({ key, include: KvWatchInclude.UpdatesOnly })
      stop = () => stopWatch(updates)
      if (ended) stop()
      // The watch missed what was stored before it began.
      else onUpdate(undefined)
      for await (const { revision, created, operation, value } of updates) {
        if (ended) break
        this.clock.heard(created.getTime())
        const payload = operation === 'PUT' && value.length > 0 ? value : undefined
        onUpdate({ seq: revision, timeMs: created.getTime() + 1, payload })
      }
    }
    follow().catch(() => {
      // Callers that wait also read the cell now and then.
      this.#kv = undefined
    })
    return () => {
      ended = true
      offReconnect()
      if (!this.connection.isClosed) stop()
    }
  }

  /** Leaves a marker that the server removes after a while. */
  async remove(key: string): Promise<void> {
    const entry = {
      subject: this.#names.kvSubject(this.#names.limitsBucket, key),
      payload: new Uint8Array(),
      headers: { 'KV-Operation': 'DEL', 'Nats-TTL': String(MARKER_S) },
    }
    const ack = await this.connection.read((nc) => publish(nc, entry, undefined, ANSWER_MS))
    if (ack.error) throw new FlowStoneError('limits', `limit ${key} could not be reset: ${ack.error.description}`)
  }
}

export function closed(): FlowStoneError {
  return new FlowStoneError('closed', 'the connection was closed; limits cannot be asked')
}

/** Undefined for an error that may pass. Throws any other, such as a missing permission. */
function unlessPassing(error: unknown): undefined {
  if (!isPassing(error)) throw error
}
