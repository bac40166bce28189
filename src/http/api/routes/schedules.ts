/** Routes of schedules and sensors: `<pipeline>/<name>`. */
import { z } from 'zod'
import { HttpProblem } from '../../shared/problem.ts'
import { madeFor } from '../covered.ts'
import { type Caller, type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const removed = {
  removed: z.enum(['true', 'false']).optional().describe('`true`: also those that no pipeline has any more.'),
}
export const schedules = s.named('Schedules', z.object({ schedules: z.array(s.schedule) }))
export const sensors = s.named('Sensors', z.object({ sensors: z.array(s.sensor) }))
export const occurrences = s.named(
  'Occurrences',
  z.object({ occurrences: z.array(s.occurrence), next: z.array(s.time) }),
)
const PREVIEW = 10

export const SCHEDULES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/schedules',
    tag: 'schedules',
    scope: 'read',
    summary: 'Schedules: what became of the last occurrence, and the next one',
    query: removed,
    answer: schedules,
    handle: async ({ flow, caller, query }) => ({
      schedules: madeFor(caller, await flow.schedules.list({ removed: query.removed === 'true' })),
    }),
  }),
  route({
    method: 'GET',
    path: '/schedules/:pipeline/:schedule',
    tag: 'schedules',
    scope: 'read',
    summary: 'One schedule',
    answer: s.schedule,
    handle: async ({ flow, caller, params }) =>
      mustSee(caller, await flow.schedules.get(`${params.pipeline}/${params.schedule}`)),
  }),
  route({
    method: 'GET',
    path: '/schedules/:pipeline/:schedule/occurrences',
    tag: 'schedules',
    scope: 'read',
    summary: 'What became of its occurrences, newest first, and the nominal times of the next',
    query: {
      limit: z.coerce.number().int().min(1).max(1000).default(100).describe('At most so many.'),
      next: z.coerce.number().int().min(1).max(1000).default(PREVIEW).describe('So many of the next.'),
    },
    answer: occurrences,
    handle: async ({ flow, caller, params, query }) => {
      const name = `${params.pipeline}/${params.schedule}`
      mustSee(caller, await flow.schedules.get(name))
      const [found, next] = await Promise.all([
        flow.schedules.occurrences(name, { limit: query.limit }),
        flow.schedules.preview(name, query.next),
      ])
      return { occurrences: found, next }
    },
  }),
  route({
    method: 'GET',
    path: '/sensors',
    tag: 'schedules',
    scope: 'read',
    summary: 'Sensors: their last evaluations, errors and cursors',
    query: removed,
    answer: sensors,
    handle: async ({ flow, caller, query }) => ({
      sensors: madeFor(caller, await flow.sensors.list({ removed: query.removed === 'true' })),
    }),
  }),
  route({
    method: 'GET',
    path: '/sensors/:pipeline/:sensor',
    tag: 'schedules',
    scope: 'read',
    summary: 'One sensor',
    answer: s.sensor,
    handle: async ({ flow, caller, params }) =>
      mustSee(caller, await flow.sensors.get(`${params.pipeline}/${params.sensor}`)),
  }),
]

export function mustSee<T extends { readonly pipeline: string; readonly target: string }>(caller: Caller, one: T): T {
  if (caller.covers(one.pipeline, one.target)) return one
  throw new HttpProblem('unknown_id')
}
