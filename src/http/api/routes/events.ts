/** Routes of subscriptions, and of what outsiders asked for and could not get. */
import { z } from 'zod'
import { madeFor } from '../covered.ts'
import * as events from '../event-schemas.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'
import { mustSubscribe } from '../subscriptions.ts'

export const subscriptions = s.named('Subscriptions', z.object({ subscriptions: z.array(events.subscription) }))
export const refused = s.named('RefusedMessages', z.object({ refused: z.array(events.refusedMessage) }))
export const triggers = s.named('RefusedTriggers', z.object({ refused: z.array(events.refusedTrigger) }))
const limit = { limit: z.coerce.number().int().min(1).max(1000).default(100).describe('At most so many.') }

export const EVENTS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/subscriptions',
    tag: 'events',
    scope: 'read',
    now: true,
    summary: 'Where each subscription stands',
    query: {
      removed: z.enum(['true', 'false']).optional().describe('`true`: also those that no pipeline has any more.'),
    },
    answer: subscriptions,
    handle: async ({ flow, caller, query }) => ({
      subscriptions: madeFor(caller, await flow.events.list({ removed: query.removed === 'true' })),
    }),
  }),
  route({
    method: 'GET',
    path: '/subscriptions/:pipeline/:subscription/refused',
    tag: 'events',
    scope: 'read',
    now: true,
    summary: 'Messages of it that started no run, newest first',
    query: limit,
    answer: refused,
    handle: async (call) => {
      const subscription = await mustSubscribe(call, call.params)
      return { refused: await call.flow.events.refused({ subscription, limit: call.query.limit }) }
    },
  }),
  route({
    method: 'GET',
    path: '/triggers/refused',
    tag: 'events',
    scope: 'read',
    now: true,
    wide: true,
    summary: 'Triggers that were refused, newest first',
    query: limit,
    answer: triggers,
    handle: async ({ flow, query }) => ({ refused: await flow.triggers.refused({ limit: query.limit }) }),
  }),
]
