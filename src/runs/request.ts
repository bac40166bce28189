/** Starts runs, each once: under a key, or of a scatter that is redriven. */
import { randomBytes } from 'node:crypto'
import { groupOf } from '../../projections/run/concurrency-key.ts'
import { conflictOf, type RunRequest, runIdFor } from '../../projections/run/request.ts'
import { ConflictError, FlowStoneError } from '../../streams/errors.ts'
import type { FactOf } from '../../streams/facts.ts'
import { type KeySpace, newRunId, parseRunId, type RunId, runId } from '../../streams/ids.ts'
import type { Names } from '../../streams/subjects.ts'
import type { OnFailed } from '../define/run-options.ts'
import type { Appender } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'
import { factEntry } from '../log/entries.ts'
import { isStillSealed } from '../log/history.ts'
import { runFact } from '../log/run-fact.ts'
import { tracing } from '../tracing.ts'

/** What is needed to look whether a run is there. */
export interface LookDeps {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
}

/** … and to start it. */
export interface RequestDeps extends LookDeps {
  readonly logOf: (shard: number) => Appender
  /** Who asks. */
  readonly by: string | undefined
}

export interface Requested {
  readonly id: RunId
  /** Whether this request started it. */
  readonly isNew: boolean
}

/** Attempts that are looked for side by side. */
const LOOK_AHEAD = 8

export async function requestFresh(deps: RequestDeps, asked: RunRequest): Promise<Requested> {
  const data = inTrace(asked)
  const group = data.concurrency && groupOf(data.pipeline, data.concurrency)
  const id = newRunId(Date.now(), randomBytes(8).toString('hex'), deps.shards, group)
  if (!(await appendNew(deps, id, data))) throw new FlowStoneError('internal', `run ${id} is there already`)
  return { id, isNew: true }
}

/**
 * The newest run under the key, which is started if there is none. Throws ConflictError when the
 * key was used for another request.
 */
export async function requestUnderKey(
  deps: RequestDeps,
  key: string,
  asked: RunRequest,
  onFailed: OnFailed,
): Promise<Requested> {
  const data = inTrace(asked)
  const first = runIdFor(data, 'key', key, deps.shards)
  if (await isElsewhere(deps, first, data)) throw new ConflictError(ELSEWHERE(key))
  if (await append(deps, first, data)) return { id: first, isNew: true }
  const conflict = conflictOf('key', key, (await requestOf(deps, first))?.data, data)
  if (conflict !== undefined) throw new ConflictError(conflict)
  const { id: last, attempt } = await newestAttempt(deps, data, 'key', key)
  const id = await newestRetry(deps, last)
  if (onFailed === 'return' || !(await hasFailed(deps, id))) return { id, isNew: false }
  const next = runIdFor(data, 'key', key, deps.shards, attempt + 1)
  // Who asks at the same time gets the same run, and one of both has started it.
  const again = { ...data, retryOf: id, ...earlierTrace((await requestOf(deps, id))?.data) }
  return { id: next, isNew: await append(deps, next, again) }
}

/**
 * The run that a key stands for now, which may not be there yet. `retryOf`: the one before it,
 * which has failed.
 */
export async function newestUnderKey(
  deps: LookDeps,
  key: string,
  data: RunRequest,
  onFailed: OnFailed,
): Promise<{ readonly id: RunId; readonly retryOf?: RunId }> {
  const first = runIdFor(data, 'key', key, deps.shards)
  if (await isElsewhere(deps, first, data)) throw new ConflictError(ELSEWHERE(key))
  if (!(await requestOf(deps, first))) return { id: first }
  const { id: last, attempt } = await newestAttempt(deps, data, 'key', key)
  const id = await newestRetry(deps, last)
  if (onFailed === 'return' || !(await hasFailed(deps, id))) return { id }
  return { id: runIdFor(data, 'key', key, deps.shards, attempt + 1), retryOf: id }
}

/**
 * The run of a trigger that is taken after it was refused. Throws ConflictError when its key or
 * Nats-Msg-Id was used for another request.
 */
export async function requestTrigger(
  deps: RequestDeps,
  { space, key }: { readonly space: KeySpace; readonly key: string },
  data: RunRequest,
): Promise<Requested> {
  if (space === 'key') return await requestUnderKey(deps, key, data, 'return')
  const id = runIdFor(data, space, key, deps.shards)
  if (await append(deps, id, data)) return { id, isNew: true }
  const what = space === 'message' ? 'Nats-Msg-Id' : 'trigger'
  const conflict = conflictOf(what, key, (await requestOf(deps, id))?.data, data)
  if (conflict !== undefined) throw new ConflictError(conflict)
  return { id, isNew: false }
}

/** The run belongs to the trace of who asks for it, unless the request names another one. */
export function inTrace(data: RunRequest): RunRequest {
  const trace = data.trace ? undefined : tracing()?.active()
  return trace ? { ...data, trace } : data
}

/** What the run that comes after an earlier one says of the trace of that. */
export function earlierTrace(earlier: Pick<RunRequest, 'trace'> | undefined): Pick<RunRequest, 'earlierTrace'> {
  return earlier?.trace ? { earlierTrace: earlier.trace.traceparent } : {}
}

/** The last of the runs that were started one after the other for a text; there is a first one. */
export async function newestAttempt(
  deps: LookDeps,
  of: Grouped,
  space: KeySpace,
  text: string,
): Promise<{ id: RunId; attempt: number }> {
  for (let attempt = 1; ; attempt += LOOK_AHEAD) {
    const ahead = Array.from({ length: LOOK_AHEAD }, (_, i) => runIdFor(of, space, text, deps.shards, attempt + 1 + i))
    const there = await Promise.all(ahead.map((id) => requestOf(deps, id)))
    const missing = there.indexOf(undefined)
    if (missing < 0) continue
    const newest = attempt + missing
    return { id: runIdFor(of, space, text, deps.shards, newest), attempt: newest }
  }
}

/** The last of the runs that were started one after the other, each since the one before failed. */
export async function newestRetry(deps: LookDeps, id: RunId): Promise<RunId> {
  for (let run = id; ; ) {
    const end = await factAt(deps, run, 'run.finished')
    const request = end && end.data.status !== 'succeeded' ? await requestOf(deps, run) : undefined
    // A retry stays in the group of the run that it takes up.
    if (!request || !(await requestOf(deps, runIdFor(request.data, 'retry', run, deps.shards)))) return run
    run = (await newestAttempt(deps, request.data, 'retry', run)).id
  }
}

type Grouped = Pick<RunRequest, 'pipeline' | 'concurrency'>

const ELSEWHERE = (key: string): string =>
  `key ${JSON.stringify(key)} was used for a request of another concurrency key. Use another key, or ask for the same`

/** With a concurrency key, the same key may have led to another shard before. */
async function isElsewhere(deps: LookDeps, id: RunId, { concurrency }: Grouped): Promise<boolean> {
  if (!concurrency || deps.shards === 1) return false
  const { shard } = parseRunId(id)
  const unique = id.slice(id.indexOf('-') + 1)
  const others = Array.from({ length: deps.shards }, (_, q) => q).filter((q) => q !== shard)
  const found = await Promise.all(others.map((q) => requestOf(deps, runId(q, unique))))
  return found.some((request) => request !== undefined)
}

/** Whether it has ended, and not well. By the log. */
export async function hasFailed(deps: LookDeps, id: RunId): Promise<boolean> {
  const end = await factAt(deps, id, 'run.finished')
  return end !== undefined && end.data.status !== 'succeeded'
}

/** True when it is stored, false when this run was requested before. */
export async function append(deps: RequestDeps, id: RunId, data: RunRequest): Promise<boolean> {
  // The log may have forgotten it.
  if (await isStillSealed(deps, id)) return false
  return await appendNew(deps, id, data)
}

async function appendNew({ names, logOf, by }: RequestDeps, id: RunId, data: RunRequest): Promise<boolean> {
  const { shard } = parseRunId(id)
  const entry = factEntry(names, shard, { name: 'run.requested', ids: { run: id }, data }, by)
  return (await logOf(shard).appendOnce(entry)) === 'stored'
}

async function requestOf(deps: LookDeps, id: RunId): Promise<FactOf<'run.requested'> | undefined> {
  return await factAt(deps, id, 'run.requested')
}

export async function factAt<N extends 'run.requested' | 'run.finished'>(
  deps: LookDeps,
  run: RunId,
  name: N,
): Promise<FactOf<N> | undefined> {
  return await runFact(deps, run, name)
}
