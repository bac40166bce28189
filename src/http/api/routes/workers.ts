/** Routes of workers and engines. */
import { z } from 'zod'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const workers = s.named(
  'Workers',
  z.object({
    workers: z.array(s.worker),
    engines: z.array(s.engine).describe('Those that answer, also those that stand by.'),
    shards: z.array(s.shard),
  }),
)
export const shards = s.named('Shards', z.object({ shards: z.array(s.shard) }))

export const WORKERS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/workers',
    tag: 'workers',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'Workers that left their names, engines that are active or stand by, and the shards',
    answer: workers,
    handle: async ({ flow }) => {
      const { inspect } = flow
      const [found, engines, all] = await Promise.all([inspect.workers(), inspect.engines(), inspect.shards()])
      return { workers: found, engines, shards: all }
    },
  }),
  route({
    method: 'GET',
    path: '/engines',
    tag: 'workers',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'Which engine is active on each shard, and how far it is behind',
    answer: shards,
    handle: async ({ flow }) => ({ shards: await flow.inspect.shards() }),
  }),
]
