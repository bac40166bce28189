/** `flow.runs`: finds runs by the lists in the state (projections/run/lists.ts). */
import { listKey, listOf } from '../../projections/run/lists.ts'
import type { ListedRun, RunList, RunListEntry } from '../../projections/state.ts'
import { InvalidError } from '../../streams/errors.ts'
import { parseRunId } from '../../streams/ids.ts'
import { shown } from '../../streams/shown.ts'
import { type AnyAsset, isAsset } from '../define/asset-type.ts'
import { untilFoldedTo } from '../engine/shard/until-folded.ts'
import { missingRun } from '../log/pruned.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { type AssetPlace, placeOf } from '../runs/owner.ts'
import { mustBeRegistered } from '../runs/registered.ts'
import { checkField, parseTags } from '../runs/run-request.ts'
import { viewOfRun } from './run.ts'
import { readRun, readRuns } from './run-doc.ts'
import { isInternal, type RunDeps, type RunView } from './run-view.ts'

/** Which runs `flow.runs` lists. */
export interface RunsOptions {
  /** True: only those that have not ended. */
  readonly open?: boolean
  /** Only those in one of these states. */
  readonly status?: RunView['status'] | readonly RunView['status'][]
  /** The asset that was asked for, as declared or by name: `'orders/invoice'`. */
  readonly target?: AnyAsset | string
  /** Runs that have all of these tags. */
  readonly tag?: Readonly<Record<string, string>>
  readonly partition?: string
  /** Asked for at this time or later. */
  readonly since?: Date
  /** 1 to 10,000. Default 100. */
  readonly limit?: number
  /** The id of a run: those that come after it in the list. */
  readonly after?: string
}

const OPTIONS: OptionNames<RunsOptions> = {
  open: true,
  status: true,
  target: true,
  tag: true,
  partition: true,
  since: true,
  limit: true,
  after: true,
}
const STATUSES = ['requested', 'running', 'succeeded', 'failed', 'cancelled'] as const
const LIMIT_MAX = 10_000
/** How many documents are asked for side by side. */
const READ_AHEAD = 128

interface Wanted {
  readonly statuses: readonly string[] | undefined
  readonly target: AssetPlace | undefined
  readonly tags: Readonly<Record<string, string>>
  readonly partition: string | undefined
  readonly sinceMs: number
  readonly limit: number
  readonly after: string | undefined
}

/**
 * Throws InvalidError that names the option, for `after` `not_found` and `pruned`, and `not_found`
 * as `mustBeRegistered` does.
 */
export async function listRuns(deps: RunDeps, options: RunsOptions): Promise<RunView[]> {
  const wanted = parse(options)
  const found = await findRuns(deps, wanted)
  if (found.length === 0 && wanted.target) await mustBeRegistered(deps, wanted.target)
  return found
}

/** The same, where nothing may be found whatever the target is. */
export async function runsIfAny(deps: RunDeps, options: RunsOptions): Promise<RunView[]> {
  return await findRuns(deps, parse(options))
}

async function findRuns(deps: RunDeps, wanted: Wanted): Promise<RunView[]> {
  await deps.found()
  await untilListed(deps)
  const isOpen = wanted.statuses?.every((status) => status === 'requested' || status === 'running') ?? false
  const list = listFor(wanted)
  const isListed = !isOpen
  const from = wanted.after === undefined ? placeOfPast(deps) : await placeIn(deps, wanted.after, list)
  const sources = Array.from({ length: deps.shards }, (_, shard) =>
    isListed ? listed(deps, shard, list, from) : openRuns(deps, shard, from),
  )
  const found: RunView[] = []
  for await (const doc of merged(sources)) {
    if (doc.requestedMs < wanted.sinceMs && list !== listOf.ended('failed') && list !== listOf.ended('cancelled')) break
    if (!fits(doc, wanted)) continue
    found.push(viewOfRun(doc))
    if (found.length >= wanted.limit) break
  }
  return found
}

function parse(options: RunsOptions): Wanted {
  refuseUnknown('runs', options, OPTIONS)
  const { open, target, partition, since, limit = 100, after } = options
  const given: unknown = options.status
  const statuses = given === undefined ? undefined : Array.isArray(given) ? given : [given]
  const wrong = statuses?.find((status) => !STATUSES.includes(status))
  if (wrong !== undefined)
    throw new InvalidError(`runs: status must be one of ${STATUSES.join(', ')}, got ${shown(wrong)}`)
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= LIMIT_MAX))
    throw new InvalidError(`runs: limit must be a whole number from 1 to ${LIMIT_MAX}, got ${shown(limit)}`)
  if (since !== undefined && !(since instanceof Date && Number.isFinite(since.getTime())))
    throw new InvalidError('runs: since must be a Date')
  checkField('runs: partition', partition)
  if (target !== undefined && typeof target !== 'string' && !isAsset(target))
    throw new InvalidError("runs: target must be an asset, or a text such as 'orders/invoice'")
  const opened = STATUSES.filter((status) => status === 'requested' || status === 'running')
  return {
    statuses: open ? opened.filter((status) => statuses?.includes(status) ?? true) : statuses,
    target: target === undefined ? undefined : placeOf('runs: target', target),
    tags: parseTags('runs: tag', options.tag) ?? {},
    partition,
    sinceMs: since?.getTime() ?? Number.NEGATIVE_INFINITY,
    limit,
    after: after === undefined ? undefined : parseRunId(after).id,
  }
}

/** The list that is likely to be the shortest. */
function listFor({ tags, partition, statuses, target }: Wanted): string {
  const [tag] = Object.entries(tags)
  if (tag) return listOf.tag(...tag)
  if (partition !== undefined) return listOf.partition(partition)
  const [status, more] = statuses ?? []
  if ((status === 'failed' || status === 'cancelled') && more === undefined) return listOf.ended(status)
  if (target) return listOf.target(target.pipeline, target.asset)
  return listOf.all()
}

function fits(run: ListedRun, { statuses, target, tags, partition, sinceMs }: Wanted): boolean {
  if (!target && isInternal(run)) return false
  if (statuses && !statuses.includes(run.status)) return false
  if (target && (run.pipeline !== target.pipeline || run.target !== target.asset)) return false
  if (partition !== undefined && run.partition !== partition) return false
  if (run.requestedMs < sinceMs) return false
  return Object.entries(tags).every(([name, value]) => run.tags?.[name] === value)
}

/** Where a page goes on: behind this run, which was added then. */
interface Place {
  readonly run: string
  readonly shard: number
  readonly timeMs: number
}

async function placeIn(deps: RunDeps, run: string, list: string): Promise<Place> {
  const { shard } = parseRunId(run)
  const doc = shard < deps.shards ? await readRun(deps, run) : undefined
  if (!doc) throw await missingRun(deps, run, 'runs: after: ')
  const isEnded = list === listOf.ended('failed') || list === listOf.ended('cancelled')
  return { run, shard, timeMs: isEnded ? (doc.finishedMs ?? doc.requestedMs) : doc.requestedMs }
}

/** Lists are read as they are now, which may be a moment ago. */
async function untilListed(deps: RunDeps): Promise<void> {
  const { past } = deps.docs
  if (!past) return
  const shards = Array.from({ length: deps.shards }, (_, shard) => shard)
  await Promise.all(shards.map(async (shard) => await untilFoldedTo(deps, shard, await past.seqOf(shard))))
}

/** In the past a list ends with what had been added by then. */
function placeOfPast({ docs: { past } }: RunDeps): Place | undefined {
  return past && { run: '', shard: -1, timeMs: past.timeMs }
}

type Listed = AsyncGenerator<{ readonly doc: ListedRun; readonly timeMs: number }>

/** The runs of a list in one shard, from the newest on. */
async function* listed(deps: RunDeps, shard: number, list: string, from: Place | undefined): Listed {
  const { head, base } = await listDocs(deps, shard, list)
  if (!head) return
  let page = head.pages
  let entries: readonly RunListEntry[] = shownIn(head.runs, page, base)
  if (from) {
    page = await pageOf(deps, shard, list, head, base, from.timeMs)
    if (page < head.pages) entries = await pageDoc(deps, shard, list, page, base)
  }
  const isWanted = behind(shard, from)
  for (;;) {
    yield* docsOf(deps, shard, entries.toReversed().filter(isWanted))
    page -= 1
    if (page < (base?.from ?? 0)) return
    entries = await pageDoc(deps, shard, list, page, base)
  }
}

/** The last page whose first run was added at this time or before. */
async function pageOf(
  deps: RunDeps,
  shard: number,
  list: string,
  head: RunList,
  base: RunList | undefined,
  timeMs: number,
): Promise<number> {
  const [first] = head.runs
  if (head.pages === 0 || (first && first[1] <= timeMs)) return head.pages
  let [low, high] = [base?.from ?? 0, head.pages - 1]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const [entry] = await pageDoc(deps, shard, list, middle, base)
    if (entry && entry[1] <= timeMs) low = middle
    else high = middle - 1
  }
  return Math.max(low, 0)
}

/** Says of runs of a shard, given from the newest on, which of them are behind a place. */
function behind(shard: number, from: Place | undefined): (entry: RunListEntry) => boolean {
  // Of runs of the same millisecond the log's order counts, and the lower shard comes first.
  let isBehind = from === undefined || shard > from.shard
  return ([run, timeMs]) => {
    if (!from || timeMs < from.timeMs) return true
    if (timeMs > from.timeMs) return false
    const before = isBehind
    if (run === from.run) isBehind = true
    return before
  }
}

async function* openRuns(deps: RunDeps, shard: number, from: Place | undefined): Listed {
  const prefix = 'open.'
  const ids = (await deps.docs.keys(shard, prefix)).map((key) => key.slice(prefix.length))
  const found: { doc: ListedRun; timeMs: number }[] = []
  for await (const one of docsOf(
    deps,
    shard,
    ids.map((id) => [id, 0] as RunListEntry),
  ))
    if (one.doc.finishedMs === undefined) found.push({ doc: one.doc, timeMs: one.doc.requestedMs })
  found.sort((a, b) => b.timeMs - a.timeMs || (a.doc.id < b.doc.id ? 1 : -1))
  const isWanted = behind(shard, from)
  for (const one of found) if (isWanted([one.doc.id, one.timeMs])) yield one
}

async function* docsOf(deps: RunDeps, shard: number, listed: readonly RunListEntry[]): Listed {
  const entries = asOfThen(deps, listed)
  // A few first: whoever wants the newest one needs no more.
  for (let i = 0, count = 8; i < entries.length; i += count, count = READ_AHEAD) {
    const some = entries.slice(i, i + count).filter(([, , shown]) => shown !== null)
    const wanted = some.flatMap(([run, , shown]) => (shown ? [] : [run]))
    const docs = await readRuns(deps, shard, wanted)
    for (const [run, timeMs, shown] of some) {
      const doc = shown ?? docs.get(run)
      if (doc) yield { doc, timeMs: timeMs || doc.requestedMs }
    }
  }
}

/** In the past a run had perhaps not ended yet, or not begun: its own document says so. */
function asOfThen({ docs: { past } }: RunDeps, entries: readonly RunListEntry[]): readonly RunListEntry[] {
  if (!past) return entries
  return entries.map(([run, timeMs, shown]) =>
    shown?.finishedMs !== undefined && shown.finishedMs < past.timeMs ? [run, timeMs, shown] : [run, timeMs],
  )
}

/** The newest of all shards first. */
async function* merged(sources: readonly Listed[]): AsyncGenerator<ListedRun> {
  const heads = await Promise.all(sources.map((source) => source.next()))
  for (;;) {
    let newest = -1
    for (const [i, head] of heads.entries()) {
      const best = heads[newest]
      if (!head.done && (!best || best.done || head.value.timeMs > best.value.timeMs)) newest = i
    }
    const [head, source] = [heads[newest], sources[newest]]
    if (!head || head.done || !source) return
    yield head.value.doc
    heads[newest] = await source.next()
  }
}

/** The state's list, and the base's, which shows runs that are sealed. */
async function listDocs(deps: RunDeps, shard: number, list: string): Promise<{ head?: RunList; base?: RunList }> {
  const { docs } = deps
  const key = listKey.list(list)
  const [head, base] = (await Promise.all([docs.read(shard, key), docs.ofBase(shard, key)])) as [
    RunList | undefined,
    RunList | undefined,
  ]
  return { ...(head ? { head } : {}), ...(base ? { base } : {}) }
}

/** A full page: of the base, where it is full, too. */
async function pageDoc(
  { docs }: RunDeps,
  shard: number,
  list: string,
  n: number,
  base: RunList | undefined,
): Promise<RunListEntry[]> {
  const key = listKey.page(list, n)
  const page = await (n < (base?.pages ?? 0) ? docs.ofBase(shard, key) : docs.read(shard, key))
  // The bucket's type of document follows from its key.
  return shownIn((page as RunListEntry[] | undefined) ?? [], n, base)
}

/** The entries of a page, or of the head, as the base shows them. */
function shownIn(entries: readonly RunListEntry[], n: number, base: RunList | undefined): RunListEntry[] {
  if (n !== base?.pages) return [...entries]
  // By their time, too: a run that was pruned, and another one under its key, have the same id.
  const shown = new Map(base.runs.map((entry) => [`${entry[0]} ${entry[1]}`, entry]))
  return entries.map((entry) => shown.get(`${entry[0]} ${entry[1]}`) ?? entry)
}
