/**
 * Reads the results of a closed scatter back from the log, in the order of the keys, never all in memory: an index of 12 bytes an instance says in which
 * fact each result stands, and facts are kept while there is room.
 */
import { FlowStoneError } from '../../streams/errors.ts'
import { factPath } from '../../streams/facts.ts'
import type { AssetName, RunId } from '../../streams/ids.ts'
import type { ScatterOutcomes } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { ScatterResult } from '../define/asset.ts'
import type { Io } from '../io/manager.ts'
import type { Connection } from '../log/connection.ts'
import { directGet, leaderGet } from '../log/nats.ts'
import { Reader } from '../log/reader.ts'
import { factIfAny, factOf, type Values } from './values.ts'

const CACHE_BYTES = 16 * 1024 * 1024

export interface GatherSource {
  readonly connection: Connection
  readonly names: Names
  readonly io: Io
  readonly values: Values
  readonly p: number
  readonly run: RunId
  readonly asset: AssetName
}

export async function* readResults(source: GatherSource): AsyncGenerator<ScatterResult<unknown, unknown>> {
  const { names, p, run, asset, connection } = source
  const stream = names.log(p)
  const closed = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: names.fact(p, factPath('scatter.closed', { run, asset })) }))
  const fact = closed && factOf(names, p, closed)
  if (fact?.name !== 'scatter.closed') throw new FlowStoneError('not_closed', `scatter ${run}.${asset} is not closed`)
  const total = fact.data.total ?? 0
  if (total === 0) return
  const cache = new OutcomeCache(source)
  const index = await buildIndex(source, cache, total, fact.seq)

  let slab = await source.values.slab(p, run, asset, 0)
  for (let i = 0; i < total; i++) {
    if (i >= slab.offset + slab.keys.length) slab = await source.values.slab(p, run, asset, i)
    const key = slab.keys[i - slab.offset]
    const seq = index.seqs[i] ?? 0
    if (seq === 0) throw new FlowStoneError('missing_result', `scatter ${run}.${asset}: the result of instance ${i} is not on the log`)
    const outcomes = cache.peek(seq) ?? (await cache.get(seq))
    const k = index.positions[i] ?? 0
    const ref = outcomes.refs?.find(([position]) => position === k)
    const value = ref ? await source.io.load(ref[1]) : outcomes.values[k]
    yield { key, index: i, status: 'ok', value }
  }
}

interface ResultIndex {
  /** Sequence of the fact that holds the result of instance i; 0: none. Sequences pass 2^32, so doubles. */
  readonly seqs: Float64Array
  readonly positions: Uint32Array
}

/** The first success of an index counts: the rule of the barrier's fold. */
async function buildIndex(source: GatherSource, cache: OutcomeCache, total: number, closedSeq: number): Promise<ResultIndex> {
  const index = { seqs: new Float64Array(total), positions: new Uint32Array(total) }
  const { names, p, run, asset, connection } = source
  const stream = names.log(p)
  const subject = names.fact(p, factPath('scatter.outcomes', { run, asset }))
  const last = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
  const startedAt = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: names.fact(p, factPath('scatter.started', { run, asset })) }))
  if (!last) return index
  const reader = new Reader(connection, stream, startedAt?.seq ?? 1, subject)
  const end = Math.min(last.seq, closedSeq)
  try {
    for (let seq = 0; seq < end; ) {
      const messages = await reader.take(1000)
      if (messages.length === 0) throw new FlowStoneError('closed', 'the connection was closed during a gather')
      for (const message of messages) {
        seq = message.seq
        if (seq > closedSeq) break
        const fact = factIfAny(names, p, message)
        if (fact?.name !== 'scatter.outcomes') continue
        cache.put(seq, fact.data, message.payload.length)
        const failed = new Set(fact.data.errors?.map(([k]) => k))
        for (const [k, i] of fact.data.at.entries()) {
          if (i >= total || index.seqs[i] !== 0 || failed.has(k)) continue
          index.seqs[i] = seq
          index.positions[i] = k
        }
      }
    }
  } finally {
    reader.stop()
  }
  return index
}

/** Outcome facts by sequence, oldest use dropped first, within a bound in bytes. */
class OutcomeCache {
  readonly #source: GatherSource
  readonly #entries = new Map<number, { outcomes: ScatterOutcomes; bytes: number }>()
  #bytes = 0

  constructor(source: GatherSource) {
    this.#source = source
  }

  peek(seq: number): ScatterOutcomes | undefined {
    return this.#entries.get(seq)?.outcomes
  }

  put(seq: number, outcomes: ScatterOutcomes, bytes: number): void {
    this.#entries.set(seq, { outcomes, bytes })
    this.#bytes += bytes
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= CACHE_BYTES || oldest === seq) break
      this.#entries.delete(oldest)
      this.#bytes -= entry.bytes
    }
  }

  async get(seq: number): Promise<ScatterOutcomes> {
    const { connection, names, p } = this.#source
    const message = await connection.read((nc) => directGet(nc, names.log(p), { seq }))
    const fact = message && factOf(names, p, message)
    if (fact?.name !== 'scatter.outcomes') throw new FlowStoneError('missing_result', `message ${seq} of ${names.log(p)} holds no outcomes`)
    this.put(seq, fact.data, message?.payload.length ?? 0)
    return fact.data
  }
}
