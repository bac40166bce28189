/** Routes of rate limits and slots that processes share. */
import { z } from 'zod'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const limits = s.named('Limits', z.object({ limits: z.array(s.limit) }))

export const LIMITS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/limits',
    tag: 'limits',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'Limits in use, by name: what is taken, by whom, and who waits',
    query: {
      prefix: s.name.optional(),
      limit: z.coerce.number().int().min(1).max(1000).default(100).describe('At most so many.'),
    },
    answer: limits,
    handle: async ({ flow, query: { prefix, limit } }) => ({
      limits: await flow.limiter.list(prefix === undefined ? { limit } : { limit, prefix }),
    }),
  }),
  route({
    method: 'GET',
    path: '/limits/:bucket',
    tag: 'limits',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'One limit; neither `rate` nor `slots` where it is not in use',
    answer: s.limit,
    handle: async ({ flow, params }) => await flow.limiter.status(params.bucket),
  }),
]
