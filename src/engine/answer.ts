/**
 * Engines tell who asks that they are there: which one is active where, and who stands by. A hint:
 * nothing is decided by it.
 */
import type { Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { decode, encodeJson } from '../../streams/codec.ts'
import type { Names } from '../../streams/subjects.ts'
import { askAll } from '../log/ask.ts'
import type { Connection } from '../log/connection.ts'
import { listen } from '../log/listen.ts'

const FIRST_MS = 1000
const NEXT_MS = 100

const answer = z.object({
  engine: z.string(),
  active: z.array(z.int()),
  /** Which permission it lacks, where it cannot work without. */
  denied: z.string().optional(),
})
export type EngineAnswer = z.infer<typeof answer>

export function answerForEngine(connection: Connection, names: Names, status: () => EngineAnswer): Subscription {
  return listen(connection.nc, names.engines, (message) => {
    if (message.reply) message.respond(encodeJson(status()))
  })
}

/** All that answer. Empty when none does. */
export async function askEngines(connection: Connection, names: Names): Promise<EngineAnswer[]> {
  const options = { timeoutMs: FIRST_MS, settleMs: NEXT_MS }
  const messages = await askAll(connection.nc, names.engines, encodeJson({}), options)
  return messages.flatMap(({ data }) => answer.safeParse(decode(data, undefined)).data ?? [])
}
