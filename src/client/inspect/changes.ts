/** What changes in the state, as hints: whoever gets them looks at what he shows. */
import { Kvm, KvWatchInclude } from '@nats-io/kv'
import { jetstream } from '../../../streams/jetstream.ts'
import { stopWatch } from '../../log/forget-consumer.ts'
import { listen } from '../../log/listen.ts'
import { sleep } from '../../options/timer.ts'
import type { RunDeps } from '../run-view.ts'

/** What has changed since the changes before. */
export interface StateChanges {
  readonly runs: ReadonlySet<string>
  /** By id, with the segments of their maps that changed. */
  readonly scatters: ReadonlyMap<string, ReadonlySet<number>>
  /** Whether gates were opened, or ended. */
  readonly gates: boolean
  /** Runs whose code logs, of those that were asked for. */
  readonly logs: ReadonlySet<string>
  /** Whether facts were folded. */
  readonly facts: boolean
  /** Changes may have been missed: look at all. */
  readonly missed: boolean
}

const KEYS = ['engine', 'run.*', 'barrier.*.*', 'segment.*.*.*', 'waiting.>']
const AGAIN_MS = 500
/** More of them are not kept apart. */
const KEPT_MAX = 10_000

class Collected {
  runs = new Set<string>()
  scatters = new Map<string, Set<number>>()
  gates = false
  logs = new Set<string>()
  facts = false
  missed = false

  get isEmpty(): boolean {
    const isQuiet = this.logs.size === 0 && !this.facts && !this.missed
    return this.runs.size === 0 && this.scatters.size === 0 && !this.gates && isQuiet
  }

  add(key: string): void {
    const [kind, run = '', asset = '', n] = key.split('.')
    if (kind === 'engine') {
      this.facts = true
      return
    }
    if (this.runs.size + this.scatters.size > KEPT_MAX) {
      this.missed = true
      return
    }
    if (kind === 'waiting') this.gates = true
    else if (kind === 'run') this.runs.add(run)
    else {
      const id = `${run}.${asset}`
      const segments = this.scatters.get(id) ?? new Set()
      this.scatters.set(id, segments)
      if (n !== undefined) segments.add(Number(n))
    }
  }
}

/** At most one each `everyMs`, until `signal` is aborted. The first: all may have changed. */
export async function* stateChanges(
  deps: RunDeps,
  everyMs: number,
  signal: AbortSignal,
  logs: readonly string[],
): AsyncGenerator<StateChanges> {
  await deps.found()
  let collected = new Collected()
  let wake: (() => void) | undefined
  const take = (change: (to: Collected) => void): void => {
    change(collected)
    wake?.()
  }
  for (let shard = 0; shard < deps.shards; shard++) void follow(deps, shard, signal, take)
  for (const run of logs) listenToLogs(deps, run, signal, take)
  signal.addEventListener('abort', () => wake?.(), { once: true })
  take((to) => {
    to.missed = true
  })
  while (!signal.aborted) {
    if (collected.isEmpty) {
      const changed = Promise.withResolvers<void>()
      wake = changed.resolve
      await changed.promise
      continue
    }
    const changes = collected
    collected = new Collected()
    yield changes
    await sleep(everyMs, signal).catch(() => undefined)
  }
}

function listenToLogs(
  { connection, names }: RunDeps,
  run: string,
  signal: AbortSignal,
  take: (change: (to: Collected) => void) => void,
): void {
  const subscription = listen(connection.nc, names.logsOf(run), () => take((to) => to.logs.add(run)))
  signal.addEventListener('abort', () => (connection.isClosed ? undefined : subscription.unsubscribe()), { once: true })
}

/** Names of documents only: what is in them is read by those who want it. */
async function follow(
  { connection, names }: RunDeps,
  shard: number,
  signal: AbortSignal,
  take: (change: (to: Collected) => void) => void,
): Promise<void> {
  while (!signal.aborted && !connection.isClosed) {
    try {
      const kv = await new Kvm(jetstream(connection.nc)).open(names.stateBucket(shard), { bindOnly: true })
      const watch = await kv.watch({ key: KEYS, headers_only: true, include: KvWatchInclude.UpdatesOnly })
      const stop = (): void => stopWatch(watch)
      signal.addEventListener('abort', stop, { once: true })
      if (signal.aborted) stop()
      take((to) => {
        to.missed = true
      })
      for await (const { key } of watch) take((to) => to.add(key))
      signal.removeEventListener('abort', stop)
    } catch {
      // The server is away, or the bucket is made anew: it is tried again.
    }
    if (!signal.aborted) await connection.ready(AGAIN_MS)
  }
  // The connection is closed: whoever looks now gets an error that says so.
  take((to) => {
    to.missed = true
  })
}
