/**
 * The object store of the namespace, in the layout of NATS (`nats object ls` reads it). The client
 * library reads and writes through its own consumers, which notice a broken connection only after
 * half a minute. Here every transfer uses single requests, and continues where it was interrupted
 * as soon as the server is back.
 */
import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { Connection } from '../log/connection.ts'
import { freshGetMany } from '../log/fresh-get.ts'
import {
  directGet,
  directNext,
  type Entry,
  isFull,
  isPassing,
  isPassingRefusal,
  leaderGet,
  type PubError,
  publish,
  type StoredMessage,
  streamInfo,
} from '../log/nats.ts'
import { asAway } from '../log/unreachable.ts'

/** Less where the server's messages are small. */
const CHUNK_BYTES = 128 * 1024
/** Chunks on their way at a time. */
const AHEAD = 8
/** Chunks asked for at a time. */
const BATCH = 16
/**
 * The longest silence between two chunks; twice as long each time that it was too short, for slow
 * lines.
 */
const SILENCE_MS = 1000
const ANSWER_MS = 5000
/**
 * How long one value is tried to be stored, while the server gives no answer. Where it says that it
 * is full, there is no end.
 */
const GIVE_UP_MS = 120_000
const PAUSE_MS = 100
const FULL_PAUSE_MS = 500
const TOUCHES = 5
const LISTED = 200
const TOUCH_PAUSE_MS = 20

const meta = z.object({
  nuid: z.string(),
  size: z.int(),
  chunks: z.int(),
  digest: z.string().optional(),
  deleted: z.boolean().optional(),
})
type Meta = z.infer<typeof meta>

const named = z.object({ name: z.string(), nuid: z.string(), size: z.int() })

/** A value in the store, and when it was stored last. */
export interface StoredBlob extends z.infer<typeof named> {
  readonly timeMs: number
}

/** Undefined: the server did not say. */
type Outcome = 'stored' | { readonly refusal: PubError | undefined }

export class Blobs {
  readonly #connection: Connection
  readonly #bucket: string

  constructor(connection: Connection, bucket: string) {
    this.#connection = connection
    this.#bucket = bucket
  }

  /**
   * Stores bytes under a name, unless they are there (of this size, where one is given). All of
   * them or none.
   */
  async put(name: string, bytes: Uint8Array, sameSize: boolean): Promise<void> {
    const startedMs = performance.now()
    for (;;) {
      const outcome = (await this.#touch(name, bytes, sameSize)) ?? (await this.#tryPut(name, bytes))
      if (outcome === 'stored') return
      if (!isFull(outcome?.refusal) && performance.now() - startedMs > GIVE_UP_MS)
        throw asAway(
          new FlowStoneError(
            'unreachable',
            `${this.#bucket} did not answer for ${GIVE_UP_MS} ms; the value was not stored`,
          ),
        )
      await this.#connection.ready(isFull(outcome?.refusal) ? FULL_PAUSE_MS : PAUSE_MS)
      if (this.#connection.isClosed)
        throw new FlowStoneError('closed', 'the connection was closed while a value was stored')
    }
  }

  /**
   * The bytes under a name; undefined where there are none. Throws FlowStoneError `damaged_value`
   * when they are not those that were stored.
   */
  async get(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const found = await this.#meta(name, signal)
    if (!found) return undefined
    const parts: Uint8Array[] = []
    const subject = this.#chunks(found.nuid)
    for (let next = 1; parts.length < found.chunks; ) {
      const some = await this.#chunksFrom(subject, next, found.chunks - parts.length, signal)
      const last = some.at(-1)
      if (!last) throw this.#damaged(name, `only ${parts.length} of ${found.chunks} chunks are there`)
      parts.push(...some.map(({ payload }) => payload))
      next = last.seq + 1
    }
    const bytes = Buffer.concat(parts)
    if (bytes.length !== found.size) throw this.#damaged(name, `${bytes.length} bytes in the place of ${found.size}`)
    if (found.digest !== undefined && found.digest !== digestOf(bytes))
      throw this.#damaged(name, 'its digest is another')
    return bytes
  }

  /**
   * Stores the description again, so that it says when the value was stored last: one that was
   * stored a moment ago is not taken away, though nothing names it yet. Undefined: the value is not
   * there.
   */
  async #touch(name: string, bytes: Uint8Array, sameSize: boolean): Promise<Outcome | undefined> {
    for (let attempt = 1; ; attempt++) {
      const stored = await this.#stored(name, attempt > 1)
      const there = stored && metaIn(stored)
      if (!there || (sameSize && there.size !== bytes.length)) return undefined
      const { seq, payload } = stored
      const headers = { 'Nats-Rollup': 'sub' }
      const outcome = await this.#publish({ subject: this.#metaSubject(name), payload, expect: { seq }, headers }, true)
      if (outcome === 'stored' || attempt >= TOUCHES) return outcome
      // Somebody stored it, or took it away, at the same time.
      await this.#connection.ready(TOUCH_PAUSE_MS)
    }
  }

  /**
   * Takes a value away, unless it was stored again since `beforeMs`. Says whether it is gone. Doing
   * it twice is harmless, also after a crash in the middle.
   */
  async remove(name: string, beforeMs: number): Promise<boolean> {
    const stored = await this.#stored(name, true)
    if (!stored) return true
    const content: unknown = decode(stored.payload, undefined)
    const known = meta.safeParse(content).data
    if (!known?.deleted) {
      if (!known || stored.timeMs >= beforeMs) return false
      const payload = encodeJson({ ...Object(content), deleted: true })
      const outcome = await this.#publish(
        { subject: this.#metaSubject(name), payload, expect: { seq: stored.seq }, headers: { 'Nats-Rollup': 'sub' } },
        true,
      )
      if (outcome !== 'stored') return false
    }
    const jsm = await jetstreamManager(this.#connection.nc)
    if (known) await jsm.streams.purge(this.#stream, { filter: this.#chunks(known.nuid) })
    const mark = await this.#stored(name, true)
    if (mark && !metaIn(mark))
      await jsm.streams.purge(this.#stream, { filter: this.#metaSubject(name), seq: mark.seq + 1 })
    return true
  }

  /** All values there are. Those that somebody is storing may be missing. */
  async *list(): AsyncGenerator<StoredBlob> {
    const subjects = await this.#subjects('M')
    for (let i = 0; i < subjects.length; i += LISTED) {
      const some = subjects.slice(i, i + LISTED)
      const there = await freshGetMany(this.#connection, this.#stream, some)
      for (const { payload, timeMs } of there.values()) {
        const found = payload.length > 0 ? named.safeParse(decode(payload, undefined)).data : undefined
        if (found) yield { ...found, timeMs }
      }
    }
  }

  /** Chunks of no value in `known`, the last of which is older. Takes them away, or counts them. */
  async takeHalves(
    known: ReadonlySet<string>,
    beforeMs: number,
    isDry: boolean,
  ): Promise<{ readonly objects: number; readonly bytes: number }> {
    let [objects, bytes] = [0, 0]
    const jsm = await jetstreamManager(this.#connection.nc)
    for (const subject of await this.#subjects('C')) {
      if (known.has(subject.slice(this.#chunks('').length))) continue
      const query = { last_by_subj: subject }
      const last = await this.#connection.read((nc) => leaderGet(nc, this.#stream, query, ANSWER_MS))
      if (!last || last.timeMs >= beforeMs) continue
      if (!isDry) await jsm.streams.purge(this.#stream, { filter: subject })
      objects += 1
      bytes += last.payload.length
    }
    return { objects, bytes }
  }

  async #subjects(kind: 'M' | 'C'): Promise<string[]> {
    const filter = `$O.${this.#bucket}.${kind}.>`
    const info = await this.#connection.read((nc) => streamInfo(nc, this.#stream, filter))
    return Object.keys(info.state.subjects ?? {})
  }

  async #tryPut(name: string, bytes: Uint8Array): Promise<Outcome> {
    const nuid = randomBytes(11).toString('hex')
    const subject = this.#chunks(nuid)
    const chunkBytes = this.#connection.share(CHUNK_BYTES)
    const chunks = Math.ceil(bytes.length / chunkBytes)
    for (let from = 0; from < chunks; from += AHEAD) {
      const refusals = await Promise.all(
        Array.from({ length: Math.min(AHEAD, chunks - from) }, (_, i) => {
          const at = (from + i) * chunkBytes
          return this.#publish({ subject, payload: bytes.subarray(at, at + chunkBytes) })
        }),
      )
      const failed = refusals.find((refusal) => refusal !== 'stored')
      if (failed === undefined) continue
      await this.#drop(subject)
      return failed
    }
    const info = {
      name,
      bucket: this.#bucket,
      nuid,
      size: bytes.length,
      chunks,
      mtime: new Date().toISOString(),
      digest: digestOf(bytes),
      deleted: false,
      options: { max_chunk_size: chunkBytes },
    }
    const payload = encodeJson(info)
    return await this.#publish({ subject: this.#metaSubject(name), payload, headers: { 'Nats-Rollup': 'sub' } })
  }

  /** `isConditional`: it is no error that another one was stored since. */
  async #publish(entry: Entry, isConditional = false): Promise<Outcome> {
    try {
      const ack = await this.#connection.untilDisconnect((nc) => publish(nc, entry, undefined, ANSWER_MS))
      if (!ack) return { refusal: undefined }
      if (!ack.error) return 'stored'
      if (isPassingRefusal(ack.error) || isConditional) return { refusal: ack.error }
      throw new FlowStoneError(
        'refused',
        `${this.#bucket} refused a value: ${ack.error.description} (${ack.error.errCode})`,
      )
    } catch (error) {
      if (!isPassing(error) || this.#connection.isClosed) throw error
      this.#connection.suspect()
      return { refusal: undefined }
    }
  }

  /** Chunks that nothing names any more. What cannot be taken away now only takes room. */
  async #drop(subject: string): Promise<void> {
    try {
      const jsm = await jetstreamManager(this.#connection.nc, { timeout: 1000 })
      await jsm.streams.purge(this.#stream, { filter: subject })
    } catch {
      // The server is away.
    }
  }

  /** From any replica; what that does not have is asked of the leader. */
  async #chunksFrom(
    subject: string,
    seq: number,
    most: number,
    signal: AbortSignal | undefined,
  ): Promise<readonly StoredMessage[]> {
    const count = Math.min(BATCH, most)
    let silenceMs = SILENCE_MS / 2
    const some = await this.#connection.read((nc) => {
      silenceMs *= 2
      return directNext(nc, this.#stream, seq, subject, count, silenceMs)
    }, signal)
    if (some.length > 0) return some
    const byLeader = { seq, next_by_subj: subject }
    const one = await this.#connection.read((nc) => leaderGet(nc, this.#stream, byLeader, ANSWER_MS), signal)
    return one ? [one] : []
  }

  async #meta(name: string, signal?: AbortSignal): Promise<Meta | undefined> {
    const found = await this.#stored(name, false, signal)
    return found && metaIn(found)
  }

  /** What describes a value, or says that it was deleted. */
  async #stored(name: string, byLeader: boolean, signal?: AbortSignal): Promise<StoredMessage | undefined> {
    const query = { last_by_subj: this.#metaSubject(name) }
    const found = await this.#connection.read(
      (nc) => (byLeader ? leaderGet : directGet)(nc, this.#stream, query, ANSWER_MS),
      signal,
    )
    return found && found.payload.length > 0 ? found : undefined
  }

  #damaged(name: string, how: string): FlowStoneError {
    return new FlowStoneError('damaged_value', `value ${name} in object store ${this.#bucket} is damaged: ${how}`)
  }

  get #stream(): string {
    return `OBJ_${this.#bucket}`
  }

  #chunks(nuid: string): string {
    return `$O.${this.#bucket}.C.${nuid}`
  }

  #metaSubject(name: string): string {
    return `$O.${this.#bucket}.M.${padded(Buffer.from(name))}`
  }
}

/** Undefined for one that was deleted. */
function metaIn(found: StoredMessage): Meta | undefined {
  const known = meta.safeParse(decode(found.payload, undefined)).data
  return known?.deleted ? undefined : known
}

function digestOf(bytes: Uint8Array): string {
  return `SHA-256=${padded(createHash('sha256').update(bytes).digest())}`
}

/** As NATS has it: base64 for URLs, with its padding. */
function padded(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('+', '-').replaceAll('/', '_')
}
