/** Routes of the first look: who asks, and whether anything needs them. */
import { z } from 'zod'
import { ROLES } from '../../shared/api-keys.ts'
import type { HttpProblem } from '../../shared/problem.ts'
import { gatesFor, madeFor, seesRun } from '../covered.ts'
import { apiProblem } from '../problems.ts'
import { type Call, type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const COUNTED = 1000
const RUNS_SHOWN = 10
const SHOWN = 20
const HOUR_MS = 3_600_000
const POINTS = 60

export const me = s.named(
  'Me',
  z.object({
    namespace: s.text,
    shards: s.count,
    key: s.text.describe('The id of the API key; `local` without one.'),
    may: z.array(s.text),
    allAssets: z.boolean(),
    now: s.time.describe('The clock of this process.'),
  }),
)

export const home = s.named(
  'Home',
  z.object({
    runs: z.object({
      open: s.count,
      more: z.boolean().describe('True: there are more than were counted.'),
      shown: z.array(s.runExplained).describe('The newest open runs, and why they wait.'),
    }),
    scatters: z.array(s.scatter).describe('Open scatters of the runs that are shown.'),
    gates: z.object({ waiting: s.count, more: z.boolean(), shown: z.array(s.gate) }),
    failed: z.array(s.run).describe('Runs that failed last.'),
    due: z.array(s.schedule).describe('Schedules, the next one that is due first.'),
    throughput: z.array(s.railPoint).optional().describe('Facts of the last hour, by minute. For keys of all assets.'),
    problems: z.array(z.object({ code: s.text, message: s.text })),
  }),
)

export const OVERVIEW: readonly Route[] = [
  route({
    method: 'GET',
    path: '/me',
    tag: 'overview',
    scope: 'read',
    now: true,
    summary: 'Who asks, and what they may do',
    answer: me,
    handle: async ({ flow, caller }) => ({
      namespace: flow.namespace,
      shards: flow.shards,
      key: caller.id,
      may: ROLES.admin.filter((action) => caller.may(action)),
      allAssets: caller.seesAll,
      now: new Date(),
    }),
  }),
  route({
    method: 'GET',
    path: '/home',
    tag: 'overview',
    scope: 'read',
    summary: 'What runs, waits for people, failed lately, and is due next',
    answer: home,
    handle: homeOf,
  }),
]

async function homeOf(call: Pick<Call, 'flow' | 'caller' | 'at' | 'logger'>) {
  const { flow, caller, at } = call
  const nowMs = at?.getTime() ?? Date.now()
  const [open, failed, waiting, schedules, shards, throughput] = await Promise.all([
    flow.runs({ open: true, limit: COUNTED + 1 }),
    flow.runs({ status: 'failed', limit: SHOWN }),
    flow.gates.waiting({ limit: COUNTED }),
    flow.schedules.list(),
    at ? [] : flow.inspect.shards(),
    caller.seesAll ? flow.inspect.rail(new Date(nowMs - HOUR_MS), new Date(nowMs), POINTS) : undefined,
  ])
  const seen = open.filter((run) => seesRun(caller, run))
  const gates = await gatesFor(call, waiting)
  const shown = await Promise.all(seen.slice(0, RUNS_SHOWN).map(({ id }) => flow.run(id).status()))
  const explained = shown.flatMap((run) => run ?? [])
  const scattering = explained.flatMap(({ id, assets }) =>
    Object.entries(assets).flatMap(([name, { status }]) => (status === 'scattering' ? [`${id}.${name}`] : [])),
  )
  const unseen: HttpProblem[] = []
  const scatters = await Promise.all(
    scattering.map((id) =>
      flow.scatter.status(id).catch((error: unknown) => {
        const problem = apiProblem(error, call.logger)
        // It may have ended, and be gone, by now.
        if (problem.reason !== 'unknown_id' && problem.reason !== 'pruned') unseen.push(problem)
        return undefined
      }),
    ),
  )
  const due = madeFor(caller, schedules).filter(({ next }) => next !== undefined)
  return {
    runs: { open: Math.min(seen.length, COUNTED), more: open.length > COUNTED, shown: explained },
    scatters: scatters.flatMap((one) => one ?? []),
    gates: { waiting: gates.length, more: waiting.length >= COUNTED, shown: gates.slice(0, SHOWN) },
    failed: failed.filter((run) => seesRun(caller, run)),
    due: due.toSorted((a, b) => (a.next?.getTime() ?? 0) - (b.next?.getTime() ?? 0)).slice(0, SHOWN),
    throughput,
    problems: [
      ...shards.flatMap(({ problem }) => problem ?? []),
      ...unseen.map(({ reason, detail }) => ({ code: reason, message: detail })),
    ],
  }
}
