/**
 * Facts: each that occurs once is there once, over log and history; each that a document names is
 * there; and no more sequences are empty than schedules can have left.
 */
import { proofsOf } from '../../../projections/verify/proofs.ts'
import { isRepeatable, isTimer, parsePath } from '../../../streams/facts.ts'
import type { SealedRun } from '../../../streams/history.ts'
import { hashBigInt } from '../../../streams/ids.ts'
import { placeAt } from '../../../streams/places.ts'
import { REMAINS } from '../../../streams/retention.ts'
import { leaderGet } from '../../log/nats.ts'
import { positionOf } from '../shard/checkpoint.ts'
import type { Check, LogMessage, ShardContext } from './check.ts'
import { type Duplicate, Ledger, Sequences } from './ledger.ts'
import { type Missing, RESTORE } from './missing.ts'

const CHECK = 'facts'
/** The server brings these, and may bring one again. */
const FIRED = '.timer_fired'
/** More are not looked at one by one. */
const LOOKED_MAX = 10_000

export class FactsCheck implements Check {
  readonly #at: ShardContext
  readonly #missing: Missing
  readonly #once: Ledger
  readonly #there = new Sequences()
  readonly #bySeq: Ledger
  #onLog = 0
  #sealed = 0
  /** Of schedules that stand on the log behind the base. */
  readonly #timers: number[] = []
  #first = 0
  #last = 0

  constructor(at: ShardContext, missing: Missing) {
    this.#at = at
    this.#missing = missing
    this.#once = new Ledger(at.scratch)
    this.#bySeq = new Ledger(at.scratch)
  }

  message({ message, path, fact }: LogMessage): void {
    const { seq } = message
    this.#onLog += 1
    this.#first ||= seq
    this.#last = seq
    this.#there.add(seq)
    if (isTimer(path)) {
      if (seq > this.#at.beside.base) this.#timers.push(seq)
    } else if (fact) this.#addOnce(path, seq)
  }

  #addOnce(path: string, seq: number): void {
    this.#bySeq.add(hashOfSeq(seq), seq)
    const name = parsePath(path)?.name
    if (name === undefined) return
    const end = placeAt(path)
    const isOften = isRepeatable(name) || path.endsWith(FIRED) || end !== path
    this.#once.add(hashBigInt(path), isOften ? 0 : seq)
    // Of the ways in which something ends there is one, whatever it is.
    if (end !== path) this.#once.add(hashBigInt(end), seq)
  }

  pack(_n: number, runs: readonly SealedRun[]): void {
    for (const { run, docs, facts } of runs) {
      for (const { path, seq } of facts) {
        this.#sealed += 1
        this.#there.add(seq)
        // What a run has left when it was pruned: another one may have its id by now.
        if (REMAINS in docs) this.#bySeq.add(hashOfSeq(seq), seq)
        else this.#addOnce(path, seq)
      }
      for (const [key, doc] of Object.entries(docs)) this.#want(key, doc, ` of the sealed run ${run}`)
    }
  }

  #want(key: string, doc: unknown, of: string): void {
    const { paths, seqs } = proofsOf(key, doc, this.#at.shard)
    for (const path of paths) this.#once.want(hashBigInt(path), JSON.stringify([path, key, of]))
    for (const { field, seq } of seqs) this.#bySeq.want(hashOfSeq(seq), JSON.stringify([seq, key, of, field]))
  }

  async finish(): Promise<void> {
    const { beside, findings, shard } = this.#at
    for (const key of beside.shadow.keys()) if (NAMING.test(key)) this.#want(key, beside.shadow.get(key), '')
    await this.#compareOnce()
    await this.#compareSeqs()
    const left = await this.#holes()
    findings.looked(CHECK, shard, { onLog: this.#onLog, sealed: this.#sealed, leftByRule: left })
  }

  async #compareOnce(): Promise<void> {
    const twice: Duplicate[] = []
    let looked = 0
    for (const found of this.#once.compare()) {
      if ('twice' in found) {
        if (twice.length < LOOKED_MAX) twice.push(found.twice)
        continue
      }
      const [path, key, of] = JSON.parse(found.missing) as [string, string, string]
      if (looked++ < LOOKED_MAX && !(await this.#missing.isPathMissing(path))) continue
      const { findings, shard } = this.#at
      const message = `fact ${path} is neither on the log nor in the history; document ${key}${of} says that it happened`
      findings.add({ check: CHECK, kind: 'fact_missing', shard, fact: path, document: key, message, advice: RESTORE })
    }
    for (const one of twice) await this.#reportTwice(one)
  }

  async #reportTwice({ marks }: Duplicate): Promise<void> {
    const { findings, shard } = this.#at
    const [a, b] = [await this.#pathAt(marks[0]), await this.#pathAt(marks[1])]
    // Two paths may have one hash.
    if (a !== undefined && b !== undefined && placeAt(a) !== placeAt(b)) return
    const path = a ?? b ?? 'a fact'
    const message = `${path} can occur once, and stands at ${marks[0]} and at ${marks[1]} of log and history; the first one counts`
    const advice = 'find out who writes to the log besides FlowStone: the server refuses the second one of its own'
    findings.add({ check: CHECK, kind: 'fact_twice', shard, fact: path, seq: Math.max(...marks), message, advice })
  }

  async #pathAt(seq: number): Promise<string | undefined> {
    const { connection, names, shard } = this.#at
    const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq }))
    return found && names.factPath(found.subject)
  }

  async #compareSeqs(): Promise<void> {
    const { findings, shard } = this.#at
    let looked = 0
    for (const found of this.#bySeq.compare()) {
      if ('twice' in found) continue
      const [seq, key, of, field] = JSON.parse(found.missing) as [number, string, string, string]
      // What a document was changed by last may have been sealed since.
      if (this.#there.has(seq) || (looked++ < LOOKED_MAX && !(await this.#missing.isSeqMissing(seq)))) continue
      const message = `message ${seq} of the log is neither there nor in the history; field ${field} of ${key}${of} names it`
      findings.add({ check: CHECK, kind: 'fact_missing', shard, seq, document: key, field, message, advice: RESTORE })
    }
  }

  /**
   * Behind the base only schedules leave the log: one that fires, or is taken away. Before it, what
   * is sealed leaves, and facts of no run that nobody needs. Returns how many sequences are empty.
   */
  async #holes(): Promise<number> {
    const { connection, names, shard, beside, findings } = this.#at
    const base = await positionOf(connection, names, names.historyBucket(shard))
    const from = Math.max(beside.base, base?.seq ?? 0) + 1
    // What was folded since, to look again, was not seen here.
    const to = Math.min(beside.folded, this.#last)
    const { count, first } = this.#there.missing(from, to)
    // Of those that stand behind what is folded, the fold knows nothing.
    const standing = this.#timers.filter((seq) => seq <= to).length
    const most = Math.max(0, beside.timers - standing)
    if (count > most) {
      const message = `${count} messages of the log between ${from} and ${to} are gone, and at most ${most} of them were schedules; the first: ${first.join(', ')}`
      const advice = 'nothing but a purge by hand takes them away: restore the log from a backup'
      findings.add({ check: CHECK, kind: 'log_has_holes', shard, seq: first[0] ?? from, message, advice })
    }
    return this.#last === 0 ? 0 : this.#there.missing(1, this.#last).count
  }
}

/** Documents that name facts. */
const NAMING = /^(run|barrier|key_chunks|gates|gate|asset|newest|concurrency)\./

function hashOfSeq(seq: number): bigint {
  // Spread over the parts of the ledger.
  return BigInt.asUintN(64, BigInt(seq) * 0x9e3779b185ebca87n)
}
