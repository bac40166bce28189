/** Flows of the past, as the routes have them. */
import type { ApiFlow } from './route.ts'

/** Who looks at a moment asks much about it. So what was folded for it is kept for a while. */
const KEPT = 4
const KEPT_MS = 60_000
/** Facts of a younger moment may still be on their way. */
const SETTLED_MS = 10_000

export class FlowsAt {
  readonly #flow: ApiFlow
  readonly #closing: AbortSignal | undefined
  readonly #kept = new Map<number, ApiFlow>()

  /** `closing`: from then on nothing is kept. */
  constructor(flow: ApiFlow, closing: AbortSignal | undefined) {
    this.#flow = flow
    this.#closing = closing
    closing?.addEventListener('abort', () => this.#kept.clear())
  }

  at(at: Date): ApiFlow {
    const ms = at.getTime()
    const known = this.#kept.get(ms)
    if (known) return known
    const flow = readsAt(this.#flow, at)
    if (this.#closing?.aborted || Date.now() - ms < SETTLED_MS) return flow
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= KEPT && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(ms, flow)
    setTimeout(() => {
      if (this.#kept.get(ms) === flow) this.#kept.delete(ms)
    }, KEPT_MS).unref()
    return flow
  }
}

/** Routes that need more than these are never asked about the past. */
function readsAt(flow: ApiFlow, at: Date): ApiFlow {
  const then = flow.at(at)
  const { scatter, gates, schedules, sensors, inspect } = then
  const reads = {
    namespace: flow.namespace,
    shards: flow.shards,
    scatter,
    gates,
    schedules,
    sensors,
    inspect,
    run: then.run.bind(then),
    runs: then.runs.bind(then),
    value: then.value.bind(then),
    partitions: then.partitions.bind(then),
    why: then.why.bind(then),
    audit: then.audit.bind(then),
  }
  // A method that is not there is refused before: see `now` of the routes.
  return reads as Partial<ApiFlow> as ApiFlow
}
