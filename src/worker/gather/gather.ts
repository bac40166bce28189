/**
 * Reads the results of a closed scatter back from the log, in the order of the keys. They are never
 * all in memory. An index of 6 bytes an instance says in which fact each result is, and facts are
 * kept while there is room.
 */

import { isDone, isFailed, segmentOf } from '../../../projections/scatter/bits.ts'
import { FAILURES_PER_CHUNK, lostError } from '../../../projections/scatter/instances.ts'
import type { FailureChunk } from '../../../projections/scatter/state.ts'
import { ENGINE_KEY, stateKey } from '../../../projections/state.ts'
import { FlowStoneError, TerminalError } from '../../../streams/errors.ts'
import { type FactOf, factPath } from '../../../streams/facts.ts'
import { parseRunId } from '../../../streams/ids.ts'
import { type ListReader, readList } from '../../../streams/list.ts'
import type { ScatterOutcomes } from '../../../streams/scatter-schemas.ts'
import { type ErrorView, viewOfError } from '../../../streams/thrown.ts'
import type { FailureMode, Gathered } from '../../define/asset-type.ts'
import { redriveOf } from '../../engine/shard/earlier.ts'
import { readDoc } from '../../log/documents.ts'
import { runDoc, sealedParts } from '../../log/history.ts'
import { leaderGet } from '../../log/nats.ts'
import { factIfAny, sealedFactIfAny } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import { runFact } from '../../log/run-fact.ts'
import { onAbort } from '../../options/abort.ts'
import { flat } from '../scatter/flat.ts'
import { OutcomeCache } from './outcome-cache.ts'
import type { GatherSource } from './source.ts'

const BATCH_RESULTS = 128
/** Looks at a state bucket that is behind, up to half a second apart. */
const STATE_LOOKS = 200

export type AnyResult = Gathered<unknown, unknown, FailureMode>

/** Where a run that redrives a scatter gets the rest from: the scatter it goes on with. */
export async function originOf(source: GatherSource): Promise<GatherSource | undefined> {
  const { run, asset } = source
  const fact = await runFact(source, run, 'run.requested')
  const redrive = fact && (await redriveOf(source, fact, asset))
  if (!redrive) return undefined
  const origin = parseRunId(redrive.run)
  return { ...source, run: origin.id, shard: origin.shard }
}

/**
 * Results of a scatter with those that its redrives brought, in the order of the first one's keys.
 */
export async function readMerged(source: GatherSource): Promise<AsyncGenerator<AnyResult>> {
  const origin = await originOf(source)
  return origin ? merged(source, origin) : readResults(source)
}

async function* merged(source: GatherSource, origin: GatherSource): AsyncGenerator<AnyResult> {
  const redriven = readResults(source)
  for await (const result of await readMerged(origin)) {
    if (result.status === 'ok') {
      yield result
      continue
    }
    const next = await redriven.next()
    if (next.done)
      throw new FlowStoneError(
        'missing_result',
        `the redrive ${source.run}.${source.asset} has no result for instance ${result.index}`,
      )
    yield { ...next.value, index: result.index }
  }
  if (!(await redriven.next()).done)
    throw new FlowStoneError(
      'missing_result',
      `the redrive ${source.run}.${source.asset} has more results than there were instances to run again`,
    )
}

/** Keys of what did not succeed, in order: what a redrive scatters over. */
export async function* remainingKeys(origin: GatherSource): AsyncGenerator<unknown> {
  for await (const result of await readMerged(origin)) if (result.status === 'failed') yield result.key
}

/** A failed instance, with how often it was executed. */
export interface ReadFailure {
  readonly key: unknown
  readonly index: number
  readonly error: ErrorView
  readonly attempts: number
}

/** Instances of a closed scatter that failed for good, in order. */
export async function* readFailures(source: GatherSource, total: number): AsyncGenerator<ReadFailure> {
  const { shard, run, asset, values } = source
  const closed = await runFact(source, run, 'scatter.closed', { run, asset })
  if (!closed) throw new FlowStoneError('not_closed', `scatter ${run}.${asset} is not closed`)
  const cache = new OutcomeCache(source)
  const ends = new InstanceEnds(source, closed.seq)
  let keyChunk = total > 0 ? await values.keyChunk(shard, run, asset, 0) : undefined
  for (let index = 0; keyChunk && index < total; index++) {
    // Chunk by chunk: only where one ends is known where the next begins.
    if (index >= keyChunk.end) keyChunk = await values.keyChunk(shard, run, asset, index)
    if (!(await ends.hasFailed(index))) continue
    yield { index, key: keyChunk.key(index), ...(await failureOf(source, await ends.why(index), cache, index)) }
  }
}

export function readResults(source: GatherSource): AsyncGenerator<AnyResult> {
  return flat(readBatches(source))
}

async function* readBatches(source: GatherSource): AsyncGenerator<AnyResult[]> {
  const { shard, run, asset } = source
  const fact = await runFact(source, run, 'scatter.closed', { run, asset })
  if (!fact) throw new FlowStoneError('not_closed', `scatter ${run}.${asset} is not closed`)
  const { total } = fact.data
  if (total === undefined)
    // Never fewer results than there are instances: nobody knows how many those are.
    throw new TerminalError(
      `scatter ${run}.${asset} ended (${fact.data.status}) before all of its keys were known, so it has no list of results; materialize its asset anew`,
    )
  if (total === 0) return
  const cache = new OutcomeCache(source)
  const index = await buildIndex(source, cache, total, fact.seq)
  const whole = fact.data.status === 'completed'
  const ends = whole ? undefined : new InstanceEnds(source, fact.seq)

  let keyChunk = await source.values.keyChunk(shard, run, asset, 0)
  let batch: AnyResult[] = []
  for (let i = 0; i < total; i++) {
    if (batch.length >= BATCH_RESULTS) {
      yield batch
      batch = []
    }
    if (i >= keyChunk.end) keyChunk = await source.values.keyChunk(shard, run, asset, i)
    const key = keyChunk.key(i)
    if (ends && !(await ends.isDone(i))) {
      const message = `the scatter ended (${fact.data.status}) before instance ${i} had`
      batch.push({ key, index: i, status: 'failed', error: { code: 'not_run', message } })
      continue
    }
    if (ends && (await ends.hasFailed(i))) {
      batch.push({
        key,
        index: i,
        status: 'failed',
        error: (await failureOf(source, await ends.why(i), cache, i)).error,
      })
      continue
    }
    const seq = index.seq(i)
    if (seq === 0)
      throw new FlowStoneError(
        'missing_result',
        `scatter ${run}.${asset}: the result of instance ${i} is not on the log`,
      )
    const outcomes = cache.take(seq) ?? (await cache.get(seq))
    const k = index.position(i)
    const ref = outcomes.refs?.find(([position]) => position === k)
    if (!ref) {
      batch.push({ key, index: i, status: 'ok', value: valuesOf(outcomes).item(k) })
      continue
    }
    // Such a value may be large: it waits for nobody, and nobody holds it but who asked.
    yield batch
    batch = []
    yield [{ key, index: i, status: 'ok', value: await source.io.load(ref[1], source.signal) }]
  }
  yield batch
}

/**
 * Which fact holds the result of each instance, and where in it: six bytes an instance. A fact
 * holds the outcomes of a lease at the most, which are a thousand.
 */
class ResultIndex {
  /** One more than its place in `#seqs`; 0: none. */
  readonly #facts: Uint32Array
  readonly #positions: Uint16Array
  readonly #seqs: number[] = []

  constructor(total: number) {
    this.#facts = new Uint32Array(total)
    this.#positions = new Uint16Array(total)
  }

  /** Of the fact with the result of instance i; 0: none. */
  seq(i: number): number {
    return this.#seqs[(this.#facts[i] ?? 0) - 1] ?? 0
  }

  position(i: number): number {
    return this.#positions[i] ?? 0
  }

  /**
   * The first success of an index counts: the rule of the barrier's fold. Facts of a sealed run
   * come in any order.
   */
  addFact(seq: number, { at, errors = [], suspended = [] }: ScatterOutcomes): void {
    const none = new Set([...errors, ...suspended].map(([k]) => k))
    const fact = this.#seqs.push(seq)
    for (let k = 0; k < at.length && k <= POSITION_MAX; k++) {
      const i = at[k]
      if (i === undefined || i >= this.#facts.length || (this.#facts[i] !== 0 && this.seq(i) < seq)) continue
      if (none.size > 0 && none.has(k)) continue
      this.#facts[i] = fact
      this.#positions[i] = k
    }
  }
}

const POSITION_MAX = 0xffff

/** The error that counted as the end of an instance, and how often that was executed. */
async function failureOf(
  { run, asset }: GatherSource,
  why: FailureChunk['at'][number] | undefined,
  cache: OutcomeCache,
  i: number,
): Promise<Pick<ReadFailure, 'error' | 'attempts'>> {
  if (!why)
    throw new FlowStoneError('missing_result', `scatter ${run}.${asset}: no error of instance ${i} is on record`)
  const [, seq, attempt] = why
  if (attempt !== undefined) return { error: lostError(i, attempt), attempts: attempt }
  const outcomes = cache.take(seq) ?? (await cache.get(seq))
  const found = outcomes.errors?.find(([k]) => outcomes.at[k] === i)
  if (!found) throw new FlowStoneError('missing_result', `message ${seq} of the log holds no error of instance ${i}`)
  return { error: viewOfError(found[1].error), attempts: outcomes.ordinal }
}

/**
 * Which instances ended, and why those failed that did: what the state bucket says, read while that
 * has come as far as scatter.closed. A bucket that is made anew just now says less for a while, so
 * its position is looked at before and after.
 */
class InstanceEnds {
  readonly #source: GatherSource
  readonly #closedSeq: number
  #segment: { n: number; bits: Uint8Array | undefined } | undefined
  #failures: { n: number; at: ReadonlyMap<number, FailureChunk['at'][number]> } | undefined

  constructor(source: GatherSource, closedSeq: number) {
    this.#source = source
    this.#closedSeq = closedSeq
  }

  async hasFailed(i: number): Promise<boolean> {
    const bits = await this.#bits(i)
    return bits !== undefined && isFailed(bits, i)
  }

  async isDone(i: number): Promise<boolean> {
    const bits = await this.#bits(i)
    return bits !== undefined && isDone(bits, i)
  }

  async why(i: number): Promise<FailureChunk['at'][number] | undefined> {
    const n = Math.floor(i / FAILURES_PER_CHUNK)
    if (this.#failures?.n !== n) {
      const { run, asset } = this.#source
      // The bucket's type of document follows from its key.
      const chunk = (await this.#read(stateKey.failures(run, asset, n))) as FailureChunk | undefined
      this.#failures = { n, at: new Map(chunk?.at.map((entry) => [entry[0], entry])) }
    }
    return this.#failures.at.get(i)
  }

  async #bits(i: number): Promise<Uint8Array | undefined> {
    const n = segmentOf(i)
    if (this.#segment?.n !== n) {
      const { run, asset } = this.#source
      const bits = await this.#read(stateKey.segment(run, asset, n))
      this.#segment = { n, bits: bits instanceof Uint8Array ? bits : undefined }
    }
    return this.#segment.bits
  }

  async #read(key: string): Promise<unknown> {
    const { connection, names, shard, run } = this.#source
    for (let look = 1; look <= STATE_LOOKS; look++) {
      if (await this.#isFolded()) {
        const doc = await readDoc(connection, names, names.stateBucket(shard), key)
        if (await this.#isFolded()) {
          // Not there, perhaps since the bucket was gone for that moment and is whole again.
          if (doc !== undefined) return doc
          const again = await runDoc({ connection, names }, run, key)
          if (await this.#isFolded()) return again
        }
      }
      await connection.ready(Math.min(50 * look, 500))
    }
    throw new FlowStoneError('state_behind', `the state of shard ${shard} is behind its log; is an engine running?`)
  }

  async #isFolded(): Promise<boolean> {
    const { connection, names, shard } = this.#source
    const engine = await readDoc(connection, names, names.stateBucket(shard), ENGINE_KEY)
    const seq = typeof engine === 'object' && engine !== null ? Number(Reflect.get(engine, 'seq')) : 0
    return seq >= this.#closedSeq
  }
}

async function buildIndex(
  source: GatherSource,
  cache: OutcomeCache,
  total: number,
  closedSeq: number,
): Promise<ResultIndex> {
  const index = new ResultIndex(total)
  const take = (fact: FactOf<'scatter.outcomes'>, bytes: number): void => {
    cache.offer(fact.seq, fact.data, bytes)
    index.addFact(fact.seq, fact.data)
  }
  if (await takeSealed(source, closedSeq, take)) return index
  const { names, shard, run, asset, connection } = source
  const stream = names.log(shard)
  const subject = names.fact(shard, factPath('scatter.outcomes', { run, asset }))
  const started = names.fact(shard, factPath('scatter.started', { run, asset }))
  const [last, startedAt] = await Promise.all(
    [subject, started].map((last_by_subj) => connection.read((nc) => leaderGet(nc, stream, { last_by_subj }))),
  )
  if (!last) return index
  const reader = new Reader(connection, stream, startedAt?.seq ?? 1, { filter: subject })
  const end = Math.min(last.seq, closedSeq)
  const { signal } = source
  const off = signal && onAbort(signal, () => reader.stop())
  try {
    for (let seq = 0; seq < end; ) {
      const messages = await reader.take(1000)
      signal?.throwIfAborted()
      for (const message of messages) {
        seq = message.seq
        if (seq > closedSeq) break
        const fact = factIfAny(names, shard, message)
        if (fact?.name === 'scatter.outcomes') take(fact, message.payload.length)
      }
    }
  } finally {
    off?.()
    reader.stop()
  }
  return index
}

/** The outcomes of a scatter whose run is sealed. Says whether it is. */
async function takeSealed(
  source: GatherSource,
  closedSeq: number,
  take: (fact: FactOf<'scatter.outcomes'>, bytes: number) => void,
): Promise<boolean> {
  const { run, asset, shard } = source
  const path = factPath('scatter.outcomes', { run, asset })
  let isThere = false
  for await (const { facts } of sealedParts(source, run))
    for (const sealed of facts) {
      if (sealed.path === `run.${run}.requested`) isThere = true
      if (sealed.path !== path || sealed.seq > closedSeq) continue
      const fact = sealedFactIfAny(source, shard, sealed)
      if (fact?.name === 'scatter.outcomes') take(fact, sealed.payload.length)
    }
  return isThere
}

const decoded = new WeakMap<ScatterOutcomes, ListReader>()

/** The values of a fact, unpacked when the first of them is asked for. */
function valuesOf(outcomes: ScatterOutcomes): ListReader {
  let values = decoded.get(outcomes)
  if (!values) {
    values = readList(outcomes.values, outcomes.encoding)
    decoded.set(outcomes, values)
  }
  return values
}
