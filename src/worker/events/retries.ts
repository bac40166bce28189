/**
 * A worker takes a message that was refused, when somebody asks for it: only workers have the code
 * that makes a run of a message. Several may do it at once; the log takes the first.
 */
import type { Msg, Subscription as NatsSubscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { eventRunId } from '../../../projections/events/request.ts'
import { by } from '../../../streams/by.ts'
import { decode, encodeJson } from '../../../streams/codec.ts'
import { messageOf } from '../../../streams/errors.ts'
import type { DraftOf } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Topology } from '../../../streams/topology.ts'
import type { Pipeline } from '../../define/pipeline.ts'
import type { Subscription } from '../../define/subscription.ts'
import { factEntry } from '../../log/entries.ts'
import { listen } from '../../log/listen.ts'
import { leaderGet } from '../../log/nats.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { readKept } from './kept.ts'
import { Mapper } from './mapper.ts'
import type { RawMessage } from './message.ts'
import { openSource } from './source.ts'

const question = z.object({
  subscription: z.string(),
  source: z.string(),
  seq: z.int().min(1),
  by: by.optional().catch(undefined),
})
export type RetryQuestion = z.infer<typeof question>

/** `run`: it is there. `waits`: for others, with `batch` or `debounce`. */
export const retryAnswer = z.union([
  z.object({ run: z.string() }),
  z.object({ waits: z.literal(true) }),
  z.object({ refused: z.string() }),
  z.object({ left: z.literal(true) }),
])
export type RetryAnswer = z.infer<typeof retryAnswer>

/** Has a worker answer for the subscriptions of its pipelines. */
export function answerRetries(
  shared: WorkerShared,
  topology: Topology,
  all: readonly { readonly pipeline: Pipeline; readonly subscription: Subscription }[],
): NatsSubscription[] {
  const { connection, names } = shared
  return [...new Set(all.map(({ pipeline }) => pipeline.name))].map((name) =>
    listen(connection.nc, names.eventRetry(name), (message) => {
      const asked = question.safeParse(decode(message.data, undefined)).data
      const of = all.find(
        ({ pipeline, subscription }) => pipeline.name === name && subscription.name === asked?.subscription,
      )
      if (!asked || !of) return
      retry(shared, topology, of, asked)
        .catch((error: unknown): RetryAnswer => ({ refused: messageOf(error) }))
        .then((answer) => respond(message, answer))
        .catch(() => undefined)
    }),
  )
}

function respond(message: Msg, answer: RetryAnswer): void {
  message.respond(encodeJson(answer))
}

async function retry(
  shared: WorkerShared,
  topology: Topology,
  { pipeline, subscription }: { readonly pipeline: Pipeline; readonly subscription: Subscription },
  { source: id, seq, by }: RetryQuestion,
): Promise<RetryAnswer> {
  const { names, logOf } = shared
  const { name, version } = pipeline.spec
  const ids = { pipeline: name, subscription: subscription.name, source: id, seq: String(seq) }
  const read = (await readKept(shared, ids)) ?? (await readAgain(shared, topology, { pipeline, subscription }, id, seq))
  if ('refused' in read) return read
  const event = await new Mapper(pipeline.spec, subscription, shared.io).map(read.message)
  if (!event) return { left: true }
  if (event.refused !== undefined) return { refused: event.refused }
  const fact: DraftOf<'event.retried'> = {
    name: 'event.retried',
    ids,
    data: { version, worker: shared.id, stream: read.stream, events: [event] },
  }
  await logOf(0).appendOnce(factEntry(names, 0, fact, by))
  if (event.group !== undefined) return { waits: true }
  return { run: eventRunId(pipeline.spec, subscription.name, { source: id }, event, topology.shards) }
}

/** From its stream, or why that cannot be. */
async function readAgain(
  { connection }: WorkerShared,
  topology: Topology,
  { pipeline, subscription }: { readonly pipeline: Pipeline; readonly subscription: Subscription },
  id: string,
  seq: number,
): Promise<{ readonly message: RawMessage; readonly stream: string } | { readonly refused: string }> {
  const jsm = await jetstreamManager(connection.nc)
  const source = await openSource(jsm, topology, pipeline.name, subscription.definition.spec)
  if (source.id !== id) return { refused: `stream ${source.stream} was made anew since, or is another one now` }
  const message = await connection.read((nc) => leaderGet(nc, source.stream, { seq }))
  if (!message) return { refused: `message ${seq} is not in stream ${source.stream} any more` }
  return { message: { ...message, headers: new Map(message.headers) }, stream: source.stream }
}
