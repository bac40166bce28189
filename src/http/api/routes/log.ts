/** Routes of the log. */
import { z } from 'zod'
import { factShown } from '../facts.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const log = s.named(
  'Log',
  z.object({
    facts: z.array(s.fact),
    next: s.next,
    sealedBefore: s.time
      .optional()
      .describe('Before this time facts of sealed runs are missing here: see the histories of the runs.'),
  }),
)
export const rail = s.named('Rail', z.object({ points: z.array(s.railPoint) }))
const HOUR_MS = 3_600_000

export const LOG: readonly Route[] = [
  route({
    method: 'GET',
    path: '/log',
    tag: 'log',
    scope: 'read',
    wide: true,
    summary: 'Facts that are on the log, newest first; those of sealed runs are in their histories',
    query: {
      kind: s.names.optional().describe('Names of facts, such as `run.finished`; may be given again.'),
      run: s.name.optional(),
      pipeline: s.name.optional(),
      asset: s.name.optional().describe('The name of an asset.'),
      since: s.time.optional(),
      until: s.time.optional(),
      ...s.page(500, 50),
    },
    answer: log,
    handle: async ({ flow, query }) => {
      const { kind, run, pipeline, asset, since, until, limit, cursor } = query
      const { facts, next, sealedBefore } = await flow.inspect.facts({
        kinds: kind,
        run,
        pipeline,
        asset,
        since: since === undefined ? undefined : new Date(since),
        until: until === undefined ? undefined : new Date(until),
        limit,
        cursor,
      })
      return { facts: facts.map(factShown), next, sealedBefore }
    },
  }),
  route({
    method: 'GET',
    path: '/log/rail',
    tag: 'log',
    scope: 'read',
    wide: true,
    summary: 'How many facts were stored when, and where something failed; default: the last hour',
    query: {
      from: s.time.optional(),
      to: s.time.optional(),
      points: z.coerce.number().int().min(1).max(500).default(60),
    },
    answer: rail,
    handle: async ({ flow, query, at }) => {
      const to = query.to === undefined ? (at ?? new Date()) : new Date(query.to)
      const from = query.from === undefined ? new Date(to.getTime() - HOUR_MS) : new Date(query.from)
      return { points: await flow.inspect.rail(from, to, query.points) }
    },
  }),
]
