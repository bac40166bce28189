/** Reads what an explanation is made of: facts of the run, and those of others that it names. */
import { groupKey } from '../../projections/run/concurrency-key.ts'
import { type ConcurrencyState, type RunState, stateKey } from '../../projections/state.ts'
import type { FailedAt, WhyInput } from '../../projections/why/types.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { FACTS, type Fact, type FactName, type FactOf, factFilter, factNames, factPath } from '../../streams/facts.ts'
import { assetName, parseRunId, type RunId } from '../../streams/ids.ts'
import { foldedTo } from '../engine/shard/checkpoint.ts'
import { sealedAt, sealedParts } from '../log/history.ts'
import { directNext, leaderGet } from '../log/nats.ts'
import { factIfAny } from '../log/read-fact.ts'
import { runFact } from '../log/run-fact.ts'
import { pathsOfRun, runFacts } from '../log/run-facts.ts'
import { readRun } from './run-doc.ts'
import type { RunDeps } from './run-view.ts'

/** Runs that were there before, and facts of them, are read up to here. */
const RUNS_MAX = 8
const FACTS_MAX = 64
/** Runs that hold the places of a concurrency key. */
const HOLDERS_MAX = 3
/** Documents about failed instances, and facts with their errors. */
const FAILURES_MAX = 8
const OUTCOMES_MAX = 32
/** Ends of runs that are looked through for the one that made room. */
const ENDS_MAX = 2000
const ENDS_STEP = 200
/** How far before a request its trigger is looked for. */
const RECEIVED_BEFORE = 500

/** Of these a scatter has many. */
const MANY: ReadonlySet<FactName> = new Set(['scatter.items', 'scatter.outcomes', 'lease.returned', 'scatter.begun'])

/** Undefined where there is no such run. */
export async function whyInputOf(deps: RunDeps, run: RunId): Promise<WhyInput | undefined> {
  const { shard } = parseRunId(run)
  if (shard >= deps.shards) return undefined
  const own = await factsUnder(
    deps,
    run,
    pathsOfRun(run, (name) => !MANY.has(name) && !isOfGate(name)),
  )
  const request = own.find((fact) => fact.name === 'run.requested')
  if (!request) return undefined
  const [gates, registered, doc, folded] = await Promise.all([
    gatesOf(deps, run, own),
    registeredOf(deps, run, own),
    readRun(deps, run),
    // What is shown of the past is folded.
    deps.docs.past ? undefined : foldedTo(deps.connection, deps.names, shard),
  ])
  const facts = [...registered, ...own, ...gates]
  const [others, queue, turn, failures] = await Promise.all([
    othersOf(deps, request, facts),
    queueOf(deps, shard, own, doc),
    turnOf(deps, shard, request, doc),
    failuresOf(deps, shard, run, own),
  ])
  return {
    run,
    facts: [...facts, ...failures.facts],
    others: [...others, ...(queue?.facts ?? [])],
    failed: failures.failed,
    ...(folded === undefined ? {} : { foldedTo: folded }),
    ...(queue ? { queued: { behind: queue.behind } } : {}),
    ...(turn ? { turn } : {}),
  }
}

/** All gates of assets that have waited. Those of instances may be very many. */
async function gatesOf(deps: RunDeps, run: RunId, own: readonly Fact[]): Promise<Fact[]> {
  const assets = new Set(own.flatMap((fact) => (fact.name === 'asset.suspended' ? [fact.ids.asset] : [])))
  const paths = [...assets].flatMap((asset) =>
    factNames()
      .filter(isOfGate)
      .map((name) => factFilter(name, { run, asset })),
  )
  return await factsUnder(deps, run, paths)
}

function isOfGate(name: FactName): boolean {
  return FACTS[name].path.startsWith('gate.')
}

/** Some facts of one run: all of a large scatter would be too many to hold. */
async function factsUnder(deps: RunDeps, run: RunId, paths: readonly string[]): Promise<Fact[]> {
  const facts: Fact[] = []
  for await (const fact of runFacts(deps, run, { paths })) if (seen(deps, fact)) facts.push(fact)
  return facts
}

/** The versions of the pipeline that it had. */
async function registeredOf(deps: RunDeps, run: RunId, own: readonly Fact[]): Promise<Fact[]> {
  const request = own.find((fact) => fact.name === 'run.requested')
  if (!request) return []
  const { pipeline, version } = request.data
  const versions = new Set([
    version,
    ...own.flatMap((fact) => (fact.name === 'run.adopt_requested' ? [fact.data.version] : [])),
  ])
  return await found([...versions].map((v) => factOf(deps, run, 'pipeline.registered', { pipeline, version: v })))
}

async function found(reads: readonly Promise<Fact | undefined>[]): Promise<Fact[]> {
  return (await Promise.all(reads)).filter((fact) => fact !== undefined)
}

/** What the facts of the run name: who asked, who made what it takes, runs that it waited for. */
async function othersOf(deps: RunDeps, request: FactOf<'run.requested'>, facts: readonly Fact[]): Promise<Fact[]> {
  const { parent, retry, redrive, retryOf, pipeline } = request.data
  const read = <N extends FactName>(run: string, name: N, ids: Readonly<Record<string, string>> = {}) =>
    isThere(deps, run) ? factOf(deps, run, name, { run, ...ids }) : Promise.resolve(undefined)
  const planned = facts.find((fact) => fact.name === 'run.planned')?.data.assets ?? []
  const reads: Promise<Fact | undefined>[] = [...outsideOf(deps, request)]
  if (parent) {
    reads.push(read(parent.run, 'child.requested', { asset: parent.asset, gate: parent.gate }))
    if (facts.some(({ name }) => name === 'run.abandoned')) reads.push(read(parent.run, 'run.cancel_requested'))
  }
  if (redrive) reads.push(read(redrive.run, 'scatter.closed', { asset: redrive.asset }))
  const before = retry?.run ?? redrive?.run ?? retryOf
  if (before !== undefined) reads.push(read(before, 'run.finished'))
  for (const fact of facts.filter((one) => one.name === 'child.requested').slice(-RUNS_MAX))
    reads.push(read(fact.data.child, 'run.finished'))
  const makers = planned.flatMap(({ name, from, candidate }) => {
    const run = from?.run ?? candidate?.run
    return run === undefined ? [] : [{ name, run }]
  })
  for (const { name, run } of makers.slice(0, FACTS_MAX))
    reads.push(read(run, 'asset.materialized', { pipeline, asset: name }))
  const earlier = new Set(planned.flatMap(({ candidate }) => candidate?.run ?? []))
  if (retry ?? redrive) earlier.add(retry?.run ?? redrive?.run ?? '')
  const earlierFacts = [...earlier].slice(0, RUNS_MAX).map((run) => earlierOf(deps, run, facts))
  return [...(await found(reads)), ...(await Promise.all(earlierFacts)).flat()]
}

function isThere({ shards }: RunDeps, run: string): boolean {
  return parseRunId(run).shard < shards
}

/** The trigger, or the occurrence of a schedule, if it is still on the log. */
function outsideOf(deps: RunDeps, request: FactOf<'run.requested'>): Promise<Fact | undefined>[] {
  const { connection, names } = deps
  const { schedule, trigger, pipeline } = request.data
  const last = async (path: string): Promise<Fact | undefined> => {
    const last_by_subj = names.fact(0, path)
    const message = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj }))
    return message && factIfAny(names, 0, message)
  }
  const reads: Promise<Fact | undefined>[] = []
  if (schedule) {
    const ids = { pipeline, schedule: schedule.name, occurrence: schedule.occurrence }
    reads.push(last(factPath('schedule.fired', ids)))
  }
  if (trigger) reads.push(receivedOf(deps, trigger.seq, request))
  return reads
}

/**
 * Its subject ends in the time of the message, which the request does not name. So it is looked for
 * among the facts just before the request, where both are on one log.
 */
async function receivedOf(
  { connection, names }: RunDeps,
  seq: number,
  request: FactOf<'run.requested'>,
): Promise<Fact | undefined> {
  if (request.shard !== 0) return undefined
  const filter = names.fact(0, factPath('trigger.received', { trigger: '*' }))
  const from = Math.max(1, request.seq - RECEIVED_BEFORE)
  const some = await connection.read((nc) => directNext(nc, names.log(0), from, filter, RECEIVED_BEFORE))
  const before = some.flatMap((message) => (message.seq < request.seq ? (factIfAny(names, 0, message) ?? []) : []))
  return before.findLast((fact) => fact.name === 'trigger.received' && fact.data.seq === seq)
}

/** Of a run whose values were looked at: by which code, from what, and what of it. */
async function earlierOf(deps: RunDeps, run: string, facts: readonly Fact[]): Promise<Fact[]> {
  if (!isThere(deps, run)) return []
  const request = await factOf(deps, run, 'run.requested')
  if (!request) return []
  const { pipeline, version } = request.data
  const registered = facts.findLast((fact) => fact.name === 'pipeline.registered')
  const assets = (registered?.data.assets ?? []).slice(0, FACTS_MAX).map(({ name }) => assetName(name))
  return [
    request,
    ...(await found([
      factOf(deps, run, 'pipeline.registered', { pipeline, version }),
      factOf(deps, run, 'run.planned'),
      ...assets.map((asset) => factOf(deps, run, 'asset.materialized', { pipeline, asset, run })),
    ])),
  ]
}

/** While it waits for its turn: who is in its way. Only the state knows. */
async function queueOf(
  deps: RunDeps,
  shard: number,
  own: readonly Fact[],
  doc: RunState | undefined,
): Promise<{ readonly behind: readonly string[]; readonly facts: readonly Fact[] } | undefined> {
  if (!doc?.queue || own.some(({ name }) => name === 'run.finished' || name === 'run.planned')) return undefined
  const key = groupKey(doc.pipeline, doc.concurrency)
  // The bucket's type of document follows from its key.
  const group = key && ((await deps.docs.read(shard, key)) as ConcurrencyState | undefined)
  const behind = (group?.running ?? []).slice(0, HOLDERS_MAX)
  return { behind, facts: await found(behind.map((run) => factOf(deps, run, 'run.requested'))) }
}

/**
 * What made room for it, if it has waited: the end of another run of its key, at the time when its
 * turn came. Undefined where the log does not have it any more.
 */
async function turnOf(
  deps: RunDeps,
  shard: number,
  request: FactOf<'run.requested'>,
  doc: RunState | undefined,
): Promise<Fact | undefined> {
  const { connection, names } = deps
  const startedMs = doc?.startedMs
  if (startedMs === undefined) return undefined
  const filter = names.fact(shard, factPath('run.finished', { run: '*' }))
  let next = request.seq + 1
  for (let seen = 0; seen < ENDS_MAX; seen += ENDS_STEP) {
    const after = next
    const some = await connection.read((nc) => directNext(nc, names.log(shard), after, filter, ENDS_STEP))
    for (const message of some) {
      if (message.timeMs > startedMs) return undefined
      const fact = message.timeMs === startedMs ? factIfAny(names, shard, message) : undefined
      if (fact?.name === 'run.finished' && (await isOfKey(deps, fact.ids.run, request))) return fact
      next = message.seq + 1
    }
    if (some.length < ENDS_STEP) return undefined
  }
  return undefined
}

async function isOfKey(deps: RunDeps, run: string, { data }: FactOf<'run.requested'>): Promise<boolean> {
  const other = await factOf(deps, run, 'run.requested')
  return other?.data.pipeline === data.pipeline && other.data.concurrency?.key === data.concurrency?.key
}

/** Instances that failed for good, and the facts with their errors. */
async function failuresOf(
  deps: RunDeps,
  shard: number,
  run: RunId,
  own: readonly Fact[],
): Promise<{ readonly failed: Map<string, readonly FailedAt[]>; readonly facts: readonly Fact[] }> {
  const assets = new Set(own.flatMap((fact) => (fact.name === 'scatter.started' ? [fact.ids.asset] : [])))
  const failed = new Map<string, readonly FailedAt[]>()
  for (const asset of assets) {
    const docs = await failureDocs(deps, shard, run, asset)
    failed.set(
      asset,
      docs.flatMap(({ at }) => at.map(([index, seq]) => ({ index, seq }))),
    )
  }
  const seqs = new Set([...failed.values()].flat().map(({ seq }) => seq))
  seqs.delete(0)
  const facts = await found([...seqs].slice(0, OUTCOMES_MAX).map((seq) => factAt(deps, shard, seq)))
  return { failed, facts }
}

interface FailureDoc {
  readonly at: readonly (readonly [index: number, seq: number, attempt?: number])[]
}

/** The first documents that say which instances failed. By their keys: most are not there. */
async function failureDocs(deps: RunDeps, shard: number, run: RunId, asset: string): Promise<FailureDoc[]> {
  const prefix = stateKey.failures(run, asset, 0).slice(0, -1)
  const keys = new Set<string>(await deps.docs.keys(shard, prefix).catch(unlessTooOld))
  for await (const { docs } of sealedParts(deps, run))
    for (const key of Object.keys(docs)) if (key.startsWith(prefix)) keys.add(key)
  const first = [...keys].toSorted((a, b) => numberOf(a) - numberOf(b)).slice(0, FAILURES_MAX)
  const docs = await Promise.all(first.map((key) => deps.docs.ofRun(run, key)))
  // The bucket's type of document follows from its key.
  return docs.filter((doc) => doc !== undefined) as FailureDoc[]
}

/** Of one run alone something is known of any time. */
function unlessTooOld(error: unknown): string[] {
  if (error instanceof FlowStoneError && error.code === 'no_snapshot') return []
  throw error
}

function numberOf(key: string): number {
  return Number(key.split('.').at(-1))
}

async function factAt(deps: RunDeps, shard: number, seq: number): Promise<Fact | undefined> {
  const { connection, names } = deps
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq }))
  return seen(deps, message ? factIfAny(names, shard, message) : await sealedAt(deps, shard, seq))
}

async function factOf<N extends FactName>(
  deps: RunDeps,
  run: string,
  name: N,
  ids?: Readonly<Record<string, string>>,
): Promise<FactOf<N> | undefined> {
  return seen(deps, await runFact(deps, run, name, ids))
}

/** In the past: unless it came later. */
function seen<F extends Fact>({ docs }: RunDeps, fact: F | undefined): F | undefined {
  return fact && docs.past?.has(fact) === false ? undefined : fact
}
