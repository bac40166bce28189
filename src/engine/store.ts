/**
 * The engine's documents in memory, in front of the state bucket. Implements the folds' `View`. What was touched since the last checkpoint is kept; clean
 * documents may be dropped and are read again when a fact needs them.
 */

import { isMark, type Key, type View } from '../../projections/state.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, leaderGet, type StoredMessage } from '../log/nats.ts'

const CLEAN_MAX = 20_000
/** Marks of deleted keys go after a while: they would be listed with the others for ever. */
const DELETED = { 'KV-Operation': 'DEL', 'Nats-TTL': '60s' }

export class Store implements View {
  readonly #docs = new Map<string, unknown>()
  readonly #touched = new Set<string>()
  readonly #connection: Connection
  readonly #bucket: string
  readonly #names: Names

  constructor(connection: Connection, names: Names, p: number) {
    this.#connection = connection
    this.#names = names
    this.#bucket = names.stateBucket(p)
  }

  has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: Key<D>): D | undefined {
    // The key's type says what stands behind it; only this project writes here.
    return this.#docs.get(key) as D | undefined
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#docs.set(key, doc)
    this.#touched.add(key)
  }

  delete<D>(key: Key<D>): void {
    this.#docs.set(key, undefined)
    this.#touched.add(key)
  }

  get touched(): number {
    return this.#touched.size
  }

  /** Reads keys from the bucket, from its leader: a take-over must not start from a stale copy. */
  async load(keys: readonly string[]): Promise<void> {
    await Promise.all(
      keys.map(async (key) => {
        const doc = await readDoc(this.#connection, this.#names, this.#bucket, key)
        if (!this.#docs.has(key)) this.#docs.set(key, doc)
      }),
    )
  }

  /** What a checkpoint must write, as of now. Documents are encoded here, so later folds do not show through. */
  takeTouched(): Entry[] {
    const entries: Entry[] = []
    for (const key of this.#touched) {
      const doc = this.#docs.get(key)
      const subject = this.#names.kvSubject(this.#bucket, key)
      if (doc === undefined) entries.push({ subject, payload: new Uint8Array(), headers: DELETED })
      else
        entries.push({
          subject,
          payload: encodeDoc(doc),
          contentType: doc instanceof Uint8Array ? 'application/octet-stream' : 'application/json',
        })
    }
    // Nobody reads marks here, so they would only fill the room of what is read.
    for (const key of this.#touched) if (isMark(key)) this.#docs.delete(key)
    this.#dropClean()
    this.#touched.clear()
    return entries
  }

  #dropClean(): void {
    if (this.#docs.size <= CLEAN_MAX) return
    let excess = this.#docs.size - CLEAN_MAX / 2
    for (const key of this.#docs.keys()) {
      if (excess <= 0) break
      // What this checkpoint takes is not in the bucket yet; read again from there it would be stale.
      if (this.#touched.has(key)) continue
      this.#docs.delete(key)
      excess -= 1
    }
  }
}

function encodeDoc(doc: unknown): Uint8Array {
  return doc instanceof Uint8Array ? new Uint8Array(doc) : encodeJson(doc)
}

export function decodeDoc(key: string, message: StoredMessage): unknown {
  if (message.payload.length === 0 || message.headers.has('KV-Operation') || message.headers.has('Nats-Marker-Reason'))
    return undefined
  if (key.startsWith('segment.')) return new Uint8Array(message.payload)
  return decode(message.payload, message.headers.get('Content-Type'))
}

export async function readDoc(connection: Connection, names: Names, bucket: string, key: string): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    try {
      const message = await connection.read((nc) =>
        leaderGet(nc, names.kvStream(bucket), { last_by_subj: names.kvSubject(bucket, key) }),
      )
      return message ? decodeDoc(key, message) : undefined
    } catch (cause) {
      if (attempt >= 20 || connection.isClosed)
        throw new FlowStoneError('unreadable', `key ${key} of bucket ${bucket} could not be read`, { cause })
      await connection.ready(100 * attempt)
    }
  }
}
