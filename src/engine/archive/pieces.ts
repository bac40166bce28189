/**
 * Runs as they stand on logs, in states and in the history: their documents and their facts, in
 * pieces of about a megabyte.
 */
import type { RunState } from '../../../projections/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { decode } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { decodeFact, isTimer, parsePath } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { parseRunId } from '../../../streams/ids.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { readDoc } from '../../log/documents.ts'
import { isSealed, sealedDoc, sealedParts } from '../../log/history.ts'
import { streamBounds } from '../../log/nats.ts'
import { storedFact } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import { rawRunFacts } from '../../log/run-facts.ts'
import { documentsOf, readDocuments } from '../history/run-documents.ts'
import { untilFolded } from '../shard/until-folded.ts'
import { PackedRuns } from './packed.ts'
import type { Piece, PieceSource, Wanted } from './piece.ts'

const PIECE_BYTES = 1024 * 1024
/** Facts of runs on the log that are held until their runs are whole. */
const HELD_BYTES = 64 * 1024 * 1024
const TAKE = 1000
const RUNS_AT_ONCE = 32

/** All that there is of one run; undefined where there is none. */
export async function piecesOfRun(
  source: PieceSource,
  run: string,
): Promise<{ readonly doc: RunState; readonly pieces: AsyncGenerator<Piece> } | undefined> {
  const { connection, names } = source
  const { shard } = parseRunId(run)
  const key = stateKey.run(run)
  if (await isSealed(source, run)) {
    const doc = await sealedDoc(source, run, key)
    return doc ? { doc: doc as RunState, pieces: sealedPieces(source, shard, run) } : undefined
  }
  const { last } = await untilFolded(source, shard)
  // The bucket's type of document follows from its key.
  const doc = (await readDoc(connection, names, names.stateBucket(shard), key)) as RunState | undefined
  if (doc) return { doc, pieces: unsealedPieces(source, shard, doc, last) }
  const sealed = await sealedDoc(source, run, key)
  return sealed ? { doc: sealed as RunState, pieces: sealedPieces(source, shard, run) } : undefined
}

async function* sealedPieces(source: PieceSource, shard: number, run: string): AsyncGenerator<Piece> {
  let last = 0
  for await (const { docs, facts } of sealedParts(source, run)) {
    last = Math.max(last, ...facts.map(({ seq }) => seq))
    yield { shard, run, docs, facts }
  }
  // What came late is still on the log.
  yield* split({ shard, run }, behind(last, rawRunFacts(source, shard, run)))
}

async function* behind(seq: number, facts: AsyncIterable<SealedFact>): AsyncGenerator<SealedFact> {
  for await (const fact of facts) if (fact.seq > seq) yield fact
}

async function* unsealedPieces(source: PieceSource, shard: number, doc: RunState, last: number): AsyncGenerator<Piece> {
  yield* documentPieces(source, shard, doc, undefined)
  yield* split({ shard, run: doc.id }, rawRunFacts(source, shard, doc.id, last))
}

async function* split(
  of: { readonly shard: number; readonly run: string },
  read: AsyncIterable<SealedFact>,
): AsyncGenerator<Piece> {
  let facts: SealedFact[] = []
  let bytes = 0
  for await (const fact of read) {
    if (!isFact(of.shard, fact)) continue
    facts.push(fact)
    bytes += fact.payload.length
    if (bytes < PIECE_BYTES) continue
    yield { ...of, docs: {}, facts }
    facts = []
    bytes = 0
  }
  if (facts.length > 0) yield { ...of, docs: {}, facts }
}

/** Engines step over what is no fact of ours: it is in no pack either. */
function isFact(shard: number, fact: SealedFact): boolean {
  try {
    decodeFact({ ...fact, shard })
    return true
  } catch (error) {
    if (!(error instanceof FlowStoneError)) throw error
    return error.code === 'newer_version'
  }
}

/** The documents that a pack would have. `facts`: undefined when they are many. */
async function* documentPieces(
  { connection, names }: PieceSource,
  shard: number,
  doc: RunState,
  facts: readonly SealedFact[] | undefined,
): AsyncGenerator<Piece> {
  const of = { shard, run: doc.id }
  const store = new StateDocuments(connection, names, names.stateBucket(shard))
  const { docs, more } = await documentsOf(store, doc, facts)
  yield { ...of, docs, facts: facts ?? [] }
  for await (const [key, read] of readDocuments(store, more)) yield { ...of, docs: { [key]: read }, facts: [] }
}

/** As a fold has them, for one look. */
class StateDocuments {
  readonly #docs = new Map<string, unknown>()
  readonly #connection: Connection
  readonly #names: Names
  readonly #bucket: string

  constructor(connection: Connection, names: Names, bucket: string) {
    this.#connection = connection
    this.#names = names
    this.#bucket = bucket
  }

  has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: string & { readonly __doc?: D }): D | undefined {
    // The key's type says what is stored under it.
    return this.#docs.get(key) as D | undefined
  }

  async load(keys: readonly string[]): Promise<void> {
    await Promise.all(keys.map(async (key) => this.#docs.set(key, await this.read(key))))
  }

  async read<D>(key: string & { readonly __doc?: D }): Promise<D | undefined> {
    // As above.
    return (await readDoc(this.#connection, this.#names, this.#bucket, key)) as D | undefined
  }
}

/**
 * The runs of a shard that are wanted: those that are sealed, then those on the log. `seen` has the
 * runs that were yielded. Runs that are sealed meanwhile are found in either place.
 */
export async function* piecesOfShard(
  source: PieceSource,
  shard: number,
  wanted: Wanted,
  seen: Set<string>,
): AsyncGenerator<Piece | { readonly open: string }> {
  const packed = new PackedRuns(source, shard, wanted, seen)
  yield* packed.next()
  yield* loggedPieces(source, shard, wanted, seen, packed)
  // Packs that were written meanwhile have runs that had left the log when it was read.
  while (yield* packed.next());
}

/** A run on the log, and those of its facts that were not yielded yet. */
interface Held {
  /** Undefined: they are too many, and are read again when the run ends. */
  facts: SealedFact[] | undefined
  bytes: number
  hasEnded: boolean
  isYielded: boolean
}

async function* loggedPieces(
  source: PieceSource,
  shard: number,
  wanted: Wanted,
  seen: Set<string>,
  packed: PackedRuns,
): AsyncGenerator<Piece | { readonly open: string }> {
  const { connection, names } = source
  const { last } = await untilFolded(source, shard)
  const { first } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const held = new Map<string, Held>()
  let bytes = 0
  const reader = new Reader(connection, names.log(shard), Math.max(1, first), { onDenied: 'throw' })
  try {
    for (let at = first - 1; at < last; ) {
      const messages = await reader.take(TAKE, last)
      if (messages.length === 0) break
      for (const message of messages) {
        at = message.seq
        const path = names.factPath(message.subject)
        if (at > last || path === undefined || isTimer(path)) continue
        const fact = storedFact(path, message)
        if (isFact(shard, fact)) bytes += holdFact(held, fact, wanted, seen)
      }
      if (bytes < HELD_BYTES) continue
      yield* endedPieces(source, shard, last, held, seen)
      bytes = 0
      for (const one of held.values()) {
        if (!one.isYielded) one.facts = undefined
        one.bytes = 0
      }
    }
  } finally {
    reader.stop()
  }
  yield* endedPieces(source, shard, last, held, seen)
  for (const [run, { hasEnded }] of held) {
    if (hasEnded) continue
    if (wanted.open) {
      const found = await piecesOfRun(source, run)
      if (found) yield* found.pieces
      seen.add(run)
    } else yield { open: run }
  }
  packed.leave(
    [...held.keys()].filter((run) => seen.has(run)),
    last,
  )
}

/** Returns the bytes that it holds now. */
function holdFact(held: Map<string, Held>, fact: SealedFact, wanted: Wanted, seen: Set<string>): number {
  const parsed = parsePath(fact.path)
  const run = parsed?.ids.run
  if (!parsed || run === undefined) return 0
  let one = held.get(run)
  if (!one) {
    if (parsed.name !== 'run.requested' || seen.has(run) || !isRequestWanted(fact, wanted)) return 0
    one = { facts: [], bytes: 0, hasEnded: false, isYielded: false }
    held.set(run, one)
  }
  if (parsed.name === 'run.finished') one.hasEnded = true
  if (!one.facts) return 0
  one.facts.push(fact)
  one.bytes += fact.payload.length
  return fact.payload.length
}

function isRequestWanted({ payload, contentType, timeMs }: SealedFact, wanted: Wanted): boolean {
  if (timeMs < wanted.sinceMs || timeMs >= wanted.untilMs) return false
  if (!wanted.pipelines) return true
  const body = decode(payload, contentType)
  const pipeline: unknown = typeof body === 'object' && body !== null ? Reflect.get(body, 'pipeline') : undefined
  return typeof pipeline === 'string' && wanted.pipelines.has(pipeline)
}

/** Runs that have ended. What comes of them later comes as another piece. */
async function* endedPieces(
  source: PieceSource,
  shard: number,
  last: number,
  held: Map<string, Held>,
  seen: Set<string>,
): AsyncGenerator<Piece> {
  const ended = [...held].filter(([, { hasEnded }]) => hasEnded)
  for (let i = 0; i < ended.length; i += RUNS_AT_ONCE) {
    const some = ended.slice(i, i + RUNS_AT_ONCE)
    const pieces = await Promise.all(some.map(([run, one]) => endedRun(source, shard, last, run, one)))
    for (const [k, [run]] of some.entries()) {
      yield* pieces[k] ?? []
      seen.add(run)
    }
  }
}

async function endedRun(
  source: PieceSource,
  shard: number,
  last: number,
  run: string,
  one: Held,
): Promise<AsyncIterable<Piece> | Iterable<Piece>> {
  const { connection, names } = source
  const { facts } = one
  if (one.isYielded) {
    one.facts = []
    return facts && facts.length > 0 ? [{ shard, run, docs: {}, facts }] : []
  }
  one.isYielded = true
  one.facts = []
  const key = stateKey.run(run)
  const doc = (await readDoc(connection, names, names.stateBucket(shard), key)) as RunState | undefined
  // Sealed a moment ago.
  if (!doc) return sealedPieces(source, shard, run)
  if (doc.finishedMs === undefined) throw stateBehind(shard, run)
  if (facts) return documentPieces(source, shard, doc, facts)
  return unsealedPieces(source, shard, doc, last)
}

function stateBehind(shard: number, run: string): FlowStoneError {
  return new FlowStoneError(
    'state_behind',
    `run ${run} has ended, and the state of shard ${shard} does not show it yet; start an engine, then export again`,
  )
}
