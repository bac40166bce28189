/** Pages of the log, newest first, and how many facts there were when. */

import { nearest } from '../../../streams/did-you-mean.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { FACTS, type Fact, type FactName, factFilter, isTimer } from '../../../streams/facts.ts'
import { parseRunId, type RunId } from '../../../streams/ids.ts'
import { positionOf } from '../../engine/shard/checkpoint.ts'
import { directNext, directSince, leaderGet, streamBounds } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { runFacts } from '../../log/run-facts.ts'
import type { RunDeps } from '../run-view.ts'

/** A fact of a log, without the keys and values that it may carry for a scatter. */
export interface FactView {
  readonly shard: number
  readonly seq: number
  readonly at: Date
  readonly kind: string
  readonly ids: Readonly<Record<string, string>>
  readonly data: unknown
}

/** Which facts are wanted; all that is named must hold. */
export interface FactsOptions {
  /** Names of facts, such as `run.finished`. */
  readonly kinds?: readonly string[] | undefined
  readonly run?: string | undefined
  readonly pipeline?: string | undefined
  /** Name of an asset, of whichever pipeline. */
  readonly asset?: string | undefined
  readonly since?: Date | undefined
  readonly until?: Date | undefined
  /** 1 to 500. Default 50. */
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly cursor?: string | undefined
}

/** Facts, newest first. `next`: undefined when there are no more on the logs. */
export interface FactsPage {
  readonly facts: readonly FactView[]
  readonly next: string | undefined
  /**
   * Before this time facts of sealed runs have left the logs, and are not shown: `factsOfRun` has
   * them. Undefined: none is sealed.
   */
  readonly sealedBefore: Date | undefined
}

/** How many facts were stored in a piece of time. */
export interface RailPoint {
  readonly from: Date
  readonly to: Date
  readonly facts: number
  /** Whether an asset failed in it. */
  readonly failed: boolean
}

const PAGE = 50
const PAGE_MAX = 500
const WINDOW_MAX = 65_536
const BATCH = 256
const POINTS_MAX = 500
/** With more facts than this since the look before, only the newest are shown. */
const BEHIND_MAX = 500
const BEHIND_SHOWN = 100

export async function factsPage(deps: RunDeps, options: FactsOptions): Promise<FactsPage> {
  const { limit = PAGE, cursor, until } = options
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_MAX)
    throw new InvalidError(`facts: limit must be a whole number from 1 to ${PAGE_MAX}`)
  const paths = pathsOf(options)
  await deps.found()
  const { connection, names } = deps
  const run = options.run === undefined ? undefined : parseRunId(options.run)
  const ends = endsOf(cursor, deps.shards)
  const shards = Array.from({ length: deps.shards }, (_, shard) => shard)
  const sealed = Promise.all(shards.map((shard) => sealedBefore(deps, shard)))
  sealed.catch(() => undefined)
  const pages = await Promise.all(
    shards.map(async (shard): Promise<Back> => {
      const { first, last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
      const before = ends[shard] ?? Number.POSITIVE_INFINITY
      const upTo = until === undefined ? last : ((await seqAt(deps, shard, until)) ?? last + 1) - 1
      const then = (await deps.docs.past?.seqOf(shard)) ?? last
      const high = Math.min(last, before - 1, upTo, then)
      const isElsewhere = run !== undefined && run.shard !== shard
      if (isElsewhere) return { facts: [], low: first, high, first }
      return await backwards(deps, shard, { first, high, paths, limit, since: options.since })
    }),
  )
  const all = pages.flatMap(({ facts }) => facts)
  const page = all.toSorted((a, b) => b.timeMs - a.timeMs || b.seq - a.seq).slice(0, limit)
  const lows = pages.map(({ low, high, facts }, shard) => {
    const shown = page.filter((fact) => fact.shard === shard)
    return shown.length === facts.length ? low : (shown.at(-1)?.seq ?? high + 1)
  })
  const isMore = pages.some(({ first }, shard) => (lows[shard] ?? 0) > first)
  const sealedMs = Math.max(...(await sealed))
  return {
    facts: page.map(viewOfFact),
    next: isMore ? lows.join('.') : undefined,
    sealedBefore: sealedMs > 0 ? new Date(sealedMs) : undefined,
  }
}

/** The time of the first fact of a shard behind the base: from there on all are on the log. */
async function sealedBefore({ connection, names, clock }: RunDeps, shard: number): Promise<number> {
  const base = await positionOf(connection, names, names.historyBucket(shard))
  if (!base || base.seq === 0) return 0
  const query = { seq: base.seq + 1, next_by_subj: '>' }
  const next = await connection.read((nc) => leaderGet(nc, names.log(shard), query))
  return next?.timeMs ?? clock.now()
}

interface Back {
  /** Newest first. */
  readonly facts: readonly Fact[]
  /** All of [low, high] was looked at. */
  readonly low: number
  readonly high: number
  readonly first: number
}

/** Looks at windows that grow, from the end: there may be few of a kind among many. */
async function backwards(
  deps: RunDeps,
  shard: number,
  wanted: {
    readonly first: number
    readonly high: number
    readonly paths: readonly string[]
    readonly limit: number
    readonly since: Date | undefined
  },
): Promise<Back> {
  const { first, paths, limit, since } = wanted
  const found: Fact[] = []
  const { high: top } = wanted
  let high = top
  for (let width = 2 * limit; high >= first && found.length < limit; width = Math.min(WINDOW_MAX, width * 4)) {
    const low = Math.max(first, high - width + 1)
    const facts = (await Promise.all(paths.map((path) => between(deps, shard, path, low, high)))).flat()
    facts.sort((a, b) => b.seq - a.seq)
    found.push(...facts.filter(({ timeMs }) => since === undefined || timeMs >= since.getTime()))
    high = low - 1
    // Behind it all is older.
    if (since !== undefined && facts.some(({ timeMs }) => timeMs < since.getTime())) high = first - 1
  }
  const last = found.length > limit ? found[limit - 1] : undefined
  return { facts: found.slice(0, limit), low: last?.seq ?? high + 1, high: top, first }
}

async function between(deps: RunDeps, shard: number, path: string, low: number, high: number): Promise<Fact[]> {
  const { connection, names } = deps
  const facts: Fact[] = []
  for (let from = low; from <= high; ) {
    const filter = names.fact(shard, path)
    const messages = await connection.read((nc) => directNext(nc, names.log(shard), from, filter, BATCH))
    for (const message of messages) {
      if (message.seq > high) return facts
      const fact = isTimer(names.factPath(message.subject) ?? '') ? undefined : factIfAny(names, shard, message)
      if (fact) facts.push(fact)
      from = message.seq + 1
    }
    if (messages.length === 0) break
  }
  return facts
}

/** Paths on the log that hold what is wanted. Throws InvalidError for what is no name of a fact. */
function pathsOf({ kinds, run, pipeline, asset }: FactsOptions): string[] {
  const given: Readonly<Record<string, string | undefined>> = { run, pipeline, asset }
  const [ofRun, ofPipeline] = [run ?? '*', pipeline ?? '*']
  if (kinds)
    return kinds.flatMap((kind) => {
      const path = Object.hasOwn(FACTS, kind) ? FACTS[kind as FactName].path : undefined
      if (path === undefined)
        throw new InvalidError(`facts: there is no fact ${kind}${nearest(kind, Object.keys(FACTS))}`)
      // A fact that has no such id is of no such thing.
      const isOf = Object.entries(given).every(([id, value]) => value === undefined || hasId(path, id))
      return isOf ? [factFilter(kind as FactName, given)] : []
    })
  if (asset !== undefined) {
    const ofRuns = [`scatter.${ofRun}.${asset}.>`, `gate.${ofRun}.${asset}.>`]
    // These do not say of which pipeline they are.
    return [`asset.${ofPipeline}.${asset}.${ofRun}.>`, ...(pipeline === undefined ? ofRuns : [])]
  }
  if (run !== undefined) return [`run.${run}.>`, `asset.${ofPipeline}.*.${run}.>`, `scatter.${run}.>`, `gate.${run}.>`]
  if (pipeline === undefined) return ['>']
  return ['pipeline', 'asset', 'schedule', 'sensor', 'subscription'].map((kind) => `${kind}.${pipeline}.>`)
}

function hasId(path: string, id: string): boolean {
  return path.split('.').includes(`:${id}`)
}

function endsOf(cursor: string | undefined, shards: number): number[] {
  if (cursor === undefined) return []
  const ends = cursor.split('.').map(Number)
  if (ends.length === shards && ends.every((seq) => Number.isSafeInteger(seq) && seq >= 0)) return ends
  throw new InvalidError('facts: cursor must be `next` of the page before')
}

/** Facts behind a place of each log, oldest first. */
export interface FactsBehind {
  readonly facts: readonly FactView[]
  /** The last sequence of each log that was looked at. */
  readonly ends: readonly number[]
  /** There were too many: some before the first one are left out. */
  readonly skipped: boolean
}

/** `ends`: of the look before. Undefined: none yet, so there are no facts. */
export async function factsBehind(deps: RunDeps, ends: readonly number[] | undefined): Promise<FactsBehind> {
  await deps.found()
  const { connection, names } = deps
  const found: Fact[] = []
  let skipped = false
  const next = await Promise.all(
    Array.from({ length: deps.shards }, async (_, shard) => {
      const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
      const end = ends?.[shard] ?? last
      // A log that was made anew begins before.
      if (last <= end) return last
      const isMany = last - end > BEHIND_MAX
      if (isMany) skipped = true
      found.push(...(await between(deps, shard, '>', isMany ? last - BEHIND_SHOWN + 1 : end + 1, last)))
      return last
    }),
  )
  return { facts: found.toSorted((a, b) => a.timeMs - b.timeMs || a.seq - b.seq).map(viewOfFact), ends: next, skipped }
}

/** The first message of the log at this time or later; undefined: none. */
async function seqAt({ connection, names }: RunDeps, shard: number, at: Date): Promise<number | undefined> {
  return (await connection.read((nc) => directSince(nc, names.log(shard), at, '>')))?.seq
}

const FAILED = 'asset.*.*.*.end.failed'

/**
 * How many facts were stored in each of `points` pieces of a time, and whether something failed. Of
 * pieces that have left the log: 0. What was taken off the log in between counts.
 */
export async function railOf(deps: RunDeps, from: Date, to: Date, points: number): Promise<RailPoint[]> {
  if (!(from < to)) throw new InvalidError('rail: from must be before to')
  if (!Number.isInteger(points) || points < 1 || points > POINTS_MAX)
    throw new InvalidError(`rail: points must be a whole number from 1 to ${POINTS_MAX}`)
  await deps.found()
  const stepMs = (to.getTime() - from.getTime()) / points
  const times = Array.from({ length: points + 1 }, (_, i) => new Date(from.getTime() + i * stepMs))
  const perShard = await Promise.all(Array.from({ length: deps.shards }, (_, shard) => railOfShard(deps, shard, times)))
  return Array.from({ length: points }, (_, i) => ({
    from: times[i] ?? from,
    to: times[i + 1] ?? to,
    facts: perShard.reduce((sum, one) => sum + (one.facts[i] ?? 0), 0),
    failed: perShard.some((one) => one.failed[i]),
  }))
}

async function railOfShard(
  deps: RunDeps,
  shard: number,
  times: readonly Date[],
): Promise<{ readonly facts: number[]; readonly failed: boolean[] }> {
  const { connection, names } = deps
  const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const seqs = await Promise.all(times.map(async (at) => (await seqAt(deps, shard, at)) ?? last + 1))
  const facts = seqs.slice(1).map((seq, i) => seq - (seqs[i] ?? seq))
  const failed = new Array<boolean>(facts.length).fill(false)
  // From one failure to the next piece: at most one question for each piece.
  for (let i = 0; i < failed.length; ) {
    const path = names.fact(shard, FAILED)
    const at = times[i]
    const next = at && (await connection.read((nc) => directSince(nc, names.log(shard), at, path)))
    const place = next ? times.findLastIndex((time) => time.getTime() <= next.timeMs) : failed.length
    if (place < failed.length) failed[place] = true
    i = Math.max(i, place) + 1
  }
  return { facts, failed }
}

/** Facts of a run in order, behind a sequence, also of one that is sealed. */
export async function runFactsPage(deps: RunDeps, run: RunId, after: number, limit: number): Promise<FactView[]> {
  await deps.found()
  const { shards, docs } = deps
  const { shard } = parseRunId(run)
  const found: FactView[] = []
  if (shard >= shards) return found
  const facts = docs.past ? docs.factsOfRun(run) : runFacts(deps, run, { after })
  for await (const fact of facts) {
    if (fact.seq <= after) continue
    found.push(viewOfFact(fact))
    if (found.length >= limit) break
  }
  return found
}

export function viewOfFact(fact: Fact): FactView {
  const { shard, seq, timeMs, name, ids } = fact
  return { shard, seq, at: new Date(timeMs), kind: name, ids, data: dataOf(fact) }
}

/** Without the lists that may be long. */
function dataOf(fact: Fact): unknown {
  if (fact.name === 'scatter.items') {
    const { keys: _, encoding: __, ...data } = fact.data
    return data
  }
  if (fact.name !== 'scatter.outcomes') return fact.data
  const { values: _, encoding: __, ...data } = fact.data
  return data
}
