/**
 * The records of an archive: of runs, and of all that they refer to. Values of the object store
 * stand there once each, and so does a value that was taken from a run that is not in the archive.
 */
import type { SensorState } from '../../../projections/schedule/state.ts'
import { type CatalogEntry, type RunState, stateKey } from '../../../projections/state.ts'
import {
  ARCHIVE_VERSION,
  type ArchiveHead,
  type ArchiveRecord,
  type BlobRef,
  blobName,
  blobRecords,
  blobsIn,
  documentRecord,
  factRecord,
  positionRecord,
} from '../../../streams/archive.ts'
import { decode, encodeJson } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { factPath, parsePath } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { parseRunId } from '../../../streams/ids.ts'
import { Blobs } from '../../io/blobs.ts'
import { readDoc } from '../../log/documents.ts'
import { rawSealedAt, rawSealedUnder } from '../../log/history.ts'
import { leaderGet, type StoredMessage, streamInfo } from '../../log/nats.ts'
import { missingRun } from '../../log/pruned.ts'
import { storedFact } from '../../log/read-fact.ts'
import type { Piece, PieceSource, Wanted } from './piece.ts'
import { piecesOfRun, piecesOfShard } from './pieces.ts'
import { readPositions } from './positions.ts'

/** Documents that are read side by side. */
const ENTRIES_AT_ONCE = 32

export interface RecordSource extends PieceSource {
  readonly shards: number
}

/** Runs by their ids, or all that are wanted. */
export interface Selection {
  readonly runs?: readonly string[]
  /** What is known of these runs, where the caller can read it at once. */
  readonly pieces?: () => AsyncIterable<Piece>
  readonly wanted: Wanted
  /** The newest value of each asset also where its run is gone. */
  readonly catalog: boolean
  /** Where schedules, sensors and subscriptions stand. */
  readonly positions: boolean
  /** Runs that others are redriven from come along. */
  readonly related: boolean
}

export class Records {
  readonly #source: RecordSource
  readonly #blobs: Blobs
  readonly #seen = new Set<string>()
  readonly #blobsSeen = new Set<string>()
  readonly #pipelines = new Set<string>()
  /** Values that runs have taken, as `shard.seq`. */
  readonly #taken = new Set<string>()
  readonly #related = new Set<string>()
  /** Runs that were left out because they have not ended. */
  readonly open: string[] = []

  constructor(source: RecordSource) {
    this.#source = source
    this.#blobs = new Blobs(source.connection, source.names.blobBucket)
  }

  async *of(selection: Selection, at: Date): AsyncGenerator<ArchiveRecord> {
    const { names, shards } = this.#source
    // What has no position is read by earlier versions, too.
    const v = selection.positions ? ARCHIVE_VERSION : 1
    const head: ArchiveHead = { v, namespace: names.ns, shards, at: at.toISOString() }
    yield { kind: 'archive', data: head }
    if (selection.positions) yield* this.#positions()
    if (selection.pieces) yield* this.#given(selection.pieces())
    else if (selection.runs) for (const run of selection.runs) yield* this.#named(run, selection.wanted.open)
    // The first one first: evaluations of sensors are there. What they have started in the others
    // stands there when they are folded.
    else
      for (let shard = 0; shard < shards; shard++)
        for await (const piece of piecesOfShard(this.#source, shard, selection.wanted, this.#seen)) {
          if ('open' in piece) this.open.push(piece.open)
          else yield* this.#piece(piece)
        }
    if (selection.related) yield* this.#relatedRuns()
    yield* this.#takenValues()
    if (selection.catalog) yield* this.#catalog()
  }

  async *#positions(): AsyncGenerator<ArchiveRecord> {
    for await (const { key, doc } of readPositions(this.#source)) {
      yield positionRecord(key, doc)
      const { value } = doc as Partial<SensorState>
      if (value) this.#taken.add(`${value.shard}.${value.seq}`)
      for (const ref of blobsIn({ contentType: undefined, payload: encodeJson(doc) })) yield* this.#blob(ref)
    }
  }

  async *#given(pieces: AsyncIterable<Piece>): AsyncGenerator<ArchiveRecord> {
    for await (const piece of pieces) {
      this.#seen.add(piece.run)
      yield* this.#piece(piece)
    }
  }

  /** Throws `not_found`, `pruned`, and `run_open` for a run that has not ended. */
  async *#named(run: string, mayBeOpen: boolean): AsyncGenerator<ArchiveRecord> {
    if (this.#seen.has(run)) return
    const isPossible = parseRunId(run).shard < this.#source.shards
    const found = isPossible ? await piecesOfRun(this.#source, run) : undefined
    if (!found) throw await missingRun(this.#source, run, 'export: ')
    if (found.doc.finishedMs === undefined && !mayBeOpen)
      throw new FlowStoneError(
        'run_open',
        `export: run ${run} has not ended; wait for it or cancel it, or take it as it is (--open, or open: true)`,
      )
    this.#seen.add(run)
    for await (const piece of found.pieces) yield* this.#piece(piece)
  }

  async *#piece({ shard, run, docs, facts }: Piece): AsyncGenerator<ArchiveRecord> {
    const { names } = this.#source
    const doc = docs[stateKey.run(run)] as RunState | undefined
    if (doc) yield* this.#beside(shard, doc)
    for (const [key, one] of Object.entries(docs)) yield documentRecord(shard, run, key, one)
    const refs: BlobRef[] = []
    for (const fact of facts) {
      yield factRecord(names.ns, shard, fact)
      refs.push(...blobsIn(fact))
      yield* this.#correlation(shard, fact)
    }
    for (const ref of refs) yield* this.#blob(ref)
  }

  /** What stands for itself: the pipeline that the run is of, and what it refers to. */
  async *#beside(shard: number, doc: RunState): AsyncGenerator<ArchiveRecord> {
    yield* this.#pipeline(shard, doc.pipeline, doc.version)
    for (const { value, status, from, redrive } of Object.values(doc.assets)) {
      if (redrive) this.#related.add(redrive.run)
      if (!value || status === 'materialized') continue
      if (from?.run !== undefined && this.#seen.has(from.run)) continue
      this.#taken.add(`${value.shard}.${value.seq}`)
    }
    if (doc.redrive) this.#related.add(doc.redrive.run)
    if (doc.given) this.#taken.add(`${doc.given.shard}.${doc.given.seq}`)
  }

  /** Its version, and the newest one, which a retry takes. */
  async *#pipeline(shard: number, pipeline: string, version: string): AsyncGenerator<ArchiveRecord> {
    for (const one of ['*', version]) {
      const name = `${shard} ${pipeline} ${one}`
      if (this.#pipelines.has(name)) continue
      this.#pipelines.add(name)
      const path = factPath('pipeline.registered', { pipeline, version: one })
      const found = await this.#lastUnder(shard, path)
      const own = found && parsePath(found.path)?.ids.version
      if (!found || own === undefined) continue
      if (one === '*') this.#pipelines.add(`${shard} ${pipeline} ${own}`)
      yield factRecord(this.#source.names.ns, shard, found)
    }
  }

  /** The fact by which a gate is found by its correlation key. */
  async *#correlation(shard: number, fact: SealedFact): AsyncGenerator<ArchiveRecord> {
    const parsed = parsePath(fact.path)
    if (parsed?.name !== 'gate.created') return
    const created = decode(fact.payload, fact.contentType)
    const hash: unknown =
      typeof created === 'object' && created !== null ? Reflect.get(created, 'correlationHash') : undefined
    if (typeof hash !== 'string') return
    const path = factPath('gate.correlated', { hash })
    const found = (await this.#lastUnder(shard, path)) ?? (await rawSealedUnder(this.#source, shard, path))
    if (!found) return
    const said = decode(found.payload, found.contentType)
    const { run, gate } = parsed.ids
    // Another gate may have the key by now.
    if (typeof said !== 'object' || said === null || Reflect.get(said, 'run') !== run) return
    if (Reflect.get(said, 'gate') === gate) yield factRecord(this.#source.names.ns, shard, found)
  }

  async *#blob(ref: BlobRef): AsyncGenerator<ArchiveRecord> {
    const name = blobName(ref)
    if (this.#blobsSeen.has(name)) return
    this.#blobsSeen.add(name)
    const bytes = await this.#blobs.get(name)
    // What a user's value says of itself need not be there.
    if (bytes) yield* blobRecords(ref, bytes)
  }

  /** Scatters that were redriven are read together with those before them. */
  async *#relatedRuns(): AsyncGenerator<ArchiveRecord> {
    for (const run of this.#related) {
      this.#related.delete(run)
      if (this.#seen.has(run)) continue
      const found = await piecesOfRun(this.#source, run)
      if (!found) continue
      this.#seen.add(run)
      for await (const piece of found.pieces) yield* this.#piece(piece)
      yield* this.#relatedRuns()
    }
  }

  async *#takenValues(): AsyncGenerator<ArchiveRecord> {
    for (const at of this.#taken) {
      const [shard = 0, seq = 0] = at.split('.').map(Number)
      yield* this.#reference(shard, seq)
    }
  }

  /** One fact of a run that is not in the archive. */
  async *#reference(shard: number, seq: number): AsyncGenerator<ArchiveRecord> {
    const { connection, names } = this.#source
    const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq }))
    const fact = message ? this.#factOf(message) : await rawSealedAt(this.#source, shard, seq)
    const run = fact && parsePath(fact.path)?.ids.run
    if (!fact || run === undefined || this.#seen.has(run)) return
    yield factRecord(names.ns, shard, fact, true)
    for (const ref of blobsIn(fact)) yield* this.#blob(ref)
  }

  async *#catalog(): AsyncGenerator<ArchiveRecord> {
    const { connection, names, shards } = this.#source
    for (let shard = 0; shard < shards; shard++) {
      const bucket = names.stateBucket(shard)
      const head = names.kvSubject(bucket, '')
      const info = await connection.read((nc) => streamInfo(nc, names.kvStream(bucket), `${head}asset.>`))
      const keys = Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(head.length))
      for (let i = 0; i < keys.length; i += ENTRIES_AT_ONCE) {
        const some = keys.slice(i, i + ENTRIES_AT_ONCE)
        const entries = await Promise.all(some.map((key) => readDoc(connection, names, bucket, key)))
        for (const [k, key] of some.entries()) {
          // The bucket's type of document follows from its key.
          const entry = entries[k] as CatalogEntry | undefined
          if (!entry || this.#seen.has(entry.run) || (await this.#isLeftOut(entry.run))) continue
          yield documentRecord(shard, undefined, key, entry)
          yield* this.#reference(entry.value.shard, entry.value.seq)
        }
      }
    }
  }

  /**
   * A run that has not ended, or that came later. Where positions go on, it is started again under
   * its id, and makes its values again. Of a run that is pruned only values are left: they are
   * taken along.
   */
  async #isLeftOut(run: string): Promise<boolean> {
    const { connection, names } = this.#source
    const bucket = names.stateBucket(parseRunId(run).shard)
    return (await readDoc(connection, names, bucket, stateKey.run(run))) !== undefined
  }

  async #lastUnder(shard: number, path: string): Promise<SealedFact | undefined> {
    const { connection, names } = this.#source
    const last_by_subj = names.fact(shard, path)
    const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
    return message && this.#factOf(message)
  }

  #factOf(message: StoredMessage): SealedFact | undefined {
    const path = this.#source.names.factPath(message.subject)
    return path === undefined ? undefined : storedFact(path, message)
  }
}
