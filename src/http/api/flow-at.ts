/** A flow of the past, as the routes have it. */
import type { ApiFlow } from './route.ts'

/** Its reads. Routes that need more than these are never asked about the past. */
export function flowAt(flow: ApiFlow, at: Date): ApiFlow {
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
  }
  // A method that is not there is refused before: see `now` of the routes.
  return reads as Partial<ApiFlow> as ApiFlow
}
