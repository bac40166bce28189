/** Routes that start runs, and act on them. */
import { z } from 'zod'
import type { RunOptions } from '../../../define/run-options.ts'
import { HttpProblem } from '../../shared/problem.ts'
import { runFor } from '../covered.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const duration = z.union([z.number(), z.string()]).describe("Milliseconds, or a text such as `'90s'`.")
const inputs = z.record(z.string(), z.unknown()).describe('Values for inputs, by name.')

export const reason = s.named('Reason', z.strictObject({ reason: z.string().max(1000).optional() }))
const start = s.named(
  'StartRun',
  z.strictObject({
    target: s.name.describe('The asset to make: `orders/invoice`.'),
    input: inputs.optional(),
    partition: z.string().max(512).optional(),
    tags: z.record(z.string(), z.string()).optional(),
    upstream: z.enum(['all', 'stale', 'missing', 'none']).optional(),
    timeout: duration.optional(),
  }),
)
const retry = s.named(
  'RetryRun',
  z.strictObject({
    from: s.name.optional().describe('Make this asset again, and all downstream. Default: what failed.'),
    input: inputs.optional(),
    timeout: duration.optional(),
  }),
)
const adopted = s.named('Adopted', z.object({ run: s.text, version: s.text, from: s.text, added: z.array(s.text) }))

export const RUN_ACTS: readonly Route[] = [
  route({
    method: 'POST',
    path: '/runs',
    tag: 'runs',
    scope: 'start',
    status: 202,
    summary: 'Starts a run; with an Idempotency-Key at most one',
    body: start,
    answer: s.runStarted,
    handle: async ({ flow, caller, body, idempotencyKey }) => {
      const { target, ...given } = body
      const [pipeline = '', asset = ''] = target.split('/')
      // By the scope alone, whether there is such an asset or not.
      if (!caller.covers(pipeline, asset)) throw new HttpProblem('forbidden')
      const key = idempotencyKey === undefined ? {} : { key: `http:${caller.id}:${idempotencyKey}` }
      // Durations are checked where they are used.
      const run = await flow.request(target, { ...(withoutMissing(given) as RunOptions), ...key })
      return { run: run.id, isNew: run.isNew }
    },
  }),
  route({
    method: 'POST',
    path: '/runs/:run/cancel',
    tag: 'runs',
    scope: 'operate',
    status: 202,
    summary: 'Cancels a run: what runs is aborted, what is done stays',
    body: reason,
    answer: s.done,
    handle: async (call) => {
      await runFor(call, call.params.run)
      await call.flow.run(call.params.run).cancel(call.body.reason)
      return { ok: true as const }
    },
  }),
  route({
    method: 'POST',
    path: '/runs/:run/retry',
    tag: 'runs',
    scope: 'operate',
    status: 202,
    summary: 'Starts a run that takes up an ended one',
    body: retry,
    answer: s.runStarted,
    handle: async (call) => {
      await runFor(call, call.params.run)
      // As above.
      const options = withoutMissing(call.body) as Parameters<typeof call.flow.retry>[1]
      const run = await call.flow.retry(call.params.run, options)
      return { run: run.id, isNew: run.isNew }
    },
  }),
  route({
    method: 'POST',
    path: '/runs/:run/adopt',
    tag: 'runs',
    scope: 'operate',
    summary: 'Has an open run go on with the newest version of its pipeline',
    answer: adopted,
    handle: async (call) => {
      await runFor(call, call.params.run)
      return await call.flow.adopt(call.params.run)
    },
  }),
]

function withoutMissing(given: object): object {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}
