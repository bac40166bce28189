/**
 * The base: the state of a shard at an earlier position of its log, in the history bucket. It
 * trails the log, and is folded like the state. Of a run that is sealed, the base keeps nothing but
 * what outlives the run. So a state that is made again begins with the base, and folds only what
 * comes behind it.
 */
import { FlowStoneError } from '../../../streams/errors.ts'
import { type HistoryManifest, historyKey, type IndexSegment } from '../../../streams/history.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { partsOf, partsSaid } from '../../log/document-parts.ts'
import { BYTES, decodeDoc } from '../../log/documents.ts'
import { freshGetMany } from '../../log/fresh-get.ts'
import { type Entry, streamBounds, streamInfo } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { Checkpointer } from '../shard/checkpoint.ts'
import { isMarkOf, type Mark, REBUILD_ADVICE } from '../shard/position.ts'
import { Store } from '../shard/store.ts'
import { emptyManifest, historyLost, markSealed } from './lost.ts'
import type { PageStore } from './segments.ts'

/** Pages of lists are large: 64 runs each. */
const DOCUMENTS = 400
const DOCS_AT_ONCE = 200

interface BaseOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly engine: string
}

export class Base implements PageStore {
  readonly store: Store
  readonly #connection: Connection
  readonly #names: Names
  readonly #bucket: string
  readonly #checkpointer: Checkpointer
  readonly #options: Omit<BaseOptions, 'engine'>
  /** A mark says that there is a history of this log. */
  #isMarked = false
  #manifest: HistoryManifest

  private constructor({ connection, names, shard, engine }: BaseOptions, log: string) {
    this.#connection = connection
    this.#names = names
    this.#bucket = names.historyBucket(shard)
    this.#checkpointer = new Checkpointer(connection, names, shard, engine, this.#bucket)
    this.store = new Store(connection, names, shard, this.#checkpointer, {
      bucket: this.#bucket,
      compress: true,
      keeps: DOCUMENTS,
    })
    this.#options = { connection, names, shard }
    this.#manifest = emptyManifest(log)
  }

  /** Takes the base over: an engine that had it before fails at its next write. */
  static async takeOver(options: BaseOptions): Promise<Base> {
    const { connection, names, shard } = options
    const log = names.log(shard)
    const { id } = await connection.read((nc) => streamBounds(nc, log))
    const base = new Base(options, id)
    const { seq } = await base.#checkpointer.takeOverAsItIs()
    const manifest = await manifestOf(options, shard)
    // After the position, which an engine before this one may have moved until it was taken over.
    const { last } = await connection.read((nc) => streamBounds(nc, log))
    if (seq > 0 && (manifest?.log !== id || seq > last || !(await isMarkOf(options, base.mark))))
      throw new FlowStoneError(
        'log_changed',
        `the history is of another log than ${log}; to seal runs again, ${REBUILD_ADVICE}`,
      )
    const lost = seq === 0 ? await historyLost(options) : undefined
    if (lost) throw lost
    base.#manifest = manifest ? { ...manifest, log: id } : base.#manifest
    await base.#mark()
    return base
  }

  /** All facts up to here are folded into it. */
  get seq(): number {
    return this.#checkpointer.seq
  }

  /** The last fact up to there, if it is known. */
  get mark(): Mark | undefined {
    return this.#checkpointer.mark
  }

  get manifest(): HistoryManifest {
    return this.#manifest
  }

  /** Names of documents that begin so. */
  async keys(prefix: string): Promise<string[]> {
    const filter = this.#names.kvSubject(this.#bucket, `${prefix}>`)
    const info = await this.#connection.read((nc) => streamInfo(nc, this.#names.kvStream(this.#bucket), filter))
    const before = this.#names.kvSubject(this.#bucket, '').length
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(before))
  }

  /** Documents that there are, by key, as the leader has them; many in one request. */
  async docs(keys: readonly string[]): Promise<Map<string, unknown>> {
    const stream = this.#names.kvStream(this.#bucket)
    const found = new Map<string, unknown>()
    for (let i = 0; i < keys.length; i += DOCS_AT_ONCE) {
      const some = keys.slice(i, i + DOCS_AT_ONCE)
      const subjects = some.map((key) => this.#names.kvSubject(this.#bucket, key))
      const there = await freshGetMany(this.#connection, stream, subjects)
      for (const [k, key] of some.entries()) {
        const message = there.get(subjects[k] ?? '')
        if (!message) continue
        const doc = partsSaid(message) > 1 ? await this.store.read<unknown>(key) : decodeDoc(key, message)
        if (doc !== undefined) found.set(key, doc)
      }
    }
    return found
  }

  async read(keys: readonly string[]): Promise<Uint8Array[]> {
    const stream = this.#names.kvStream(this.#bucket)
    const subjects = keys.map((key) => this.#names.kvSubject(this.#bucket, key))
    // A page of an engine that died in between is written again under its number.
    const there = await freshGetMany(this.#connection, stream, subjects)
    return subjects.map((subject) => {
      const found = there.get(subject)
      if (!found) throw new Error(`${subject}, a page of the index, is gone`)
      return found.payload
    })
  }

  /** What nothing refers to yet: it counts with the next checkpoint. */
  async write(documents: readonly { readonly key: string; readonly bytes: Uint8Array }[]): Promise<void> {
    const entries = documents.flatMap(({ key, bytes }) =>
      partsOf(key, bytes, this.#connection.maxPayload).map(
        (part): Entry => ({
          subject: this.#names.kvSubject(this.#bucket, part.key),
          payload: part.payload,
          contentType: BYTES,
          ...(part.headers ? { headers: part.headers } : {}),
        }),
      ),
    )
    await this.#checkpointer.write(entries, this.seq, undefined)
  }

  /** All that has changed, and the position. */
  async checkpoint(seq: number, mark: Mark | undefined, manifest: HistoryManifest): Promise<void> {
    this.store.put(historyKey.manifest, manifest)
    do await this.#checkpointer.write(this.store.takeTouched(), seq, mark)
    while (this.store.hasMore)
    this.#manifest = manifest
    await this.#mark()
  }

  /** Before anything that is sealed leaves the log, but not before it is in the history. */
  async #mark(): Promise<void> {
    if (this.seq === 0 || this.#isMarked) return
    this.#isMarked = await markSealed(this.#options, this.#manifest.log)
  }

  /** Throws FencedError when another engine has it by now, or when it is gone. */
  async look(): Promise<void> {
    await this.#checkpointer.look()
  }

  /** Takes segments away that the index needs no more. Their numbers are never given again. */
  async drop(segments: readonly IndexSegment[]): Promise<void> {
    await this.purge(segments.map(({ id }) => `index.${id}.*`))
  }

  /** Takes documents away of which nothing says any more that they are there. */
  async purge(keys: readonly string[]): Promise<void> {
    const jsm = await jetstreamManager(this.#connection.nc)
    for (const key of keys) {
      const filter = this.#names.kvSubject(this.#bucket, key)
      await jsm.streams.purge(this.#names.kvStream(this.#bucket), { filter })
    }
  }
}
