/** Routes of runs. */
import { z } from 'zod'
import { LOG_LEVELS } from '../../../../streams/logs.ts'
import { mustMake } from '../../../client/logs.ts'
import type { RunsOptions } from '../../../client/runs.ts'
import { HttpProblem } from '../../shared/problem.ts'
import { noneYet, runFor, seesRun } from '../covered.ts'
import { factShown } from '../facts.ts'
import { numberIn } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const GATES_SHOWN = 100
const STATUSES = ['requested', 'running', 'succeeded', 'failed', 'cancelled'] as const

export const runs = s.named('Runs', z.object({ runs: z.array(s.run), next: s.next }))
export const runPage = s.named(
  'RunPage',
  z.object({
    run: s.runExplained,
    scatters: z.array(s.scatter),
    gates: z.array(s.gate).describe('At most 100.'),
    timeline: z.array(s.span).describe('What ran or waited when, at most 2,000.'),
  }),
)
export const input = s.named('RunInput', z.object({ input: z.record(s.text, z.unknown()) }))
export const logs = s.named(
  'RunLogs',
  z.object({
    lines: z.array(s.logLine).describe('By time. Some of a page may not be wanted, so it may be empty.'),
    next: s.text.describe('The cursor of the next page, also of lines that come later.'),
    more: z.boolean().describe('Whether there are more by now.'),
  }),
)
export const history = s.named('RunHistory', z.object({ facts: z.array(s.fact), next: s.next }))

export const RUNS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/runs',
    tag: 'runs',
    scope: 'read',
    summary: 'Runs, newest first; all filters must hold',
    query: {
      open: z.enum(['true', 'false']).optional().describe('`true`: only those that have not ended.'),
      status: z.union([z.enum(STATUSES).transform((one) => [one]), z.array(z.enum(STATUSES))]).optional(),
      target: s.name.optional().describe('The asset that was asked for: `orders/invoice`.'),
      tag: s.names.optional().describe('`name=value`; may be given again.'),
      partition: z.string().max(512).optional(),
      since: s.time.optional(),
      ...s.page(1000, 50),
    },
    answer: runs,
    handle: async ({ flow, caller, query }) => {
      const { open, status, target, tag, partition, since, limit, cursor } = query
      const options: RunsOptions = {
        limit,
        ...(open === 'true' ? { open: true } : {}),
        ...(status === undefined ? {} : { status }),
        ...(target === undefined ? {} : { target }),
        ...(tag === undefined ? {} : { tag: tagsOf(tag) }),
        ...(partition === undefined ? {} : { partition }),
        ...(since === undefined ? {} : { since: new Date(since) }),
        ...(cursor === undefined ? {} : { after: cursor }),
      }
      const found = await flow.runs(options).catch((error: unknown) => {
        // Who does not see all hears no names of other assets.
        if (caller.seesAll || cursor !== undefined) throw error
        return noneYet(error)
      })
      const next = found.length === limit ? found.at(-1)?.id : undefined
      return { runs: found.filter((run) => seesRun(caller, run)), next }
    },
  }),
  route({
    method: 'GET',
    path: '/runs/:run',
    tag: 'runs',
    scope: 'read',
    summary: 'One run: why what waits is waiting, its scatters and gates, and when what ran',
    answer: runPage,
    handle: async (call) => {
      const { flow, params } = call
      await runFor(call, params.run)
      const [run, scatters, gates, timeline] = await Promise.all([
        flow.run(params.run).status(),
        // No engine has seen it yet.
        flow.scatter.list(params.run).catch(noneYet),
        flow.gates.list(params.run),
        flow.inspect.timeline(params.run),
      ])
      if (!run) throw new HttpProblem('unknown_run')
      return { run, scatters, gates: gates.slice(0, GATES_SHOWN), timeline }
    },
  }),
  route({
    method: 'GET',
    path: '/runs/:run/input',
    tag: 'runs',
    scope: 'read',
    summary: 'What it was given, by the name of the input',
    answer: input,
    handle: async (call) => {
      await runFor(call, call.params.run)
      return { input: await call.flow.run(call.params.run).input() }
    },
  }),
  route({
    method: 'GET',
    path: '/runs/:run/history',
    tag: 'runs',
    scope: 'read',
    summary: 'What happened in it, fact by fact; of a sealed run, too',
    query: s.page(500, 100),
    answer: history,
    handle: async (call) => {
      await runFor(call, call.params.run)
      const { limit, cursor } = call.query
      const facts = await call.flow.inspect.factsOfRun(call.params.run, { after: numberIn(cursor), limit })
      const next = facts.length === limit ? facts.at(-1)?.seq.toString() : undefined
      return { facts: facts.map(factShown), next }
    },
  }),
  route({
    method: 'GET',
    path: '/runs/:run/logs',
    tag: 'runs',
    scope: 'read',
    now: true,
    summary: 'What its code logged with `ctx.log`, by time',
    query: {
      asset: s.name.optional().describe('Only of this asset.'),
      instance: s.whole.optional().describe('Only of the instance of this index; needs `asset`.'),
      level: z.enum(LOG_LEVELS).optional().describe('Only of this level and above.'),
      since: s.time.optional(),
      ...s.page(5000, 500),
    },
    answer: logs,
    handle: async (call) => {
      const run = await runFor(call, call.params.run)
      const { asset, instance, level, since, limit, cursor } = call.query
      mustMake(run, asset)
      return await call.flow.inspect.logs(call.params.run, {
        limit,
        cursor,
        ...(asset === undefined ? {} : { asset }),
        ...(instance === undefined ? {} : { instance }),
        ...(level === undefined ? {} : { level }),
        ...(since === undefined ? {} : { since: new Date(since) }),
      })
    },
  }),
]

function tagsOf(tags: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    tags.map((tag) => {
      const at = tag.indexOf('=')
      if (at < 1) throw new HttpProblem('invalid_query', 'tag must be name=value.', {}, 'tag')
      return [tag.slice(0, at), tag.slice(at + 1)]
    }),
  )
}
