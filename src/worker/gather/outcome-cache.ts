/** Facts of outcomes that a gather has at hand. */
import type { StoredMsg } from '@nats-io/jetstream'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { ScatterOutcomes } from '../../../streams/scatter-schemas.ts'
import type { Connection } from '../../log/connection.ts'
import { sealedAt } from '../../log/history.ts'
import { directGet, headerMap, type StoredMessage } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import type { GatherSource } from './source.ts'

const CACHE_BYTES = 4 * 1024 * 1024
/** What a fact takes beside its bytes. */
const ENTRY_BYTES = 1000
const FETCH_FACTS = 200
const FETCH_BYTES = 1024 * 1024

/**
 * Outcome facts by sequence, within a bound in bytes. Results are read about in the order in which
 * they came. So the first ones are kept, each until its last result is taken. Others are fetched
 * again, with some that follow.
 */
export class OutcomeCache {
  readonly #source: GatherSource
  readonly #entries = new Map<number, { outcomes: ScatterOutcomes; bytes: number; left: number }>()
  #bytes = 0

  constructor(source: GatherSource) {
    this.#source = source
  }

  /** For one result of the fact. */
  take(seq: number): ScatterOutcomes | undefined {
    const entry = this.#entries.get(seq)
    if (!entry) return undefined
    entry.left -= 1
    if (entry.left <= 0) this.#drop(seq, entry.bytes)
    return entry.outcomes
  }

  /** Keeps it if there is room. */
  offer(seq: number, outcomes: ScatterOutcomes, bytes: number): void {
    // Compressed as it may be, its columns take 16 bytes an instance here.
    const size = bytes + ENTRY_BYTES + 16 * outcomes.at.length
    if (this.#entries.has(seq) || this.#bytes + size > CACHE_BYTES) return
    this.#entries.set(seq, { outcomes, bytes: size, left: outcomes.at.length })
    this.#bytes += size
  }

  async get(seq: number): Promise<ScatterOutcomes> {
    const { connection, names, shard } = this.#source
    // What is in the way was passed over: duplicates, or results that are asked for later.
    for (const [oldest, { bytes }] of this.#entries) {
      if (this.#bytes <= CACHE_BYTES / 2) break
      this.#drop(oldest, bytes)
    }
    const messages = await connection.read((nc) => this.#fetch(nc, seq))
    let wanted: ScatterOutcomes | undefined
    for (const message of messages) {
      const fact = factIfAny(names, shard, message)
      if (fact?.name !== 'scatter.outcomes') continue
      this.offer(message.seq, fact.data, message.payload.length)
      if (message.seq === seq) wanted = fact.data
    }
    if (!wanted) {
      const sealed = await sealedAt(this.#source, shard, seq)
      if (sealed?.name === 'scatter.outcomes') return sealed.data
    }
    if (!wanted) throw new FlowStoneError('missing_result', `message ${seq} of ${names.log(shard)} holds no outcomes`)
    return this.take(seq) ?? wanted
  }

  async #fetch(nc: Connection['nc'], seq: number): Promise<StoredMessage[]> {
    const { names, shard, run, asset } = this.#source
    const stream = names.log(shard)
    const next_by_subj = names.fact(shard, factPath('scatter.outcomes', { run, asset }))
    const found: StoredMessage[] = []
    const jsm = await jetstreamManager(nc)
    try {
      const batch = { seq, next_by_subj, batch: FETCH_FACTS, max_bytes: FETCH_BYTES }
      for await (const message of await jsm.direct.getBatch(stream, batch)) found.push(storedOf(message))
    } catch (error) {
      if (found[0]?.seq !== seq && messageOf(error) !== 'message not found') throw error
    }
    if (found[0]?.seq === seq) return found
    // A replica that lags does not have it yet.
    const one = await directGet(nc, stream, { seq })
    return one ? [one] : []
  }

  #drop(seq: number, bytes: number): void {
    this.#entries.delete(seq)
    this.#bytes -= bytes
  }
}

function storedOf(message: StoredMsg): StoredMessage {
  const { subject, seq, data, header, time } = message
  return { subject, seq, timeMs: time.getTime(), payload: data, headers: headerMap(header) }
}
