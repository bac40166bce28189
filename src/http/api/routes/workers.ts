/** Routes of workers and engines. */
import { z } from 'zod'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const workers = s.named('Workers', z.object({ workers: z.array(s.worker), shards: z.array(s.shard) }))
export const shards = s.named('Shards', z.object({ shards: z.array(s.shard) }))

export const WORKERS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/workers',
    tag: 'workers',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'Workers that left their names, and the engines of the shards',
    answer: workers,
    handle: async ({ flow }) => {
      const [found, engines] = await Promise.all([flow.inspect.workers(), flow.inspect.shards()])
      return { workers: found, shards: engines }
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
