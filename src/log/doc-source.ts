/**
 * Where those who only read get documents and facts from: the present, or a time in the past
 * (past/). So there is one code for both.
 */
import { type Fact, type FactName, type FactOf, factPath } from '../../streams/facts.ts'
import type { RunId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { partsSaid } from './document-parts.ts'
import { decodeDoc, readDoc, readDocIfAny } from './documents.ts'
import { type HistorySource, runDoc } from './history.ts'
import { directGetMany, type StoredMessage } from './nats.ts'
import { lastOfRun } from './run-fact.ts'
import { runFacts } from './run-facts.ts'

export interface DocSource {
  /** A document of the state of a shard. The type of document follows from its key. */
  read(shard: number, key: string, signal?: AbortSignal): Promise<unknown>
  /** A document of a run, also of one that is sealed. */
  ofRun(run: string, key: string, signal?: AbortSignal): Promise<unknown>
  /** Those that a replica has, which may lag a moment. */
  many(shard: number, keys: readonly string[]): Promise<ReadonlyMap<string, unknown>>
  /** Keys of the state that begin so. The prefix ends in a dot. */
  keys(shard: number, prefix: string): Promise<string[]>
  /** A document of the base, where lists show runs that are sealed. */
  ofBase(shard: number, key: string): Promise<unknown>
  /** The last fact of a run under a path, in which tokens may be `*`. */
  lastOfRun(run: string, path: string): Promise<Fact | undefined>
  /** All facts of a run, in order. */
  factsOfRun(run: RunId): AsyncGenerator<Fact>
  /** Undefined: now. */
  readonly past?: Past
}

/** A time in the past. */
export interface Past {
  /** The server's time of what was folded last. Known once the namespace is found. */
  readonly timeMs: number
  /** Of a shard: the sequence up to which all is folded. */
  seqOf(shard: number): Promise<number>
  /** Whether a fact was there by then. */
  has(fact: Pick<Fact, 'shard' | 'seq' | 'timeMs'>): boolean
}

export function liveSource(source: HistorySource): DocSource {
  const { connection, names } = source
  return {
    read: (shard, key, signal) => readDoc(connection, names, names.stateBucket(shard), key, signal),
    ofRun: (run, key, signal) => runDoc(source, run, key, signal),
    many: async (shard, keys) => {
      const bucket = names.stateBucket(shard)
      const subjects = keys.map((key) => names.kvSubject(bucket, key))
      const there =
        keys.length < 2
          ? new Map<string, StoredMessage>()
          : await connection.read((nc) => directGetMany(nc, names.kvStream(bucket), subjects))
      const found = keys.flatMap((key, i) => {
        const message = there.get(subjects[i] ?? '')
        return message && partsSaid(message) === 1 ? [[key, decodeDoc(key, message)] as const] : []
      })
      return new Map(found)
    },
    keys: async (shard, prefix) => {
      const bucket = names.stateBucket(shard)
      const jsm = await jetstreamManager(connection.nc)
      const filter = names.kvSubject(bucket, `${prefix}>`)
      const info = await connection.read(() => jsm.streams.info(names.kvStream(bucket), { subjects_filter: filter }))
      const before = names.kvSubject(bucket, '').length
      return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(before))
    },
    ofBase: (shard, key) => readDocIfAny(connection, names, names.historyBucket(shard), key),
    lastOfRun: (run, path) => lastOfRun(source, run, path),
    factsOfRun: (run) => runFacts(source, run),
  }
}

/** As `runFact`, of this source. */
export async function factIn<N extends FactName>(
  docs: Pick<DocSource, 'lastOfRun'>,
  run: string,
  name: N,
  ids: Readonly<Record<string, string>> = { run },
): Promise<FactOf<N> | undefined> {
  const fact = await docs.lastOfRun(run, factPath(name, ids))
  // The name tells which fact it is; the compiler does not see that through the type parameter.
  return fact?.name === name ? (fact as FactOf<N>) : undefined
}
