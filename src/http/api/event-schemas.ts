/** What answers of the API say of subscriptions, and of what was refused. */
import { z } from 'zod'
import { count, named, text, time } from './schemas.ts'

export const subscription = named(
  'Subscription',
  z.object({
    name: text,
    pipeline: text,
    subscription: text,
    target: text,
    stream: text,
    state: z.enum(['reading', 'idle', 'no_stream', 'removed']),
    reader: text.optional(),
    takenTo: count,
    last: count.optional(),
    waiting: count.optional(),
    open: count,
    maxOpen: count,
    groups: z.object({ count, messages: count.optional(), next: time.optional() }),
    taken: count,
    refused: count,
  }),
)
export const refusedMessage = named(
  'RefusedMessage',
  z.object({
    pipeline: text,
    subscription: text,
    stream: text,
    seq: count,
    key: text.optional(),
    msgId: text.optional(),
    reason: text,
    at: time,
  }),
)
export const refusedTrigger = named(
  'RefusedTrigger',
  z.object({
    id: text,
    pipeline: text.optional(),
    asset: text,
    reason: text,
    msgId: text.optional(),
    at: time,
    kept: z.boolean().describe('Whether what was sent is kept, so that it can be taken after all.'),
    run: text.optional().describe('The run that was started when it was taken after all.'),
  }),
)
