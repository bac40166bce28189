/**
 * How many runs of a key are active at a time. Runs of a pipeline and a key are a *group*. They are
 * in one shard (see `runIdFor`), so the order of its log is the order in which they came.
 *
 *   a run comes, and                        onConflict        it
 *   there is room, and nobody waits                           starts
 *   else                                    queue             waits: status `queued`
 *   else                                    skip              ends at once, as cancelled
 *   there is room, and nobody replaces      cancel_running    starts
 *   else                                    cancel_running    waits before those with `queue`, and the oldest that
 *                                                             runs is cancelled; where all of them end already, the
 *                                                             first that was to take the place of one
 *   a run ends, or one that waits is cancelled: those at the head of the queue start while there is room
 *
 * Who waits is linked through the documents of the runs: `queue.prev`, `queue.next`. So each step
 * reads and writes a few documents, however long the queue is.
 */
import type { RunId } from '../../streams/ids.ts'
import type { RunConcurrency } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { type ConcurrencyState, type Key, type RunState, stateKey, type View } from '../state.ts'
import { groupKey } from './concurrency-key.ts'

/** What `enterGroup` reads: it is called until it names nothing new. */
export function needsOfEntering(view: View, pipeline: string, concurrency: RunConcurrency | undefined): Key<unknown>[] {
  const key = groupKey(pipeline, concurrency)
  if (!key) return []
  const { first, last, front } = view.get(key) ?? {}
  const ends = [first, front?.last]
  const behind = ends.map((id) => (id === undefined ? undefined : view.get(stateKey.run(id))?.queue?.next))
  const runs = [...ends, last, ...behind].flatMap((id) => (id === undefined ? [] : [stateKey.run(id)]))
  return [key, ...new Set(runs)]
}

export interface Entered {
  readonly as: 'started' | 'waiting' | 'skipped'
  /** The run that is in its way. */
  readonly behind?: string | undefined
  readonly effects: Effect[]
}

/** A run that was just requested. */
export function enterGroup(view: View, run: RunState): Entered {
  const { concurrency, pipeline, id } = run
  const key = groupKey(pipeline, concurrency)
  if (!concurrency || !key) return { as: 'started', effects: [] }
  const before = view.get(key)
  const behind = before?.running[0]
  const replaces = concurrency.onConflict === 'cancel_running'
  const ahead = replaces ? (before?.front?.count ?? 0) : (before?.waiting ?? 0)
  const hasRoom = behind === undefined || (ahead === 0 && (before?.running.length ?? 0) < concurrency.limit)
  if (!hasRoom && concurrency.onConflict === 'skip') return { as: 'skipped', behind, effects: [] }
  const group = view.edit(key, () => ({ seq: run.seq, key: concurrency.key, running: [], waiting: 0, entered: 0 }))
  group.seq = run.seq
  if (hasRoom) {
    group.running.push(id)
    return { as: 'started', effects: [] }
  }
  const effects = replaces ? makeRoom(view, group, run, concurrency.limit) : []
  group.entered += 1
  group.waiting += 1
  run.status = 'queued'
  run.queue = { at: group.entered }
  if (replaces) {
    run.queue.front = true
    insert(view, group, run, group.front?.last)
    group.front = { count: (group.front?.count ?? 0) + 1, last: id }
  } else insert(view, group, run, group.last)
  return { as: 'waiting', behind, effects }
}

/** Behind `after`, or at the head. */
function insert(view: View, group: ConcurrencyState, run: RunState, after: string | undefined): void {
  const { id, queue } = run
  if (!queue) return
  const next = after === undefined ? group.first : view.get(stateKey.run(after))?.queue?.next
  if (after !== undefined) queue.prev = after
  if (next !== undefined) queue.next = next
  if (after === undefined) group.first = id
  else link(view, after, 'next', id)
  if (next === undefined) group.last = id
  else link(view, next, 'prev', id)
}

/**
 * Cancels one run, so that those that run and those that replace some do not become more. Nobody,
 * if a run ends whose place nobody takes yet.
 */
function makeRoom(view: View, group: ConcurrencyState, run: RunState, limit: number): Effect[] {
  const active = group.running.filter((id) => !group.ending?.includes(id))
  if (active.length + (group.front?.count ?? 0) < limit) return []
  const [oldest] = active
  if (oldest !== undefined) {
    group.ending = [...(group.ending ?? []), oldest]
    return [replaceEffect(oldest, run)]
  }
  const { first } = group
  if (first === undefined) return []
  unlink(view, group, view.edit(stateKey.run(first)))
  return [replaceEffect(first, run)]
}

function replaceEffect(victim: string, { id, concurrency }: RunState): Effect {
  const reason = `run ${id} takes its place: concurrency key ${JSON.stringify(concurrency?.key ?? '')}, cancel_running`
  return { do: 'fact', fact: { name: 'run.cancel_requested', ids: { run: victim as RunId }, data: { reason } } }
}

/** What `leaveGroup` reads: it is called until it names nothing new. */
export function needsOfLeaving(view: View, run: RunState): Key<unknown>[] {
  const key = groupKey(run.pipeline, run.concurrency)
  if (!key) return []
  const group = view.get(key)
  if (!group) return [key]
  const { prev, next } = run.queue ?? {}
  const keys: Key<unknown>[] = [key, ...[prev, next].flatMap((id) => (id === undefined ? [] : [stateKey.run(id)]))]
  let running = group.running.filter((id) => id !== run.id).length
  // Those that start, each with its pipeline; and the one behind the last of them.
  for (let id = group.first === run.id ? next : group.first; id !== undefined; running++) {
    keys.push(stateKey.run(id))
    const one = view.get(stateKey.run(id))
    if (!one?.concurrency || running >= one.concurrency.limit) break
    keys.push(stateKey.pipeline(one.pipeline, one.version))
    id = one.queue?.next === run.id ? next : one.queue?.next
  }
  return keys
}

/** A run has ended, or waits no more. Returns those that start now; each is active from here. */
export function leaveGroup(view: View, run: RunState): RunState[] {
  const key = groupKey(run.pipeline, run.concurrency)
  if (!key || !view.get(key)) return []
  const group = view.edit(key)
  group.seq = run.seq
  if (run.queue) unlink(view, group, run)
  group.running = group.running.filter((id) => id !== run.id)
  if (group.ending) group.ending = group.ending.filter((id) => id !== run.id)
  if (group.ending?.length === 0) delete group.ending
  const started: RunState[] = []
  while (group.first !== undefined) {
    const limit = view.get(stateKey.run(group.first))?.concurrency?.limit
    if (limit === undefined || group.running.length >= limit) break
    const first = view.edit(stateKey.run(group.first))
    unlink(view, group, first)
    group.running.push(first.id)
    started.push(first)
  }
  if (group.running.length === 0 && group.waiting === 0) view.delete(key)
  return started
}

/** `run` is of a view that writes it. */
function unlink(view: View, group: ConcurrencyState, run: RunState): void {
  const { prev, next, front } = run.queue ?? {}
  if (prev !== undefined) link(view, prev, 'next', next)
  if (next !== undefined) link(view, next, 'prev', prev)
  if (group.first === run.id) setOrDelete(group, 'first', next)
  if (group.last === run.id) setOrDelete(group, 'last', prev)
  group.waiting -= 1
  if (front && group.front) {
    const { count, last } = group.front
    // Before one of them there are only others of them.
    if (count > 1) group.front = { count: count - 1, last: last === run.id && prev !== undefined ? prev : last }
    else delete group.front
  }
  delete run.queue
}

function link(view: View, run: string, side: 'prev' | 'next', to: string | undefined): void {
  const { queue } = view.edit(stateKey.run(run))
  if (queue) setOrDelete(queue, side, to)
}

function setOrDelete<K extends string>(doc: { [key in K]?: string }, member: K, id: string | undefined): void {
  if (id === undefined) delete doc[member]
  else doc[member] = id
}
