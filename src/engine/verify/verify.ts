/**
 * Verify: compares all that a namespace holds with what its log says. It only reads: it takes no
 * claim, writes nothing, and engines and workers go on meanwhile.
 *
 *   base      the state beside begins with it
 *   log       is read once, in order, and folded up to where the state stood
 *   state     is read as it is at a checkpoint, and the log is folded up to there
 *   history   each pack is read
 *   compare   what differs is looked at once more, and then reported
 *
 * See docs/decisions/verify.md.
 */

import { nearest } from '../../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import { type HistoryManifest, historyKey, type SealedRun } from '../../../streams/history.ts'
import { isInRanges } from '../../../streams/retention.ts'
import { shown } from '../../../streams/shown.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { streamBounds } from '../../log/nats.ts'
import { manifestOf, packNumbers, readPack } from '../../log/packs.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import { historyLost } from '../history/lost.ts'
import { GRACE_MS } from '../maintenance/expected.ts'
import { foldedTo, positionOf } from '../shard/checkpoint.ts'
import { Beside } from './beside.ts'
import { NO_STATE, type ShardContext, type VerifyContext } from './check.ts'
import { type Checks, checksOf, type ShardChecks, VERIFY_CHECKS, type VerifyCheckName } from './checks.ts'
import { isDamage } from './damage.ts'
import { Pace } from './pace.ts'
import { Findings, type VerifyProgress, type VerifyReport } from './report.ts'
import { Scratch } from './scratch.ts'

const TAKE = 500
const RATE = 20_000
const FINDINGS = 1000

/** How `flow.verify` works. */
export interface VerifyOptions {
  /**
   * Which checks: `state`, `facts`, `history`, `values`, `open`. Default: all of them. What has not
   * been asked for is not read.
   */
  readonly only?: readonly VerifyCheckName[]
  /**
   * Messages that are read in a second, at most, so that others on the same server are not
   * disturbed. Default 20,000.
   */
  readonly rate?: number
  /** Findings that are listed; more are counted. Default 1,000. */
  readonly limit?: number
  /** Called with how far it is, every 500 messages. */
  readonly onProgress?: (progress: VerifyProgress) => void
  /** Ends it early: it rejects with the reason. */
  readonly signal?: AbortSignal
}

export interface VerifyDeps {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
  readonly clock: Pick<ServerClock, 'now'>
  /** What is younger is not missed. For tests. */
  readonly graceMs?: number
}

export async function verify(deps: VerifyDeps, options: VerifyOptions): Promise<VerifyReport> {
  const { rate = RATE, limit = FINDINGS, signal, onProgress } = options
  const wanted = wantedOf(options.only)
  for (const [name, value] of Object.entries({ rate, limit }))
    if (!Number.isInteger(value) || value < 1)
      throw new InvalidError(`verify: ${name} must be a whole number from 1, got ${shown(value)}`)
  const startedMs = performance.now()
  const { connection, names, shards, clock, graceMs = GRACE_MS } = deps
  using scratch = new Scratch()
  const findings = new Findings(limit)
  const context: VerifyContext = {
    connection,
    names,
    shards,
    clock,
    scratch,
    findings,
    pace: new Pace(rate, signal),
    progress: (progress) => onProgress?.(progress),
    graceMs,
  }
  const checks = checksOf(context, wanted)
  let facts = 0
  for (let shard = 0; shard < shards; shard++) facts += await verifyShard(context, checks, shard)
  await checks.finish()
  const { listed, more, notes, isGood, checks: looked } = findings
  const durationMs = performance.now() - startedMs
  return { ok: isGood, findings: listed, more, checks: looked, notes, facts, durationMs }
}

function wantedOf(only: readonly VerifyCheckName[] | undefined): ReadonlySet<VerifyCheckName> {
  if (only === undefined) return new Set(VERIFY_CHECKS)
  const given: unknown = only
  if (!Array.isArray(given) || !given.every((one) => typeof one === 'string'))
    throw new InvalidError(`verify: only must be a list of checks: ${VERIFY_CHECKS.join(', ')}`)
  for (const name of only)
    if (!VERIFY_CHECKS.includes(name))
      throw new InvalidError(`verify: there is no check ${name}${nearest(name, VERIFY_CHECKS)}`)
  if (only.length === 0) throw new InvalidError(`verify: only must name a check: ${VERIFY_CHECKS.join(', ')}`)
  return new Set(only)
}

/** Returns how many facts it has read. */
async function verifyShard(context: VerifyContext, checks: Checks, shard: number): Promise<number> {
  const { connection, names, scratch } = context
  const at: ShardContext = { ...context, shard, beside: new Beside({ connection, names, shard, scratch }) }
  const of = checks.of(at)
  const facts = of.all.some(({ message }) => message) ? await readLog(at, of) : 0
  if (of.all.some(({ pack }) => pack)) await readPacks(at, of)
  for (const check of of.all) await check.finish()
  return facts
}

async function readLog(at: ShardContext, of: ShardChecks): Promise<number> {
  const { connection, names, shard, beside } = at
  // Before the base: what is sealed from now on stays on the log for a while.
  const { first, last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  if (of.state) await beside.begin()
  const folded = await foldedTo(connection, names, shard)
  const isFolded = of.state !== undefined && folded >= beside.base && folded > 0
  if (of.state && !isFolded && last > 0) at.findings.unseen(`the state of shard ${shard}`, NO_STATE)
  const pass = new Pass(at, of, first)
  let facts = 0
  if (of.state && isFolded) {
    facts += await pass.read(folded)
    const upTo = await of.state.freeze(folded)
    if (upTo !== undefined) facts += await pass.read(upTo)
    beside.passed(upTo ?? folded)
  }
  pass.stopFolding()
  return facts + (await pass.read(last))
}

/** The log, once, in order. */
class Pass {
  readonly #at: ShardContext
  readonly #checks: ShardChecks
  #next: number
  #folds = true

  constructor(at: ShardContext, checks: ShardChecks, first: number) {
    this.#at = at
    this.#checks = checks
    this.#next = first
  }

  /** The state says no more from here on. */
  stopFolding(): void {
    this.#folds = false
  }

  /** Up to a sequence. Returns how many messages there were. */
  async read(upTo: number): Promise<number> {
    const { connection, names, shard, pace, progress } = this.#at
    if (this.#next > upTo) return 0
    const reader = new Reader(connection, names.log(shard), this.#next, { onDenied: 'throw' })
    let count = 0
    try {
      while (this.#next <= upTo) {
        const messages = (await reader.take(TAKE, upTo)).filter(({ seq }) => seq <= upTo)
        const newest = messages.at(-1)
        if (!newest) break
        for (const message of messages) await this.#give(message)
        this.#next = newest.seq + 1
        count += messages.length
        progress({ shard, step: 'reading the log', done: newest.seq, total: upTo })
        await pace.took(messages.length)
      }
    } finally {
      reader.stop()
    }
    this.#next = Math.max(this.#next, upTo + 1)
    return count
  }

  async #give(message: Parameters<typeof factIfAny>[2]): Promise<void> {
    const { names, shard } = this.#at
    const path = names.factPath(message.subject) ?? ''
    const given = { message, path, fact: factIfAny(names, shard, message) }
    for (const check of this.#checks.all) {
      if (check === this.#checks.state && !this.#folds) continue
      // Few of them have to wait for anything.
      const taken = check.message?.(given)
      if (taken) await taken
    }
  }
}

async function readPacks(at: ShardContext, of: ShardChecks): Promise<void> {
  const { shard, pace, progress } = at
  const manifest = await manifestIn(at, of)
  if (!manifest) return
  at.manifest = manifest
  for (const n of packNumbers(manifest)) {
    const runs = await packOf(at, of, n)
    if (runs) {
      for (const check of of.all) await check.pack?.(n, runs)
      const facts = runs.reduce((sum, run) => sum + run.facts.length, 0)
      await pace.took(Math.max(1, facts))
    }
    progress({ shard, step: 'reading the history', done: n + 1, total: manifest.packs })
  }
}

/** Undefined: it was pruned meanwhile, or cannot be read, which is said then. */
async function packOf(at: ShardContext, of: ShardChecks, n: number): Promise<readonly SealedRun[] | undefined> {
  try {
    const runs = await readPack(at, at.shard, n)
    if (runs) return runs
  } catch (error) {
    if (at.connection.isClosed) throw error
    const isOfPack = isDamage(error) || (error instanceof FlowStoneError && error.code === 'newer_version')
    sayPack(at, isOfPack ? of : undefined, n, error)
    return undefined
  }
  // It may have been pruned meanwhile.
  const { gone = [] } = (await manifestOf(at, at.shard)) ?? {}
  if (!isInRanges(gone, n)) sayPack(at, of, n, undefined)
  return undefined
}

/** `of`: whose history check says it, if there is one. */
function sayPack({ shard, findings }: ShardContext, of: ShardChecks | undefined, n: number, error: unknown): void {
  if (of?.history) of.history.damaged(n, error)
  else
    findings.unseen(`${historyKey.pack(n)} of the history of shard ${shard}`, error ? messageOf(error) : 'it is gone')
}

/** The document that says which packs there are: from the first checkpoint of the base on. */
async function manifestIn(at: ShardContext, of: ShardChecks): Promise<HistoryManifest | undefined> {
  const { connection, names, shard, findings } = at
  const manifest = await manifestOf(at, shard)
  if (manifest) return manifest
  const base = await positionOf(connection, names, names.historyBucket(shard))
  if (!base || base.seq === 0 || base.redo) {
    const lost = await historyLost(at)
    if (lost && of.history) of.history.lost(lost.message)
    else if (lost) findings.unseen(`the history of shard ${shard}`, 'it is gone')
    return undefined
  }
  // It may have come meanwhile.
  const later = await manifestOf(at, shard)
  if (!later && of.history) of.history.manifestGone()
  else if (!later) findings.unseen(`the history of shard ${shard}`, 'its manifest is gone')
  return later
}
