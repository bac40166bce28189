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
import type { Key, RunList, RunListEntry, View } from '../state.ts'

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
type Requested = Pick<RequestData, 'pipeline' | 'target' | 'partition' | 'tags' | 'schedule' | 'sensor'>

/** The lists that a run is in from its request on. */
export function listsOf({ pipeline, target, partition, tags, schedule, sensor }: Requested): string[] {
  // Nobody looks for evaluations, but by their own name.
  if (schedule?.evaluates || sensor?.evaluates) return [listOf.target(pipeline, target)]
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

export function addToLists(view: View, lists: readonly string[], run: string, timeMs: number): void {
  for (const of of lists) {
    const key = listKey.list(of)
    const list = view.edit(key, () => ({ of, pages: 0, runs: [] }))
    list.runs.push([run, timeMs])
    if (list.runs.length >= LIST_PAGE) {
      view.put(listKey.page(of, list.pages), list.runs)
      list.pages += 1
      list.runs = []
    }
  }
}
