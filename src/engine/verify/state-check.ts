/**
 * Compares the documents of the state with those that the log says. The state moves meanwhile, so
 * it is read as it is at a checkpoint, and the log is folded up to there. What differs is read once
 * more, at a later checkpoint, before it is reported: documents of sealed runs leave at any time.
 */

import { ENGINE_KEY, mayOutlive } from '../../../projections/state.ts'
import { comparable, differences, runOfKey } from '../../../projections/verify/diff.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import { joinParts, partsSaid } from '../../log/document-parts.ts'
import { decodeDoc } from '../../log/documents.ts'
import { isSealed } from '../../log/history.ts'
import { directGetMany, leaderGet, type StoredMessage } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { type Position, positionIn } from '../shard/position.ts'
import { readBucket } from './bucket.ts'
import type { Check, LogMessage, ShardContext } from './check.ts'
import { type LostFact, type Missing, RESTORE } from './missing.ts'
import { hashOfDoc } from './shadow.ts'

const CHECK = 'state'
const LOOK_KEYS = 400
const SURE_KEYS = 50
const TRIES = 40
const PAUSE_MS = 50
const REBUILD = 'stop all engines of the namespace and run `flowstone rebuild`, which makes the state from the log'

/** A document as the bucket has it now; undefined: it is not there. */
interface Looked {
  readonly doc: unknown
  /** Why it cannot be read. */
  readonly broken?: string
}

export class StateCheck implements Check {
  readonly #at: ShardContext
  readonly #missing: Missing
  /** Key, and the hash of what stands there. Empty: it has several parts. */
  readonly #found = new Map<string, string>()
  readonly #lost = new Set<string | number>()
  #isFrozen = false

  constructor(at: ShardContext, missing: Missing) {
    this.#at = at
    this.#missing = missing
  }

  /**
   * Reads the state. Returns the position that it stands for; undefined where it cannot be
   * compared.
   */
  async freeze(from: number): Promise<number | undefined> {
    const { connection, names, shard, findings, pace, progress } = this.#at
    const bucket = names.stateBucket(shard)
    let position: Position | undefined
    let count = 0
    try {
      position = await readBucket({ connection, names, bucket }, ['>'], async (key, message) => {
        this.#take(key, message)
        if (++count % 500 !== 0) return
        progress({ shard, step: 'reading the state', done: count })
        await pace.took(500)
      })
    } catch (error) {
      if (!(error instanceof FlowStoneError) || error.code !== 'unreadable') throw error
      findings.unseen(`the state of shard ${shard}`, error.message)
      return undefined
    }
    if (!position || position.seq < from) {
      findings.unseen(`the state of shard ${shard}`, 'it was made anew while it was read; verify again')
      return undefined
    }
    progress({ shard, step: 'reading the state', done: count })
    this.#isFrozen = true
    return position.seq
  }

  #take(key: string, message: StoredMessage): void {
    if (key === ENGINE_KEY || key.startsWith('staged.') || key.startsWith('part.')) return
    if (isGone(message)) this.#found.delete(key)
    else this.#found.set(key, partsSaid(message) > 1 ? '' : hashOfDoc(message.payload))
  }

  async message({ message, fact }: LogMessage): Promise<void> {
    if (fact) await this.#at.beside.foldFact(fact)
    this.#at.beside.passed(message.seq)
  }

  async finish(): Promise<void> {
    if (!this.#isFrozen) return
    const { shard, findings, beside } = this.#at
    for (const [key, why] of beside.broken) this.#addBrokenBase(key, why)
    const suspects: string[] = []
    for (const key of beside.shadow.keys()) {
      if (beside.shadow.hashOf(key) !== this.#found.get(key) && !this.#isLeaving(key)) suspects.push(key)
      this.#found.delete(key)
    }
    findings.looked(CHECK, shard, { documents: beside.shadow.size, facts: beside.count, upTo: beside.folded })
    for (const key of this.#found.keys()) if (!mayOutlive(key) && !this.#isLeaving(key)) suspects.push(key)
    this.#found.clear()
    const left: string[] = []
    for (let i = 0; i < suspects.length; i += LOOK_KEYS)
      left.push(...(await this.#differing(suspects.slice(i, i + LOOK_KEYS))))
    for (let i = 0; i < left.length; i += SURE_KEYS) await this.#report(left.slice(i, i + SURE_KEYS))
  }

  #isLeaving(key: string): boolean {
    const run = runOfKey(key)
    return run !== undefined && this.#at.beside.leaving.has(run)
  }

  /** Most say the same, only in another order. */
  async #differing(keys: readonly string[]): Promise<string[]> {
    const { connection, names, shard, beside } = this.#at
    const bucket = names.stateBucket(shard)
    const subjectOf = (key: string): string => names.kvSubject(bucket, key)
    const read = await connection.read((nc) => directGetMany(nc, names.kvStream(bucket), keys.map(subjectOf)))
    return keys.filter((key) => {
      const message = read.get(subjectOf(key))
      if (!message || partsSaid(message) > 1) return true
      const { doc, broken } = decoded(key, message)
      return broken !== undefined || differs(key, beside.shadow.get(key), doc)
    })
  }

  /** Looks again, at one position of the state, and folds up to there. */
  async #report(keys: readonly string[]): Promise<void> {
    const looked = await this.#consistent(keys)
    if (!looked) return
    const { beside } = this.#at
    for (const [i, key] of keys.entries()) {
      const { doc, broken } = looked[i] ?? { doc: undefined }
      const expected = beside.shadow.get(key)
      if (broken !== undefined) this.#addBroken(key, broken)
      else if (differs(key, expected, doc) && !(await this.#isRightly(key, expected, doc)))
        await this.#add(key, expected, doc)
    }
  }

  /** The documents at one checkpoint, up to which the log is folded then. */
  async #consistent(keys: readonly string[]): Promise<Looked[] | undefined> {
    const { connection, findings, shard, beside } = this.#at
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const before = await this.#position()
      const looked = await Promise.all(keys.map((key) => this.#look(key)))
      const after = await this.#position()
      const isOne = before && after && before.revision === after.revision && !after.position.redo
      if (isOne && after.position.seq >= beside.folded) {
        await beside.foldTo(after.position.seq)
        return looked
      }
      await connection.ready(PAUSE_MS)
    }
    findings.unseen(
      `${keys.length} documents of the state of shard ${shard}`,
      'they changed too fast to be read twice; verify again',
    )
    return undefined
  }

  async #position(): Promise<{ readonly position: Position; readonly revision: number } | undefined> {
    const found = await this.#message(ENGINE_KEY)
    const position = positionIn(this.#at.names.stateBucket(this.#at.shard), found)
    return position && found && { position, revision: found.seq }
  }

  async #look(key: string): Promise<Looked> {
    const first = await this.#message(key)
    if (!first) return { doc: undefined }
    const whole = partsSaid(first) > 1 ? await joinParts(key, first, (part) => this.#message(part)) : first
    return whole ? decoded(key, whole) : { doc: undefined, broken: 'one of its parts is gone, or of another document' }
  }

  async #message(key: string): Promise<StoredMessage | undefined> {
    const { connection, names, shard } = this.#at
    const bucket = names.stateBucket(shard)
    const query = { last_by_subj: names.kvSubject(bucket, key) }
    return await connection.read((nc) => leaderGet(nc, names.kvStream(bucket), query))
  }

  /** Documents of sealed runs leave the state some minutes after the base. */
  async #isRightly(key: string, expected: unknown, found: unknown): Promise<boolean> {
    const run = runOfKey(key)
    if (run === undefined || (expected !== undefined && found !== undefined)) return false
    const isThere = await this.#isSealed(run)
    if (isThere === undefined) return true
    if (!isThere) return found !== undefined && mayOutlive(key)
    return found === undefined || (await this.#isAboutToLeave(run))
  }

  /** Undefined: that cannot be seen, which is said. */
  async #isSealed(run: string): Promise<boolean | undefined> {
    const { connection, findings, shard } = this.#at
    try {
      return await isSealed(this.#at, run)
    } catch (error) {
      if (connection.isClosed) throw error
      findings.unseen(`whether run ${run} of shard ${shard} is sealed`, messageOf(error))
      return undefined
    }
  }

  async #isAboutToLeave(run: string): Promise<boolean> {
    const { beside, shard } = this.#at
    if (beside.leaving.has(run)) return true
    // It was sealed since the base was read.
    const manifest = await manifestOf(this.#at, shard)
    return manifest !== undefined && manifest.packs > (this.#at.manifest?.packs ?? 0)
  }

  async #add(key: string, expected: unknown, found: unknown): Promise<void> {
    const { shard, findings, beside } = this.#at
    const lost = await this.#missing.named(key, found)
    for (const one of lost) this.#addLost(key, one)
    const because = lost.length > 0 ? `; the log lacks ${lost.map(sayLost).join(', ')}` : ''
    const advice = lost.length > 0 ? `restore the log from a backup; if there is none, ${REBUILD}` : REBUILD
    const of = { check: CHECK, shard, document: key, advice }
    if (found === undefined) {
      const message = `document ${key} is not in the state; the log says up to ${beside.folded} that it is there`
      findings.add({ ...of, kind: 'document_missing', expected: comparable(key, expected), message })
    } else if (expected === undefined) {
      const message = `document ${key} is in the state; the log says nothing of it up to ${beside.folded}${because}`
      findings.add({ ...of, kind: 'document_unexpected', found: comparable(key, found), message })
    } else
      for (const difference of differences(comparable(key, expected), comparable(key, found))) {
        const field = difference.field === '' ? key : `${key}, field ${difference.field}`
        const message = `${field}: the log says ${say(difference.expected)}, the state has ${say(difference.found)}${because}`
        findings.add({ ...of, kind: 'document_differs', ...difference, message })
      }
  }

  /** Once, though several documents may name it. */
  #addLost(key: string, { fact, seq, field }: LostFact): void {
    if (this.#lost.has(fact ?? seq ?? '')) return
    this.#lost.add(fact ?? seq ?? '')
    const { shard, findings } = this.#at
    const which = fact === undefined ? { seq, field } : { fact }
    const message = `${sayLost({ fact, seq, field })} is neither on the log nor in the history; document ${key} says that it happened`
    findings.add({ check: CHECK, kind: 'fact_missing', shard, document: key, ...which, message, advice: RESTORE })
  }

  #addBrokenBase(key: string, why: string): void {
    const { shard, findings } = this.#at
    const message = `document ${key} of the base, in the history bucket, cannot be read: ${why}`
    const advice = 'restore the history bucket from a backup; the state itself is as it was'
    findings.add({ check: CHECK, kind: 'base_damaged', shard, document: key, message, advice })
  }

  #addBroken(key: string, why: string): void {
    const { shard, findings } = this.#at
    const message = `document ${key} cannot be read: ${why}`
    findings.add({ check: CHECK, kind: 'document_broken', shard, document: key, message, advice: REBUILD })
  }
}

function sayLost({ fact, seq, field }: LostFact): string {
  return fact ?? `message ${seq} (${field})`
}

function decoded(key: string, message: StoredMessage): Looked {
  try {
    return { doc: decodeDoc(key, message) }
  } catch (error) {
    return { doc: undefined, broken: messageOf(error) }
  }
}

function isGone({ payload, headers }: StoredMessage): boolean {
  return payload.length === 0 || headers.has('KV-Operation') || headers.has('Nats-Marker-Reason')
}

function differs(key: string, expected: unknown, found: unknown): boolean {
  return differences(comparable(key, expected), comparable(key, found), 1).length > 0
}

const SAID_MAX = 120

function say(value: unknown): string {
  if (value === undefined) return 'nothing'
  return cut(JSON.stringify(value) ?? typeof value, SAID_MAX, '…')
}
