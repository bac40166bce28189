/**
 * Checkpoints: the touched documents and the log position, in one atomic batch, under the revision
 * that this engine wrote last. That expectation is the fence: an engine that was paused, cut off or
 * deposed fails here, whatever it believes, and nothing of its batch is stored. What does not fit
 * one batch: staged.ts.
 */
import { randomBytes } from 'node:crypto'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import {
  type Entry,
  ERR,
  isFull,
  isGone,
  isPassing,
  isPassingRefusal,
  leaderGet,
  type PubAck,
  publish,
  publishBatch,
  type StoredMessage,
  streamBounds,
  streamInfo,
  UNIT_HEADER,
} from '../../log/nats.ts'
import { forgottenTo } from '../maintenance/forgotten.ts'
import { encodePosition, logRefusal, type Mark, type Position, positionIn, START } from './position.ts'
import { isFirstEngine } from './seen-before.ts'
import { batchesOf, readStaged, stagedEntries, stagedFilter, stagedIds } from './staged.ts'
import { DELETED } from './store.ts'

/** A bucket without room is tried again after this. */
const FULL_PAUSE_MS = 500

/** Another engine has taken over. What this one holds in memory is worthless. */
export class FencedError extends FlowStoneError {
  constructor(message: string) {
    super('fenced', message)
  }
}

/**
 * The log sequence up to which the bucket is folded; 0 for one that no engine has written to, or
 * that is gone.
 */
export async function foldedTo(connection: Connection, names: Names, shard: number): Promise<number> {
  return (await positionOf(connection, names, names.stateBucket(shard)))?.seq ?? 0
}

/** Undefined for a bucket that no engine has written to, or that is gone. */
export async function positionOf(connection: Connection, names: Names, bucket: string): Promise<Position | undefined> {
  const query = { last_by_subj: names.kvSubject(bucket, ENGINE_KEY) }
  const found = await connection
    .read((nc) => leaderGet(nc, names.kvStream(bucket), query))
    .catch((error: unknown) => {
      if (isGone(error)) return undefined
      throw error
    })
  return positionIn(bucket, found)
}

export class Checkpointer {
  readonly #connection: Connection
  readonly #stream: string
  readonly #subject: string
  readonly #bucket: string
  readonly #engine: string
  readonly #names: Names
  readonly #shard: number
  /** Begins the unit of each of its writes, so that its own key is known from any other's. */
  readonly #term = randomBytes(9).toString('base64url')
  #commits = 0
  #revision = 0
  #position: Position = START

  /** `bucket`: of the state by default; that of the history has a position of its own. */
  constructor(
    connection: Connection,
    names: Names,
    shard: number,
    engine: string,
    bucket: string = names.stateBucket(shard),
  ) {
    this.#connection = connection
    this.#bucket = bucket
    this.#stream = names.kvStream(this.#bucket)
    this.#subject = names.kvSubject(this.#bucket, ENGINE_KEY)
    this.#engine = engine
    this.#names = names
    this.#shard = shard
  }

  /** The log sequence that the bucket stands for. */
  get seq(): number {
    return this.#position.seq
  }

  /** The sequence that the last checkpoint has in its bucket: its documents stand before it. */
  get revision(): number {
    return this.#revision
  }

  /** The last fact up to there, by which the log is known again. It must stay on the log. */
  get mark(): Mark | undefined {
    return this.#position.mark
  }

  /**
   * Reads the position and writes it again under the name of this engine. From then on every older
   * engine is fenced out. If the bucket is empty although an engine was active here before, its
   * content has been lost. `emptied`: what a rebuild knows when it emptied the bucket on purpose.
   * Throws `log_changed` when the bucket was not made from this log.
   */
  async takeOver(emptied?: Pick<Position, 'recoverTo' | 'epoch'>): Promise<Position> {
    const position = await this.#read()
    const first = await isFirstEngine(this.#connection, this.#names, this.#shard)
    if (position) {
      const refusal = await logRefusal(this.#connection, this.#names, this.#shard, position)
      if (refusal) throw refusal
      const forgotten = await forgottenTo(this.#connection, this.#names, this.#shard, position.seq)
      this.#position = { ...position, recoverTo: Math.max(position.recoverTo, forgotten) }
    } else if (emptied) this.#position = { ...emptied, seq: 0 }
    else if (!first) {
      const { last } = await this.#connection.read((nc) => streamBounds(nc, this.#names.log(this.#shard)))
      this.#position = { seq: 0, recoverTo: last }
    }
    await this.#begin()
    return this.#position
  }

  /**
   * As `takeOver`, of the history, whose position is not compared with the log. Throws `bad_state`
   * for content that no engine wrote: beside it are runs that are nowhere else.
   */
  async takeOverAsItIs(): Promise<Position> {
    const found = await this.#found()
    this.#revision = found?.seq ?? 0
    this.#position = positionIn(this.#bucket, found) ?? START
    await this.#begin()
    return this.#position
  }

  async #begin(): Promise<void> {
    // Of those there are now, none is of an engine that comes later.
    const staged = await stagedIds((filter) => this.#subjects(filter), this.#names, this.#bucket)
    await this.#commit([], this.#position)
    const { redo } = this.#position
    if (redo) {
      const documents = await readStaged(this.#connection, this.#names, this.#bucket, redo, DELETED)
      await this.#copy(documents, redo)
    }
    for (const id of staged) await this.#purge(id)
  }

  /**
   * Stores the documents and the position, all or nothing. `mark`: the last fact up to `seq`, if
   * there is one since the last time. Throws FencedError when another engine wrote since. Survives
   * reconnects: a lost answer is resolved by looking at the engine key.
   */
  async write(documents: readonly Entry[], seq: number, mark: Mark | undefined): Promise<void> {
    const { redo: _, ...position } = this.#position
    const known = mark ?? position.mark
    const next: Position = { ...position, seq, ...(known ? { mark: known } : {}) }
    const batches = batchesOf(documents)
    if (batches.length === 1) {
      await this.#commit(documents, next)
      return
    }
    const id = randomBytes(9).toString('hex')
    let count = 0
    for (const batch of batches) {
      await this.#commit(stagedEntries(this.#names, this.#bucket, id, count, batch), this.#position)
      count += batch.length
    }
    const redo = { id, count, seq, ...(known ? { mark: known } : {}) }
    await this.#commit([], { ...this.#position, redo })
    await this.#copy(documents, redo)
    await this.#purge(id)
  }

  /**
   * Throws FencedError when another engine wrote since, or when the bucket was emptied, deleted or
   * made again. The documents in memory are worthless then. All that was read from the bucket
   * before this returns belongs to the state of this engine.
   */
  async look(): Promise<void> {
    let found: StoredMessage | undefined
    try {
      found = await this.#found()
    } catch (error) {
      throw isGone(error) ? this.#deleted() : error
    }
    // Not by the revision: a bucket that was made again counts from 1, and may have passed it.
    if (!found?.headers.get(UNIT_HEADER)?.startsWith(`${this.#term}.`)) throw this.#fenced()
  }

  #fenced(): FencedError {
    return new FencedError(`another engine took over ${this.#bucket}`)
  }

  #deleted(): FencedError {
    return new FencedError(`${this.#bucket} was deleted`)
  }

  async #copy(documents: readonly Entry[], redo: NonNullable<Position['redo']>): Promise<void> {
    for (const batch of batchesOf(documents)) await this.#commit(batch, { ...this.#position, redo })
    const { seq, mark } = redo
    const { redo: _, ...position } = this.#position
    await this.#commit([], { ...position, seq, ...(mark ? { mark } : {}) })
  }

  /**
   * Content that no engine wrote is deleted, with all that is beside it. The bucket is then folded
   * again from the log.
   */
  async #read(): Promise<Position | undefined> {
    const found = await this.#found()
    this.#revision = found?.seq ?? 0
    try {
      return positionIn(this.#bucket, found)
    } catch (error) {
      if (!(error instanceof FlowStoneError) || error.code !== 'bad_state') throw error
      const jsm = await jetstreamManager(this.#connection.nc)
      await jsm.streams.purge(this.#stream)
      this.#revision = 0
      return undefined
    }
  }

  async #found(): Promise<StoredMessage | undefined> {
    return await this.#connection.read((nc) => leaderGet(nc, this.#stream, { last_by_subj: this.#subject }))
  }

  async #subjects(filter: string): Promise<string[]> {
    const info = await this.#connection.read((nc) => streamInfo(nc, this.#stream, filter))
    return Object.keys(info.state.subjects ?? {})
  }

  /** What nobody needs any more. Left where it is if that fails: the next engine takes it away. */
  async #purge(id: string): Promise<void> {
    const jsm = await jetstreamManager(this.#connection.nc)
    await jsm.streams
      .purge(this.#stream, { filter: stagedFilter(this.#names, this.#bucket, id) })
      .catch(() => undefined)
  }

  /** One atomic batch with the key `engine`. */
  async #commit(documents: readonly Entry[], position: Position): Promise<void> {
    const unit = `${this.#term}.${this.#commits++}`
    const written = (revision: number): void => {
      this.#revision = revision
      this.#position = position
    }
    for (;;) {
      const entries = [
        ...documents.map((entry) => ({ entry, unit: undefined })),
        {
          entry: {
            subject: this.#subject,
            payload: encodePosition(position),
            contentType: 'application/json',
            expect: { seq: this.#revision },
            headers: { 'Fs-Engine': this.#engine },
          },
          unit,
        },
      ]
      try {
        const ack = await this.#sent(entries, unit)
        if (ack && !ack.error) {
          written(ack.seq)
          return
        }
        if (ack?.error && !PASSES.has(ack.error.errCode) && !isPassingRefusal(ack.error))
          throw new FlowStoneError('checkpoint', `checkpoint of ${this.#bucket} refused: ${ack.error.description}`)
        if (isFull(ack?.error)) {
          await this.#connection.ready(FULL_PAUSE_MS)
          continue
        }
        // Refused, or no answer: whose word stands there?
        const found = await leaderGet(this.#connection.nc, this.#stream, { last_by_subj: this.#subject })
        if (found?.headers.get(UNIT_HEADER) === unit) {
          written(found.seq)
          return
        }
        if ((found?.seq ?? 0) !== this.#revision) throw this.#fenced()
      } catch (error) {
        if (isGone(error)) throw this.#deleted()
        if (!isPassing(error) || this.#connection.isClosed) throw error
      }
      await this.#connection.ready(100)
    }
  }

  /**
   * Undefined when no answer came: the server is away, or nobody takes the message, as when the
   * bucket is gone.
   */
  async #sent(entries: Parameters<typeof publishBatch>[1], unit: string): Promise<PubAck | undefined> {
    const [only] = entries
    try {
      return await this.#connection.untilDisconnect(async (nc) => {
        if (entries.length === 1 && only) return await publish(nc, only.entry, only.unit, 5000)
        return await publishBatch(nc, entries, unit, 5000)
      })
    } catch (error) {
      if (!isPassing(error) || this.#connection.isClosed) throw error
      return undefined
    }
  }
}

/**
 * Refusals after which a look at the key tells more: it was changed; or something is still on its
 * way to it; or too many batches of others are open.
 */
const PASSES: ReadonlySet<number> = new Set([ERR.wrongLastSequence, ERR.wrongLastSequenceConstant, ERR.tooManyBatches])
