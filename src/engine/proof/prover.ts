/**
 * Proves the log of a shard: each message is hashed as the engine folds it, and every few seconds
 * the hashes become a block behind the one before. docs/decisions/proof.md says why.
 *
 * A block is stored only behind the block that its engine knows. So an engine that was replaced
 * changes nothing. What was in no block when an engine died is read from the log by the next one:
 * no fact leaves the log before it is in a block.
 */
import { ConflictError, FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { isTimer } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { decodeBlock, encodeBlock, encodeDetail, type LeftRecord, sha256 } from '../../../streams/proof.ts'
import type { ProofKey } from '../../../streams/proof-keys.ts'
import type { Names } from '../../../streams/subjects.ts'
import { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { type Entry, leaderGet, type StoredMessage, streamBounds } from '../../log/nats.ts'
import { storedFact } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import { sleep } from '../../options/timer.ts'
import type { Logger } from '../../telemetry.ts'
import { Stretch } from './stretch.ts'

const READ_FACTS = 500
/** More than this waits on the log, and not here. */
const HELD_STRETCHES = 16
const AGAIN_MS = 1000
const STOP_MS = 1000
/** Bytes of a stretch of sequences that leave, and of another record, in a block. */
const RANGE_BYTES = 40
const RECORD_BYTES = 200

export interface ProverOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly clock: ServerClock
  readonly logger: Logger
  /** The engine folds from here on, and offers each message. */
  readonly from: number
  /** False: nothing more is proven. What leaves is still recorded where there is a proof. */
  readonly isOn: boolean
  readonly key: ProofKey | undefined
  /** A block is made so often, if there is anything to prove. */
  readonly everyMs: number
  /** All facts of the log up to here may be in the history only. */
  readonly sealedTo: () => Promise<number>
}

/** The last block. */
interface At {
  /** All facts of the log up to here are in blocks; n is -1 where there is no block. */
  to: number
  n: number
  hash: string
  /** Where its head stands on the stream; 0: nowhere. */
  headSeq: number
  readonly log: string
}

interface Leaving {
  readonly record: LeftRecord
  readonly stored: () => void
  readonly failed: (error: unknown) => void
}

export class Prover {
  readonly #options: ProverOptions
  readonly #appender: Appender
  readonly #log: string
  #full: Stretch[] = []
  #stretch: Stretch
  #sinceMs = 0
  /** Messages up to here have been offered. */
  #offered: number
  /** Messages up to here are in blocks, or held: they may be read before they are offered. */
  #taken = 0
  /** What was offered is read from the log, because it is not held. */
  #isBehind: boolean
  #isStoring = false
  #at: At | undefined
  #leaving: Leaving[] = []
  #reader: Reader | undefined
  #stopped = false
  #isStopping = false
  #wake: (() => void) | undefined
  #warned = false
  /** The number of the last block that this engine has stored. */
  #own = -1
  #running: Promise<void> = Promise.resolve()

  constructor(options: ProverOptions) {
    const { connection, names, shard, from, isOn } = options
    this.#options = options
    this.#log = names.log(shard)
    this.#offered = from
    this.#isBehind = isOn
    this.#stretch = new Stretch(connection.maxPayload)
    this.#appender = new Appender(connection, names.proof, { giveUpMs: 10_000 })
  }

  start(): void {
    this.#running = this.#run()
  }

  /** All facts up to this sequence of the log are in blocks, or need not be. */
  get provenTo(): number {
    if (!this.#options.isOn) return Number.POSITIVE_INFINITY
    if (!this.#at) return 0
    const isAll = !this.#isBehind && !this.#isStoring && this.#full.length === 0 && this.#stretch.count === 0
    return isAll ? Math.max(this.#offered, this.#at.to) : this.#at.to
  }

  /** Each message of the log, in order. */
  offer(message: StoredMessage): void {
    this.#offered = message.seq
    if (this.#isBehind || !this.#options.isOn || message.seq <= this.#taken) return
    this.#taken = message.seq
    const fact = this.#factOf(message)
    if (!fact) return
    if (this.#stretch.count === 0) {
      this.#sinceMs = performance.now()
      this.#wake?.()
    }
    this.#stretch.add(fact)
    if (!this.#stretch.isFull) return
    this.#full.push(this.#stretch)
    this.#stretch = new Stretch(this.#options.connection.maxPayload)
    if (this.#full.length > HELD_STRETCHES) this.#fallBehind()
    this.#wake?.()
  }

  /**
   * Resolves when the proof says that these facts leave, or when there is none. Nothing is to be
   * taken away before that. Rejects when the proof takes nothing.
   */
  async leaving(records: readonly LeftRecord[]): Promise<void> {
    if (records.length === 0) return
    if (this.#stopped) throw new FlowStoneError('closed', 'the engine has stopped')
    const ranges = Math.ceil(this.#leftBytes / RANGE_BYTES)
    const all = records
      .flatMap((record) => piecesOf(record, ranges))
      .map(async (record) => {
        await new Promise<void>((stored, failed) => {
          this.#leaving.push({ record, stored, failed })
          this.#wake?.()
        })
      })
    await Promise.all(all)
  }

  /** What leaves takes so much of one block. */
  get #leftBytes(): number {
    return this.#options.connection.maxPayload / 2
  }

  /** Proves what is left, unless that takes long: the next engine has it from the log. */
  async finish(): Promise<void> {
    this.#isStopping = true
    this.#wake?.()
    await Promise.race([this.#running, sleep(STOP_MS, undefined, { unref: true })])
    this.stop()
  }

  stop(): void {
    this.#stopped = true
    this.#reader?.stop()
    this.#wake?.()
    this.#failLeaving(new FlowStoneError('closed', 'the engine has stopped'))
  }

  #failLeaving(error: unknown): void {
    for (const { failed } of this.#leaving.splice(0)) failed(error)
  }

  #factOf(message: StoredMessage): SealedFact | undefined {
    const path = this.#options.names.factPath(message.subject)
    return path === undefined || isTimer(path) ? undefined : storedFact(path, message)
  }

  #fallBehind(): void {
    this.#isBehind = this.#options.isOn
    this.#isStoring = false
    this.#full = []
    this.#stretch = new Stretch(this.#options.connection.maxPayload)
  }

  async #run(): Promise<void> {
    const { connection } = this.#options
    while (!this.#stopped && !connection.isClosed) {
      try {
        // An engine that does not prove needs the proof only to say what leaves.
        if (!this.#options.isOn && this.#leaving.length === 0) {
          if (this.#isStopping) return
          await this.#awoken()
          continue
        }
        this.#at ??= await this.#lastBlock()
        if (await this.#turn(this.#at)) return
      } catch (error) {
        this.#fallBehind()
        // Another engine proves: from where it stands by now.
        if (error instanceof ConflictError) this.#at = undefined
        else if (!connection.isClosed) this.#cannot(error)
        if (this.#isStopping) return
        await connection.ready(AGAIN_MS)
      }
    }
  }

  /** Who waits for it is not left waiting: the proof may take nothing for very long. */
  #cannot(error: unknown): void {
    const { names, shard, logger, isOn } = this.#options
    // Who turned the proof off, and gave the engine no right to it, has none.
    const isNone = !isOn && !this.#at && error instanceof FlowStoneError && error.code === 'denied'
    const what = isNone
      ? `${names.proof} may not be read, and the proof is off: nothing says what leaves the log of shard ${shard}`
      : `${names.proof} takes no blocks of shard ${shard}, and nothing leaves its log until it does`
    if (!this.#warned) logger.warn(`${what}: ${messageOf(error)}`)
    this.#warned = true
    if (isNone) for (const { stored } of this.#leaving.splice(0)) stored()
    else this.#failLeaving(error)
  }

  /** Does what is due, or waits for it. True: it has ended. */
  async #turn(at: At): Promise<boolean> {
    const { isOn, everyMs } = this.#options
    if (at.n < 0 && isOn) await this.#store(at, new Stretch(0), at.to, [])
    else if (this.#isBehind) await this.#catchUp(at)
    else if (this.#full.length > 0) await this.#storeFull(at)
    else if (this.#leaving.length > 0) await this.#storeLeaving(at)
    else if (this.#stretch.count > 0) {
      const waitMs = this.#isStopping ? 0 : this.#sinceMs + everyMs - performance.now()
      if (waitMs <= 0) await this.#storeHeld(at, [])
      else await this.#awoken(waitMs)
    } else if (this.#isStopping) return true
    else await this.#awoken()
    return false
  }

  async #awoken(ms?: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(resolve, ms)
      timer?.unref()
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#wake = undefined
  }

  async #storeFull(at: At): Promise<void> {
    const full = this.#full.shift()
    this.#isStoring = true
    if (full) await this.#store(at, full, full.to, [])
    this.#isStoring = false
  }

  /** What is held so far. */
  async #storeHeld(at: At, left: readonly LeftRecord[]): Promise<void> {
    const stretch = this.#stretch
    const to = this.#options.isOn ? Math.max(at.to, this.#taken) : at.to
    this.#stretch = new Stretch(this.#options.connection.maxPayload)
    this.#isStoring = true
    await this.#store(at, stretch, to, left)
    this.#isStoring = false
  }

  async #storeLeaving(at: At): Promise<void> {
    const some: Leaving[] = []
    for (let bytes = 0; this.#leaving.length > 0; ) {
      const [next] = this.#leaving
      bytes += next ? bytesOf(next.record) : 0
      if (!next || (some.length > 0 && bytes > this.#leftBytes)) break
      some.push(next)
      this.#leaving.shift()
    }
    try {
      const records = some.map(({ record }) => record)
      if (at.n >= 0) await this.#storeHeld(at, records)
      for (const { stored } of some) stored()
    } catch (error) {
      for (const { failed } of some) failed(error)
      throw error
    }
  }

  /** Reads what was offered and is in no block. The last facts of it are for the next block. */
  async #catchUp(at: At): Promise<void> {
    const { connection } = this.#options
    const reader = new Reader(connection, this.#log, at.to + 1)
    this.#reader = reader
    this.#taken = at.to
    try {
      let stretch = new Stretch(connection.maxPayload)
      while (this.#taken < this.#offered && !this.#stopped) {
        const upTo = this.#offered
        const messages = await reader.take(READ_FACTS, upTo)
        for (const message of messages) {
          const fact = this.#factOf(message)
          if (!fact) continue
          stretch.add(fact)
          if (!stretch.isFull) continue
          await this.#store(at, stretch, stretch.to, [])
          stretch = new Stretch(connection.maxPayload)
        }
        this.#taken = messages.at(-1)?.seq ?? upTo
      }
      if (this.#stopped) return
      this.#stretch = stretch
      this.#sinceMs = performance.now()
      this.#isBehind = false
    } finally {
      reader.stop()
    }
  }

  async #store(at: At, stretch: Stretch, to: number, left: readonly LeftRecord[]): Promise<void> {
    if (this.#stopped) return
    const { names, shard, clock, key } = this.#options
    const { count } = stretch
    const detail = count === 0 ? undefined : await encodeDetail(stretch.detail)
    const head = {
      ns: names.ns,
      shard,
      log: at.log,
      n: at.n + 1,
      prev: at.hash,
      from: at.to + 1,
      to,
      count,
      root: stretch.root,
      detail: detail ? sha256(detail) : '',
      atMs: Math.round(clock.now()),
    }
    const { payload, hash } = await encodeBlock(head, left, key)
    const entries: Entry[] = detail ? [{ subject: names.proofDetail(shard), payload: detail, contentType: BYTES }] : []
    entries.push({
      subject: names.proofHead(shard),
      payload,
      contentType: 'application/msgpack',
      expect: { seq: at.headSeq },
    })
    const { seq } = await this.#appender.append(...entries)
    at.to = to
    at.n = head.n
    at.hash = hash
    at.headSeq = seq
    this.#own = head.n
    this.#warned = false
  }

  async #lastBlock(): Promise<At> {
    const { connection, names, shard, from, logger, isOn, sealedTo } = this.#options
    const last_by_subj = names.proofHead(shard)
    const found = await connection.read((nc) => leaderGet(nc, names.proof, { last_by_subj }))
    // After the block, which may be one that an engine before this one has just stored.
    const { last, id } = await connection.read((nc) => streamBounds(nc, this.#log))
    const none: At = { to: from, n: -1, hash: '', headSeq: found?.seq ?? 0, log: id }
    if (!found) {
      if (this.#own >= 0) logger.warn(`the proof of shard ${shard} is gone: it had ${this.#own + 1} blocks`)
      return none
    }
    let block: ReturnType<typeof decodeBlock>
    try {
      block = decodeBlock(found.payload)
    } catch (error) {
      if (error instanceof FlowStoneError && error.code === 'newer_version') throw error
      logger.warn(`the last block of the proof of shard ${shard} cannot be read; the proof begins anew behind it`)
      return none
    }
    const { n, to, log } = block.head
    if (n < this.#own) logger.warn(`the proof of shard ${shard} ends at block ${n}; it had block ${this.#own}`)
    // What is not as it was left is said by the next block, and found by who checks.
    const goesOn = log === id && to <= last && (!isOn || to >= from || to >= (await sealedTo()))
    return { to: goesOn ? to : from, n, hash: block.hash, headSeq: found.seq, log: id }
  }
}

const BYTES = 'application/octet-stream'

/** A record of many facts may be larger than a block. */
function piecesOf(record: LeftRecord, ranges: number): LeftRecord[] {
  if (!('seqs' in record) || record.seqs.length <= ranges) return [record]
  const count = Math.ceil(record.seqs.length / ranges)
  return Array.from({ length: count }, (_, i) => ({ ...record, seqs: record.seqs.slice(i * ranges, (i + 1) * ranges) }))
}

function bytesOf(record: LeftRecord): number {
  return RECORD_BYTES + ('seqs' in record ? record.seqs.length * RANGE_BYTES : 0)
}
