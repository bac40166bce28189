/** Routes of scatters: `<run>.<asset>`. */
import { z } from 'zod'
import { countStates, encodeStates, INSTANCE_STATES } from '../../../../projections/scatter/map.ts'
import { partFor } from '../covered.ts'
import { numberIn } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const failures = s.named('Failures', z.object({ failures: z.array(s.failure), next: s.next }))
export const errors = s.named(
  'Errors',
  z.object({
    errors: z.array(s.errorGroup),
    complete: z.boolean().describe('False: more are still to be read. Ask again: what was read is kept.'),
  }),
)
const TILE = 100_000
/** Failures that are looked at. */
const GROUPED_MAX = 100_000
/** Failures are read for so long. */
const ERRORS_MS = 700

export const SCATTERS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/scatters/:scatter',
    tag: 'scatters',
    scope: 'read',
    summary: 'Counts, rate, and why what waits is waiting',
    answer: s.scatter,
    handle: async (call) => {
      await partFor(call, call.params.scatter)
      return await call.flow.scatter.status(call.params.scatter)
    },
  }),
  route({
    method: 'GET',
    path: '/scatters/:scatter/map',
    tag: 'scatters',
    scope: 'read',
    summary: 'The state of each instance, run-length coded; at most 10 million',
    query: { from: s.whole.default(0), to: s.whole.optional() },
    answer: s.scatterMap,
    handle: async (call) => {
      const { flow, params, query } = call
      await partFor(call, params.scatter)
      const { from, to } = query
      const map = await flow.inspect.map(params.scatter, to === undefined ? { from } : { from, to })
      const { states, ...about } = map
      return {
        ...about,
        length: states.length,
        states: [...INSTANCE_STATES],
        counts: countStates(states),
        runs: Buffer.from(encodeStates(states)).toString('base64'),
      }
    },
  }),
  route({
    method: 'GET',
    path: '/scatters/:scatter/tiles',
    tag: 'scatters',
    scope: 'read',
    summary: 'The same as counts for each tile, for scatters that are too large for a map',
    query: { size: z.coerce.number().int().min(1000).max(10_000_000).default(TILE).describe('Instances of a tile.') },
    answer: s.scatterTiles,
    handle: async (call) => {
      await partFor(call, call.params.scatter)
      const tiles = await call.flow.inspect.tiles(call.params.scatter, call.query.size)
      return { id: call.params.scatter, states: [...INSTANCE_STATES], tiles }
    },
  }),
  route({
    method: 'GET',
    path: '/scatters/:scatter/failures',
    tag: 'scatters',
    scope: 'read',
    summary: 'Instances that failed for good, in the order of the keys; of an open scatter, too',
    query: s.page(1000, 100),
    answer: failures,
    handle: async (call) => {
      const { flow, params, query } = call
      await partFor(call, params.scatter)
      const from = numberIn(query.cursor)
      const found = await flow.inspect.failures(params.scatter, { from, limit: query.limit })
      const last = found.length === query.limit ? found.at(-1) : undefined
      return { failures: found, next: last && String(last.index + 1) }
    },
  }),
  route({
    method: 'GET',
    path: '/scatters/:scatter/errors',
    tag: 'scatters',
    scope: 'read',
    summary: 'Failed instances by error, most first, and where in the keys they are',
    query: {
      instances: z.coerce.number().int().min(0).max(GROUPED_MAX).default(20).describe('At most so many of each error.'),
    },
    answer: errors,
    handle: async (call) => {
      const { flow, params, query } = call
      await partFor(call, params.scatter)
      return await flow.inspect.errors(params.scatter, { ...query, withinMs: ERRORS_MS })
    },
  }),
  route({
    method: 'GET',
    path: '/scatters/:scatter/instances/:index',
    tag: 'scatters',
    scope: 'read',
    summary: 'One instance: its key, its state, and its attempts',
    answer: s.instance,
    handle: async (call) => {
      await partFor(call, call.params.scatter)
      return await call.flow.inspect.instance(call.params.scatter, Number(call.params.index))
    },
  }),
]
