/**
 * Reads what has left the log: runs that ended a while ago, sealed into packs of the history
 * bucket. streams/history.ts says what stands there, docs/decisions/history.md why.
 *
 * The rule for who writes about a run: look here first, then write within two minutes. The engine
 * takes facts off the log only some minutes after the index says where they are. So either this
 * finds them, or the log still refuses what may be there once.
 */
import { stateKey } from '../../projections/state.ts'
import { type Fact, isRepeatable, isUnder, parsePath } from '../../streams/facts.ts'
import {
  type HistoryManifest,
  historyKey,
  type IndexSegment,
  indexHash,
  packsIn,
  pageOf,
  type SealedFact,
  type SealedRun,
} from '../../streams/history.ts'
import { parseRunId } from '../../streams/ids.ts'
import { isInRanges } from '../../streams/retention.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import { readDoc, readDocIfAny } from './documents.ts'
import { inOrder, type Place, placesOf } from './in-order.ts'
import { directGetMany, leaderGet, type StoredMessage } from './nats.ts'
import { type HistorySource, readPack } from './packs.ts'
import { sealedFactIfAny } from './read-fact.ts'

/**
 * How long a process goes by the segments that it knows, at the most. What was sealed meanwhile is
 * still on the log. `NONE_MS`: where nothing was sealed yet.
 */
const MANIFEST_MS = 20_000
const NONE_MS = 250
/** Packs that are kept decoded. */
const PACKS_MAX = 4
/** Answers of the index that are kept. */
const NUMBERS_MAX = 256
const TRIES = 5

export type { HistorySource }

/** What of the history one process knows, for each shard. */
const known = new WeakMap<Connection, Map<string, ShardHistory>>()

export function historyOf({ connection, names }: HistorySource, shard: number): ShardHistory {
  const ofConnection = known.get(connection) ?? new Map<string, ShardHistory>()
  known.set(connection, ofConnection)
  const bucket = names.historyBucket(shard)
  const found = ofConnection.get(bucket) ?? new ShardHistory(connection, names, shard)
  ofConnection.set(bucket, found)
  return found
}

/** Whether a run has been sealed. Its facts may still be on the log. */
export async function isSealed(source: HistorySource, run: string): Promise<boolean> {
  const requested = `run.${run}.requested`
  for await (const { facts } of sealedParts(source, run)) if (facts.some(({ path }) => path === requested)) return true
  return false
}

/** The same for who would act on it: a run that was pruned a moment ago is not there any more. */
export async function isStillSealed(source: HistorySource, run: string): Promise<boolean> {
  if (!(await isSealed(source, run))) return false
  historyOf(source, parseRunId(run).shard).expire()
  return await isSealed(source, run)
}

/** Whether the history has anything of a run. */
export async function isInHistory(source: HistorySource, run: string): Promise<boolean> {
  for await (const _ of sealedParts(source, run)) return true
  return false
}

/**
 * What is sealed of a run, a pack at a time: of a large scatter there are many. Pruning moves parts
 * to later packs, so they come in no order. Only what has the document of the run comes first.
 */
export async function* sealedParts(source: HistorySource, run: string): AsyncGenerator<SealedRun> {
  yield* historyOf(source, parseRunId(run).shard).parts(run)
}

/** The last sealed fact of a run under a path, in which a token may be `*`. */
export async function sealedFact(source: HistorySource, run: string, path: string): Promise<Fact | undefined> {
  const { shard } = parseRunId(run)
  const isOnce = isOnceUnder(path)
  let last: SealedFact | undefined
  // The end of a run is mostly in its last pack.
  for await (const { facts } of historyOf(source, shard).partsNewestFirst(run)) {
    for (const fact of facts) if (fact.seq > (last?.seq ?? 0) && isUnder(fact.path, path)) last = fact
    if (last && isOnce) break
  }
  return last && sealedFactIfAny(source, shard, last)
}

/** Whether one fact may stand under a path, and no more. */
function isOnceUnder(path: string): boolean {
  const name = path.includes('*') ? undefined : parsePath(path)?.name
  return name !== undefined && !isRepeatable(name)
}

/** A fact that others refer to by its sequence: a value, what a run was given, outcomes. */
export async function sealedAt(source: HistorySource, shard: number, seq: number): Promise<Fact | undefined> {
  const fact = await rawSealedAt(source, shard, seq)
  return fact && sealedFactIfAny(source, shard, fact)
}

/** The same as it stood on the log. */
export async function rawSealedAt(source: HistorySource, shard: number, seq: number): Promise<SealedFact | undefined> {
  const runs = await historyOf(source, shard).packsWith(indexHash.seq(seq))
  for (const { facts } of runs) for (const fact of facts) if (fact.seq === seq) return fact
  return undefined
}

/** The last fact under a path that the index knows, such as that of a correlation key. */
export async function sealedUnder(source: HistorySource, shard: number, path: string): Promise<Fact | undefined> {
  const fact = await rawSealedUnder(source, shard, path)
  return fact && sealedFactIfAny(source, shard, fact)
}

/** The same as it stood on the log. */
export async function rawSealedUnder(
  source: HistorySource,
  shard: number,
  path: string,
): Promise<SealedFact | undefined> {
  const runs = await historyOf(source, shard).packsWith(indexHash.path(path))
  let newest: SealedFact | undefined
  for (const { facts } of runs)
    for (const fact of facts) if (fact.path === path && fact.seq > (newest?.seq ?? 0)) newest = fact
  return newest
}

/** A document of a run as it was when the run was sealed. */
export async function sealedDoc(source: HistorySource, run: string, key: string): Promise<unknown> {
  return await historyOf(source, parseRunId(run).shard).doc(run, key)
}

/** A document of a run: from the state, or from the history when the run is sealed. */
export async function runDoc(source: HistorySource, run: string, key: string, signal?: AbortSignal): Promise<unknown> {
  const { connection, names } = source
  const doc = await readDoc(connection, names, names.stateBucket(parseRunId(run).shard), key, signal)
  return doc ?? (await sealedDoc(source, run, key))
}

function foundBy(manifest: HistoryManifest | undefined): {
  readonly manifest: HistoryManifest | undefined
  /** Of a hash: the packs that may hold what has it. Of a run: where its facts are. */
  readonly of: Map<bigint, readonly number[]>
  readonly places: Map<bigint, readonly Place[]>
} {
  return { manifest, of: new Map(), places: new Map() }
}

export class ShardHistory {
  readonly #connection: Connection
  readonly #names: Names
  readonly #shard: number
  readonly #bucket: string
  #manifest: { untilMs: number; readonly read: Promise<HistoryManifest | undefined> } | undefined
  readonly #packs = new Map<number, Promise<readonly SealedRun[]>>()
  /** What was found by the segments of one manifest. */
  #numbers = foundBy(undefined)

  constructor(connection: Connection, names: Names, shard: number) {
    this.#connection = connection
    this.#names = names
    this.#shard = shard
    this.#bucket = names.historyBucket(shard)
  }

  /** As this process knows it: some seconds old. */
  async manifest(): Promise<HistoryManifest | undefined> {
    return await this.#segments()
  }

  /** The next one who asks reads the manifest. */
  expire(): void {
    this.#manifest = undefined
  }

  /** What has the document of the run comes first. */
  async *parts(run: string): AsyncGenerator<SealedRun> {
    const numbers = await this.#numbersOf(indexHash.run(run))
    const key = stateKey.run(run)
    // They are read again: all of them would be too much to hold.
    let before: number[] | undefined = []
    for (const n of numbers) {
      const parts = (await this.pack(n)).filter((part) => part.run === run)
      if (before && !parts.some((part) => key in part.docs)) {
        before.push(n)
        continue
      }
      yield* parts.toSorted((a, b) => Number(key in b.docs) - Number(key in a.docs))
      for (const m of before ?? []) yield* (await this.pack(m)).filter((part) => part.run === run)
      before = undefined
    }
    for (const n of before ?? []) yield* (await this.pack(n)).filter((part) => part.run === run)
  }

  /** Those of the newest pack first. */
  async *partsNewestFirst(run: string): AsyncGenerator<SealedRun> {
    for (const n of (await this.#numbersOf(indexHash.run(run))).toReversed())
      yield* (await this.pack(n)).filter((part) => part.run === run)
  }

  /** Facts of a run behind a sequence, in order, each once. */
  async *facts(run: string, after = 0): AsyncGenerator<SealedFact> {
    const hash = indexHash.run(run)
    const { packs, found } = await this.#find(hash)
    const read = async (n: number): Promise<SealedFact[]> =>
      (await this.pack(n)).flatMap((part) => (part.run === run ? part.facts : []))
    // Beside those packs: another manifest may be known by now.
    const known = found.places
    const places = known.get(hash) ?? (await placesOf(packs, read))
    known.set(hash, places)
    yield* inOrder(places, read, after)
  }

  async doc(run: string, key: string): Promise<unknown> {
    const ofRun = await this.#numbersOf(indexHash.run(run))
    // Of what is in several packs, documents may be found by their name.
    const named = ofRun.length > 1 ? await this.#numbersOf(indexHash.doc(key)) : []
    for (const n of new Set([...named, ...ofRun]))
      for (const part of await this.pack(n)) if (part.run === run && key in part.docs) return part.docs[key]
    return undefined
  }

  /** The content of all packs that may hold what has this hash. */
  async packsWith(hash: bigint): Promise<readonly SealedRun[]> {
    const packs = await Promise.all((await this.#numbersOf(hash)).map((n) => this.pack(n)))
    return packs.flat()
  }

  async #numbersOf(hash: bigint): Promise<readonly number[]> {
    return (await this.#find(hash)).packs
  }

  /** The packs that may hold what has this hash, and what was found by the same manifest. */
  async #find(
    hash: bigint,
  ): Promise<{ readonly packs: readonly number[]; readonly found: ReturnType<typeof foundBy> }> {
    for (let attempt = 1; ; attempt++) {
      const manifest = await this.#segments()
      if (this.#numbers.manifest !== manifest) this.#numbers = foundBy(manifest)
      const found = this.#numbers
      const { of, places } = found
      const known = of.get(hash)
      if (known) return { packs: known, found }
      const segments = (manifest?.levels ?? []).filter((level) => level !== null)
      if (segments.length === 0) return { packs: [], found }
      const gone = manifest?.gone ?? []
      const packs = (await this.#packNumbers(segments, hash))?.filter((pack) => !isInRanges(gone, pack))
      if (packs) {
        if (of.size >= NUMBERS_MAX) for (const map of [of, places]) map.clear()
        of.set(hash, packs)
        return { packs, found }
      }
      // Segments were merged since they were read.
      this.#manifest = undefined
      if (attempt >= TRIES) throw new Error(`the index of ${this.#bucket} lacks a page`)
    }
  }

  async #segments(): Promise<HistoryManifest | undefined> {
    const known = this.#manifest
    if (known && performance.now() < known.untilMs) return await known.read
    const startedMs = performance.now()
    const read = this.#doc(historyKey.manifest).then((doc) => doc as HistoryManifest | undefined)
    const asked = { untilMs: startedMs + NONE_MS, read }
    this.#manifest = asked
    try {
      const manifest = await read
      if (manifest) asked.untilMs = startedMs + Math.min(MANIFEST_MS, manifest.graceMs / 4)
      return manifest
    } catch (error) {
      if (this.#manifest === asked) this.#manifest = undefined
      throw error
    }
  }

  /** Undefined when a page is not there any more. */
  async #packNumbers(segments: readonly IndexSegment[], hash: bigint): Promise<number[] | undefined> {
    const stream = this.#names.kvStream(this.#bucket)
    const subjects = segments.map(({ id, bits }) =>
      this.#names.kvSubject(this.#bucket, historyKey.page(id, pageOf(hash, bits))),
    )
    const there = await this.#connection.read((nc) => directGetMany(nc, stream, subjects))
    const packs = new Set<number>()
    for (const subject of subjects) {
      let page: StoredMessage | undefined = there.get(subject)
      page ??= await this.#connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
      if (!page || page.headers.has('KV-Operation')) return undefined
      for (const pack of packsIn(page.payload, hash)) packs.add(pack)
    }
    return [...packs].sort((a, b) => a - b)
  }

  /** What a pack holds; nothing where it is gone. */
  pack(n: number): Promise<readonly SealedRun[]> {
    const found = this.#packs.get(n)
    if (found) return found
    const source = { connection: this.#connection, names: this.#names }
    const read = readPack(source, this.#shard, n).then((runs) => runs ?? [])
    this.#packs.set(n, read)
    read.catch(() => this.#packs.delete(n))
    for (const oldest of this.#packs.keys()) {
      if (this.#packs.size <= PACKS_MAX) break
      this.#packs.delete(oldest)
    }
    return read
  }

  async #doc(key: string): Promise<unknown> {
    return await readDocIfAny(this.#connection, this.#names, this.#bucket, key)
  }
}
