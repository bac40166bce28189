/**
 * Lists of runs, so that runs are found by what they have in common without reading all of them: by
 * target, partition, each tag, and how they ended. Part of each shard's state.
 *
 * A list is a document with the runs that were added last. When it is full they go into a page of
 * their own, numbered from 0. So a run that is added changes one small document, whatever the
 * length of the list.
 *
 * A run is added to the list of its end when it ends, to all others when it is asked for.
 */
import type { FactOf } from '../../streams/facts.ts'
import { hash64 } from '../../streams/ids.ts'
import type { Key, ListedRun, RunList, RunListEntry, RunState, View } from '../state.ts'

export type { ListedRun } from '../state.ts'

/** Runs on a page. */
export const LIST_PAGE = 64

/** What the runs of a list have in common, as a text. */
export const listOf = {
  all: (): string => 'all',
  target: (pipeline: string, asset: string): string => `target ${pipeline}/${asset}`,
  partition: (partition: string): string => `partition ${partition}`,
  tag: (name: string, value: string): string => `tag ${JSON.stringify([name, value])}`,
  ended: (status: 'failed' | 'cancelled'): string => `ended ${status}`,
} as const

export const listKey = {
  list: (list: string): Key<RunList> => `runs.${hash64(list)}`,
  page: (list: string, n: number): Key<RunListEntry[]> => `runs.${hash64(list)}.${n}`,
} as const

type RequestData = FactOf<'run.requested'>['data']
type Requested = Pick<RequestData, 'pipeline' | 'target' | 'partition' | 'tags' | 'schedule' | 'sensor' | 'hook'>

/** The lists that a run is in from its request on. */
export function listsOf({ pipeline, target, partition, tags, schedule, sensor, hook }: Requested): string[] {
  // Nobody looks for evaluations, and calls of hooks, but by their own name.
  if (schedule?.evaluates || sensor?.evaluates || hook) return [listOf.target(pipeline, target)]
  return [
    listOf.all(),
    listOf.target(pipeline, target),
    ...(partition === undefined ? [] : [listOf.partition(partition)]),
    ...Object.entries(tags ?? {}).map(([name, value]) => listOf.tag(name, value)),
  ]
}

/** The list of those that have ended so; runs that succeeded are in none. */
export function endList(status: FactOf<'run.finished'>['data']['status']): string | undefined {
  return status === 'succeeded' ? undefined : listOf.ended(status)
}

/** The lists that a run is in, and the time under which it stands there. */
export function listsOfRun(run: Readonly<RunState>): { list: string; timeMs: number }[] {
  const { status, requestedMs, finishedMs } = run
  const end = status === 'failed' || status === 'cancelled' ? endList(status) : undefined
  return [
    ...listsOf(run).map((list) => ({ list, timeMs: requestedMs })),
    ...(end === undefined || finishedMs === undefined ? [] : [{ list: end, timeMs: finishedMs }]),
  ]
}

/** What lists show of a run that has ended. */
export function shownOf(run: Readonly<RunState>): ListedRun {
  const { id, pipeline, version, target, partition, tags, retryOf, schedule, sensor, hook, concurrency, parent } = run
  const { status, requestedMs, finishedMs, deadlineMs, late } = run
  const assets = Object.entries(run.assets).map(([name, { status, phase, attempt, failures, error, from }]) => [
    name,
    { status, phase, attempt, failures, ...(error ? { error } : {}), ...(from ? { from } : {}) },
  ])
  return {
    id,
    pipeline,
    version,
    target,
    ...(partition === undefined ? {} : { partition }),
    ...(tags ? { tags } : {}),
    ...(retryOf === undefined ? {} : { retryOf }),
    ...(schedule ? { schedule } : {}),
    ...(sensor ? { sensor } : {}),
    ...(hook ? { hook } : {}),
    ...(concurrency ? { concurrency } : {}),
    ...(parent ? { parent } : {}),
    status,
    requestedMs,
    ...(finishedMs === undefined ? {} : { finishedMs }),
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    ...(late?.passed ? { late } : {}),
    assets: Object.fromEntries(assets) as ListedRun['assets'],
  }
}

/** `shown`: of a run that is sealed. */
export function addToLists(view: View, lists: readonly string[], run: string, timeMs: number, shown?: ListedRun): void {
  for (const of of lists) {
    const key = listKey.list(of)
    const list = view.edit(key, () => ({ of, pages: 0, runs: [] }))
    list.runs.push(shown ? [run, timeMs, shown] : [run, timeMs])
    if (list.runs.length >= LIST_PAGE) {
      view.put(listKey.page(of, list.pages), list.runs)
      list.pages += 1
      list.runs = []
    }
  }
}
