/**
 * When a run is sealed, its document goes. So what lists show of it is put into the lists of the
 * base. A page of a list is one read then.
 */
import { type ListedRun, listKey, listsOfRun, shownOf } from '../../../projections/run/lists.ts'
import type { RunList, RunListEntry, RunState } from '../../../projections/state.ts'
import type { Store } from '../shard/store.ts'

/** Pages from the newest on that are looked through before the place is searched by time. */
const RECENT_PAGES = 4

export async function showInLists(store: Store, run: Readonly<RunState>): Promise<void> {
  const shown = shownOf(run)
  for (const { list, timeMs } of listsOfRun(run)) {
    const head = listKey.list(list)
    await loaded(store, head)
    const doc = store.get(head)
    if (!doc) continue
    if (put(doc.runs, run.id, shown)) {
      store.put(head, doc)
      continue
    }
    const page = await pageWith(store, list, doc, run.id, timeMs)
    const entries = page === undefined ? undefined : store.get(page)
    if (page !== undefined && entries && put([...entries], run.id, shown)) store.put(page, [...entries])
  }
}

function put(entries: readonly RunListEntry[], run: string, shown: ListedRun): boolean {
  const entry = entries.findLast(([id]) => id === run)
  if (!entry) return false
  entry[2] = shown
  return true
}

async function pageWith(
  store: Store,
  list: string,
  { pages, from = 0 }: Readonly<RunList>,
  run: string,
  timeMs: number,
): Promise<ReturnType<typeof listKey.page> | undefined> {
  const has = async (n: number): Promise<boolean> => {
    await loaded(store, listKey.page(list, n))
    return store.get(listKey.page(list, n))?.some(([id]) => id === run) ?? false
  }
  for (let n = pages - 1; n >= Math.max(from, pages - RECENT_PAGES); n--) if (await has(n)) return listKey.page(list, n)
  let [low, high] = [from, pages - 1]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const key = listKey.page(list, middle)
    await loaded(store, key)
    const [first] = store.get(key) ?? []
    if (first && first[1] <= timeMs) low = middle
    else high = middle - 1
  }
  // Several pages may begin in the same millisecond.
  for (let n = low; n >= Math.max(from, low - RECENT_PAGES); n--) if (await has(n)) return listKey.page(list, n)
  return undefined
}

async function loaded(store: Store, key: string): Promise<void> {
  if (!store.has(key)) await store.load([key])
}
