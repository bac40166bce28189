/** The route of live updates. */
import { z } from 'zod'
import { HttpProblem } from '../../shared/problem.ts'
import { partFor, runFor } from '../covered.ts'
import { checkIds } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const switchOf = z.enum(['true', 'false']).default('false')
const map = z.object({
  id: s.text,
  status: s.text,
  total: s.count.optional(),
  stored: s.count,
  from: s.count,
  length: s.count,
  counts: z.array(s.count),
  runs: s.text.describe('As of a map; of `ranges` 7 stands for what is as before.'),
})
export const liveEvent = s.named(
  'LiveEvent',
  z.union([
    z.object({ event: z.literal('runs'), data: z.object({ runs: z.array(s.run), more: s.count }) }),
    z.object({ event: z.literal('run'), data: z.object({ run: s.run, scatters: z.array(s.scatter) }) }),
    z.object({ event: z.enum(['map', 'ranges']), data: map }),
    z.object({ event: z.literal('problem'), data: s.problem }).describe('Why the stream ends. Come again.'),
    z.object({ event: z.literal('logs'), data: z.object({ run: s.text }) }).describe('There are new lines.'),
    z.object({ event: z.literal('gates'), data: z.object({ waiting: s.count, gates: z.array(s.gate) }) }),
    z
      .object({ event: z.literal('facts'), data: z.object({ facts: z.array(s.fact), skipped: z.boolean() }) })
      .describe('Oldest first. `skipped`: there were too many, and some before them are left out.'),
  ]),
)
const SCATTERS_MAX = 4
const RUNS_MAX = 20
const LOGS_MAX = 4

export const LIVE: readonly Route[] = [
  route({
    method: 'GET',
    path: '/live',
    tag: 'live',
    scope: 'read',
    now: true,
    stream: true,
    summary: 'Server-sent events: what changes, at most four times a second',
    query: {
      runs: switchOf.describe('`true`: runs that changed.'),
      gates: switchOf.describe('`true`: gates that wait.'),
      facts: switchOf.describe('`true`: facts of all logs, as they come. For keys of all assets.'),
      run: z
        .union([s.name.transform((one) => [one]), z.array(s.name).max(RUNS_MAX)])
        .optional()
        .describe('This run and its scatters; up to 20 times.'),
      scatter: z
        .union([s.name.transform((one) => [one]), z.array(s.name).max(SCATTERS_MAX)])
        .optional()
        .describe('The map of this scatter, then its changes; up to 4 times.'),
      logs: z
        .union([s.name.transform((one) => [one]), z.array(s.name).max(LOGS_MAX)])
        .optional()
        .describe('Whether the code of this run logs something; up to 4 times.'),
    },
    answer: liveEvent,
    // Not an answer by the schema: each of its events is.
    handle: async (call) => {
      const { runs, gates, facts, run = [], scatter = [], logs = [] } = call.query
      if (facts === 'true' && !call.caller.seesAll)
        throw new HttpProblem('forbidden', 'Facts of the logs are of no asset: they need an API key for all (*/*).')
      for (const id of [...run, ...logs]) {
        checkIds({ run: id })
        await runFor(call, id)
      }
      for (const id of scatter) {
        checkIds({ scatter: id })
        await partFor(call, id)
        await call.flow.scatter.status(id)
      }
      return call.live({
        runs: runs === 'true',
        gates: gates === 'true',
        facts: facts === 'true',
        run,
        scatter,
        logs,
      }) as never
    },
  }),
]
