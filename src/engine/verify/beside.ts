/**
 * The state of a shard, folded in memory beside the real one: from the base on, by the same code as
 * engines fold with. It writes nothing, and carries nothing out.
 */
import { step } from '../../../projections/handlers.ts'
import { STATE_KINDS } from '../../../projections/state.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { type Fact, isTimer } from '../../../streams/facts.ts'
import { historyKey } from '../../../streams/history.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { joinParts, partsSaid } from '../../log/document-parts.ts'
import { decodeStored } from '../../log/documents.ts'
import { type StoredMessage, streamBounds } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import type { Wave } from '../history/waves.ts'
import { isMarkOf } from '../shard/position.ts'
import { readBucket } from './bucket.ts'
import type { Scratch } from './scratch.ts'
import { Shadow } from './shadow.ts'

const TAKE = 1000
const SETTLE_EVERY = 64
const WAVE = 'wave.'

export interface BesideOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly scratch: Scratch
}

export class Beside {
  readonly #options: BesideOptions
  readonly #poison = new Set<number>()
  #shadow: Shadow
  #folded = 0
  #base = 0
  #count = 0
  /** Schedules that the log may have had behind the base, at most. */
  timers = 0
  /** Documents of the base that cannot be read, and why. */
  readonly broken = new Map<string, string>()
  /** Runs that are sealed, and whose documents the state may still have. */
  readonly leaving = new Set<string>()

  constructor(options: BesideOptions) {
    this.#options = options
    this.#shadow = new Shadow(options.scratch)
  }

  get shadow(): Shadow {
    return this.#shadow
  }

  /** All up to here is folded. */
  get folded(): number {
    return this.#folded
  }

  /** Where it began. */
  get base(): number {
    return this.#base
  }

  /** Facts that were folded. */
  get count(): number {
    return this.#count
  }

  /** Begins with the base, if there is one of this log. */
  async begin(): Promise<void> {
    const { connection, names, shard, scratch } = this.#options
    const bucket = names.historyBucket(shard)
    const shadow = new Shadow(scratch)
    this.leaving.clear()
    this.broken.clear()
    this.timers = 0
    const large = new Map<string, StoredMessage>()
    const position = await readBucket({ connection, names, bucket }, baseKeys(), (key, message) => {
      const isGone = message.headers.has('KV-Operation') || message.headers.has('Nats-Marker-Reason')
      if (key.startsWith('part.') || partsSaid(message) > 1) {
        if (isGone) large.delete(key)
        else large.set(key, message)
      } else if (isGone) shadow.delete(key)
      else this.#tryTake(shadow, key, message)
    })
    await this.#takeLarge(shadow, large)
    const [manifest, log] = await Promise.all([
      manifestOf(this.#options, shard),
      connection.read((nc) => streamBounds(nc, names.log(shard))),
    ])
    const isOurs =
      position !== undefined &&
      manifest?.log === log.id &&
      position.seq <= log.last &&
      (await isMarkOf({ connection, names, shard }, position.mark))
    this.#shadow = isOurs ? shadow : new Shadow(scratch)
    this.#base = isOurs ? position.seq : 0
    this.#folded = this.#base
    if (!isOurs) this.leaving.clear()
  }

  #tryTake(shadow: Shadow, key: string, message: StoredMessage): void {
    try {
      this.#take(shadow, key, message)
    } catch (error) {
      shadow.delete(key)
      this.broken.set(key, messageOf(error))
    }
  }

  #take(shadow: Shadow, key: string, message: StoredMessage): void {
    const { bytes, isBytes } = decodeStored(key, message)
    if (key.startsWith(WAVE)) {
      const wave = JSON.parse(Buffer.from(bytes).toString()) as Wave
      for (const run of wave.runs) this.leaving.add(run)
      return
    }
    if (key === historyKey.manifest) return
    // What cannot be read is found here, and not when a fact needs it.
    if (!isBytes) JSON.parse(Buffer.from(bytes).toString())
    shadow.putStored(key, bytes, isBytes)
    this.timers += timersIn(key, bytes)
  }

  async #takeLarge(shadow: Shadow, large: ReadonlyMap<string, StoredMessage>): Promise<void> {
    for (const [key, first] of large) {
      if (key.startsWith('part.')) continue
      const whole = await joinParts(key, first, async (part) => large.get(part))
      if (whole) this.#tryTake(shadow, key, whole)
      else this.broken.set(key, 'one of its parts is gone')
    }
  }

  /** Folds a message of the log, if it is the next one. */
  async fold(message: StoredMessage): Promise<void> {
    if (message.seq <= this.#folded) return
    const { names, shard } = this.#options
    const path = names.factPath(message.subject) ?? ''
    const fact = isTimer(path) ? undefined : factIfAny(names, shard, message)
    if (fact) await this.foldFact(fact)
    this.#folded = message.seq
  }

  async foldFact(fact: Fact): Promise<void> {
    if (fact.seq <= this.#folded || this.#poison.has(fact.seq)) return
    try {
      this.#count += 1
      for (const effect of step(this.#shadow, fact)) if (effect.do === 'timer') this.timers += 1
      if (fact.name === 'gate.created' || fact.name === 'gate.extended') this.timers += 1
    } catch {
      await this.#withoutPoison(fact.seq)
    }
    this.#folded = fact.seq
    if (this.#count % SETTLE_EVERY === 0) this.#shadow.settle()
  }

  /** Nothing was folded up to here, but it is read. */
  passed(seq: number): void {
    this.#folded = Math.max(this.#folded, seq)
  }

  /** Reads the log on, up to a sequence. */
  async foldTo(upTo: number): Promise<void> {
    const { connection, names, shard } = this.#options
    if (this.#folded >= upTo) return
    const reader = new Reader(connection, names.log(shard), this.#folded + 1, { onDenied: 'throw' })
    try {
      while (this.#folded < upTo) {
        const messages = await reader.take(TAKE, upTo)
        if (messages.length === 0) break
        for (const message of messages) if (message.seq <= upTo) await this.fold(message)
        if ((messages.at(-1)?.seq ?? 0) >= upTo) break
      }
    } finally {
      reader.stop()
    }
    this.passed(upTo)
  }

  /**
   * A fact that cannot be folded: engines step over it, with documents that it has not changed. So
   * does this, from the base on again.
   */
  async #withoutPoison(seq: number): Promise<void> {
    this.#poison.add(seq)
    const { connection } = this.#options
    await this.begin()
    if (connection.isClosed) throw new FlowStoneError('closed', 'the connection was closed while the log was folded')
    if (this.#folded > seq)
      throw new FlowStoneError('unreadable', `the base moved beyond fact ${seq} while it was folded; verify again`)
    await this.foldTo(seq)
  }
}

function baseKeys(): string[] {
  return [...STATE_KINDS.flatMap((kind) => [`${kind}.>`, `part.*.${kind}.>`]), `${WAVE}>`, historyKey.manifest]
}

/** How many schedules on the log a document may stand for. To read each of them would cost more. */
function timersIn(key: string, bytes: Uint8Array): number {
  if (!/^(run|barrier|gates|gate|event_group)\./.test(key)) return 0
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  const count = (field: string): number => text.split(field).length - 1
  if (key.startsWith('event_group')) return count('"timerMs"')
  return count('"deadlineMs"') + count('"late":{')
}
