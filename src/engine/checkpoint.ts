/**
 * Checkpoints: the touched documents and the log position, in one atomic batch, under the revision that this engine wrote last. That expectation is the
 * fence: an engine that was paused, cut off or deposed fails here, whatever it believes, and nothing of its batch is stored.
 */
import { randomBytes } from 'node:crypto'
import { ENGINE_KEY } from '../../projections/state.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import {
  type Entry,
  ERR,
  isFull,
  isPassing,
  isPassingRefusal,
  leaderGet,
  publish,
  publishBatch,
  streamBounds,
  UNIT_HEADER,
} from '../log/nats.ts'
import { readDoc } from './store.ts'

/** The engine key and what else stands in one batch: 1,000 messages. */
export const CHECKPOINT_KEYS_MAX = 999
const ENGINE_VERSION = 1
/** A bucket without room is tried again after this. */
const FULL_PAUSE_MS = 500

/** Another engine has taken over. What this one holds in memory is worthless. */
export class FencedError extends FlowStoneError {
  constructor(bucket: string) {
    super('fenced', `another engine took over ${bucket}`)
  }
}

/** Where a state bucket stands on its log. */
interface Position {
  /** All up to here is folded into it. */
  readonly seq: number
  /**
   * Facts up to here were folded by an engine before, whose documents are lost or thrown away: what tasks they lead to was enqueued then, and done perhaps. Whoever
   * folds them again enqueues none; the reconciler finds those that are missing. 0: there is nothing of the kind.
   */
  readonly recoverTo: number
}

function positionIn(doc: unknown): Position | undefined {
  if (typeof doc !== 'object' || doc === null) return undefined
  // What somebody else put there: the bucket is folded again from the log.
  if (typeof Reflect.get(doc, 'v') !== 'number') return undefined
  return { seq: Number(Reflect.get(doc, 'seq')), recoverTo: Number(Reflect.get(doc, 'recoverTo') ?? 0) }
}

/** The log sequence up to which some engine has carried out what follows; undefined for a bucket that no engine has written to. */
export async function settledTo(connection: Connection, names: Names, p: number): Promise<number | undefined> {
  const position = positionIn(await readDoc(connection, names, names.stateBucket(p), ENGINE_KEY))
  return position && Math.max(position.seq, position.recoverTo)
}

/** The log sequence up to which the bucket is folded; 0 for one that no engine has written to. */
export async function foldedTo(connection: Connection, names: Names, p: number): Promise<number> {
  return positionIn(await readDoc(connection, names, names.stateBucket(p), ENGINE_KEY))?.seq ?? 0
}

export class Checkpointer {
  readonly #connection: Connection
  readonly #stream: string
  readonly #subject: string
  readonly #bucket: string
  readonly #engine: string
  readonly #names: Names
  readonly #p: number
  #revision = 0
  #position: Position = { seq: 0, recoverTo: 0 }

  constructor(connection: Connection, names: Names, p: number, engine: string) {
    this.#connection = connection
    this.#bucket = names.stateBucket(p)
    this.#stream = names.kvStream(this.#bucket)
    this.#subject = names.kvSubject(this.#bucket, ENGINE_KEY)
    this.#engine = engine
    this.#names = names
    this.#p = p
  }

  /** The log sequence that the bucket stands for. */
  get seq(): number {
    return this.#position.seq
  }

  /**
   * Reads the position and writes it again under this engine's name: from here on every older engine is fenced out. A bucket that is empty although an engine was at work
   * here before has been lost. `recoverTo`: what a rebuild, which empties it on purpose, knows about that.
   */
  async takeOver(recoverTo?: number): Promise<Position> {
    const found = await this.#connection.read((nc) => leaderGet(nc, this.#stream, { last_by_subj: this.#subject }))
    this.#revision = found?.seq ?? 0
    const stored = found && found.payload.length > 0 ? decode(found.payload, 'application/json') : undefined
    if (stored !== undefined) {
      const version = typeof stored === 'object' && stored !== null ? Number(Reflect.get(stored, 'v')) : Number.NaN
      if (version > ENGINE_VERSION) {
        throw new FlowStoneError(
          'newer_version',
          `${this.#bucket} was written by a newer FlowStone (state version ${version}); upgrade this engine, or rebuild`,
        )
      }
    }
    const position = positionIn(stored)
    const first = await this.#isFirst()
    if (position) this.#position = position
    else if (!first) {
      const { last } = await this.#connection.read((nc) => streamBounds(nc, this.#names.log(this.#p)))
      this.#position = { seq: 0, recoverTo: recoverTo ?? last }
    }
    await this.write([], this.#position.seq)
    return this.#position
  }

  /** Whether no engine was ever at work on this partition. Remembered outside of the bucket that may get lost. */
  async #isFirst(): Promise<boolean> {
    const subject = this.#names.kvSubject(this.#names.controlBucket, `begun.${this.#p}`)
    const unit = randomBytes(12).toString('base64url')
    const entry = { subject, payload: encodeJson({ v: 1 }), contentType: 'application/json', expect: { seq: 0 } }
    for (;;) {
      const ack = await this.#connection.read((nc) => publish(nc, entry, unit, 5000))
      if (!ack.error) return true
      if (ack.error.errCode === ERR.wrongLastSequence) break
      if (!isPassingRefusal(ack.error) && ack.error.errCode !== ERR.wrongLastSequenceConstant)
        throw new FlowStoneError('checkpoint', `${subject} could not be stored: ${ack.error.description}`)
      await this.#connection.ready(isFull(ack.error) ? FULL_PAUSE_MS : 100)
    }
    const found = await this.#connection.read((nc) =>
      leaderGet(nc, this.#names.kvStream(this.#names.controlBucket), { last_by_subj: subject }),
    )
    // Asked twice because an answer was lost: it is this engine's own word that stands there.
    return found?.headers.get(UNIT_HEADER) === unit
  }

  /** Throws FencedError when another engine wrote since. Survives reconnects: a lost answer is resolved by looking at the engine key. */
  async write(documents: readonly Entry[], seq: number): Promise<void> {
    const unit = randomBytes(12).toString('base64url')
    const { recoverTo } = this.#position
    for (;;) {
      const entries = [
        ...documents.map((entry) => ({ entry, unit: undefined })),
        {
          entry: {
            subject: this.#subject,
            payload: encodeJson({ v: ENGINE_VERSION, seq, ...(seq < recoverTo ? { recoverTo } : {}) }),
            contentType: 'application/json',
            expect: { seq: this.#revision },
            headers: { 'Fs-Engine': this.#engine },
          },
          unit,
        },
      ]
      try {
        const ack = await this.#connection.untilDisconnect(async (nc) => {
          const [only] = entries
          if (entries.length === 1 && only) return publish(nc, only.entry, only.unit, 5000)
          return publishBatch(nc, entries, unit, 5000)
        })
        if (ack && !ack.error) {
          this.#revision = ack.seq
          this.#position = { seq, recoverTo }
          return
        }
        if (ack?.error && ack.error.errCode !== ERR.wrongLastSequence && !isPassingRefusal(ack.error))
          throw new FlowStoneError('checkpoint', `checkpoint of ${this.#bucket} refused: ${ack.error.description}`)
        if (isFull(ack?.error)) {
          await this.#connection.ready(FULL_PAUSE_MS)
          continue
        }
        // Refused, or no answer: whose word stands there?
        const found = await leaderGet(this.#connection.nc, this.#stream, { last_by_subj: this.#subject })
        if (found?.headers.get(UNIT_HEADER) === unit) {
          this.#revision = found.seq
          this.#position = { seq, recoverTo }
          return
        }
        if ((found?.seq ?? 0) !== this.#revision) throw new FencedError(this.#bucket)
      } catch (error) {
        if (!isPassing(error) || this.#connection.isClosed) throw error
      }
      await this.#connection.ready(100)
    }
  }
}
