/** Takes pruned runs out of the lists of the base. Pages that show nothing go, oldest first. */
import { listKey, listsOfRun } from '../../../../projections/run/lists.ts'
import type { RunList, RunListEntry, RunState } from '../../../../projections/state.ts'
import type { Store } from '../../shard/store.ts'

interface Wanted {
  readonly runs: Set<string>
  fromMs: number
  toMs: number
}

/** Returns the keys of pages that are gone: the state has them, too. */
export async function dropFromLists(store: Store, runs: readonly Readonly<RunState>[]): Promise<string[]> {
  const lists = new Map<string, Wanted>()
  for (const run of runs)
    for (const { list, timeMs } of listsOfRun(run)) {
      const wanted = lists.get(list) ?? { runs: new Set<string>(), fromMs: timeMs, toMs: timeMs }
      lists.set(list, wanted)
      wanted.runs.add(run.id)
      wanted.fromMs = Math.min(wanted.fromMs, timeMs)
      wanted.toMs = Math.max(wanted.toMs, timeMs)
    }
  const gone: string[] = []
  for (const [list, wanted] of lists) gone.push(...(await new Pages(store, list).drop(wanted)))
  return gone
}

class Pages {
  readonly #store: Store
  readonly #list: string

  constructor(store: Store, list: string) {
    this.#store = store
    this.#list = list
  }

  async drop(wanted: Wanted): Promise<string[]> {
    const store = this.#store
    const key = listKey.list(this.#list)
    if (!store.has(key)) await store.load([key])
    const head = store.get<RunList>(key)
    if (!head) return []
    if (strip(head.runs, wanted.runs)) store.put(key, head)
    const from = head.from ?? 0
    for (let n = await this.#firstWith(wanted.fromMs, from, head.pages); n < head.pages; n++) {
      const page = await this.#page(n)
      if ((page[0]?.[1] ?? 0) > wanted.toMs) break
      const left = page.map((entry): RunListEntry => [...entry])
      if (strip(left, wanted.runs)) store.put(listKey.page(this.#list, n), left)
    }
    const gone: string[] = []
    let next = from
    for (; next < head.pages; next++) {
      if (!(await this.#page(next)).every(([, , shown]) => shown === null)) break
      store.delete(listKey.page(this.#list, next))
      gone.push(listKey.page(this.#list, next))
    }
    if (next > from) {
      head.from = next
      store.put(key, head)
    }
    return gone
  }

  /** The last page that begins before this time: the run may be there, or on a later one. */
  async #firstWith(timeMs: number, from: number, pages: number): Promise<number> {
    let [low, high] = [from, Math.max(from, pages - 1)]
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      const [first] = await this.#page(middle)
      if (first && first[1] < timeMs) low = middle
      else high = middle - 1
    }
    return low
  }

  async #page(n: number): Promise<RunListEntry[]> {
    const key = listKey.page(this.#list, n)
    if (!this.#store.has(key)) await this.#store.load([key])
    return this.#store.get(key) ?? []
  }
}

function strip(entries: RunListEntry[], runs: ReadonlySet<string>): boolean {
  let isChanged = false
  for (const entry of entries) {
    // One without what it shows is of a run that has the same id, and is not sealed yet.
    if (!entry[2] || !runs.has(entry[0])) continue
    entry[2] = null
    isChanged = true
  }
  return isChanged
}
