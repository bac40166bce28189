/**
 * Several processes may want the same bucket at the same time. Then the server would refuse all
 * updates but one, and the others would read and try again. Instead they send their questions to
 * the process whose update was stored. It answers them together with its own callers: one update
 * for all, in order of arrival.
 *
 * This only saves work, because the answers are stored in the cell. A process that gets no answer
 * in time uses the cell itself. What was granted to it meanwhile stays counted, unused.
 */
import type { Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import type { Rate } from '../../projections/limits/rate-cell.ts'
import type { Answer, Ask } from '../../projections/limits/rate-round.ts'
import { decodeMsgpack, encodeMsgpack } from '../../streams/codec.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { listen } from '../log/listen.ts'
import { atMost } from '../options/timer.ts'

const WAIT_MS = 1000
const ASKS_MAX = 10_000

const count = z.int().min(1)
const question = z.object({
  bucket: z.string(),
  rate: z.object({ shape: z.enum(['window', 'smooth']), limit: count, periodMs: z.number(), burst: count }),
  /** After this server time nobody waits for the answer. */
  untilMs: z.number(),
  /** Each question, and how often it follows itself: callers of a process mostly ask the same. */
  asks: z.array(
    z.tuple([
      count,
      z.discriminatedUnion('kind', [
        z.object({ kind: z.enum(['check', 'peek']), n: count }),
        z.object({ kind: z.literal('wait'), n: count, maxWaitMs: z.number() }),
        z.object({ kind: z.literal('give back'), n: count, atMs: z.number() }),
      ]),
    ]),
  ),
})
export interface Question extends Omit<z.infer<typeof question>, 'asks'> {
  readonly asks: readonly Ask[]
}

const answers = z.array(
  z.tuple([
    count,
    z.discriminatedUnion('is', [
      z.object({ is: z.enum(['granted', 'done']) }),
      z.object({ is: z.literal('reserved'), atMs: z.number() }),
      z.object({ is: z.enum(['refused', 'far']), waitMs: z.number() }),
    ]),
  ]),
)

export class Relay {
  readonly id: string
  readonly #connection: Connection
  readonly #names: Names
  readonly #serve: (question: Question) => Promise<readonly Answer[]>
  #subscription: Subscription | undefined
  readonly #serving = new Set<Promise<void>>()

  /** `serve` answers other processes. It rejects for a question that it cannot answer. */
  constructor(
    connection: Connection,
    names: Names,
    id: string,
    serve: (question: Question) => Promise<readonly Answer[]>,
  ) {
    this.#connection = connection
    this.#names = names
    this.id = id
    this.#serve = serve
  }

  /** From now on others may ask this process. */
  open(): void {
    if (this.#subscription || this.#connection.isClosed) return
    this.#subscription = listen(this.#connection.nc, this.#names.notification('limits', this.id), (message) => {
      const asked = questionIn(message.data)
      // Without an answer the other process uses the cell.
      if (!asked) return
      const serving = this.#serve(asked)
        .then((list) => void message.respond(encodeMsgpack(rolled(list))))
        // There may be no answer, or the connection may be closed meanwhile. Neither is an error
        // of this process.
        .catch(() => undefined)
        .finally(() => this.#serving.delete(serving))
      this.#serving.add(serving)
    })
  }

  /** The answers of the process `leader`. Undefined if there is none in time. */
  async ask(
    leader: string,
    bucket: string,
    rate: Rate,
    asks: readonly Ask[],
    nowMs: number,
  ): Promise<readonly Answer[] | undefined> {
    const payload = encodeMsgpack({ bucket, rate, untilMs: nowMs + WAIT_MS, asks: rolled(asks) })
    const reply = await this.#connection
      .untilDisconnect((nc) => nc.request(this.#names.notification('limits', leader), payload, { timeout: WAIT_MS }))
      .catch(() => undefined)
    if (!reply) return undefined
    const list = answersIn(reply.data)
    return list.length === asks.length ? list : undefined
  }

  /** Answers the open questions, and waits only a moment for that. */
  async close(): Promise<void> {
    const subscription = this.#subscription
    if (!subscription || this.#connection.isClosed) return
    const { nc } = this.#connection
    await this.#connection.untilDisconnect(async () => {
      await subscription.drain()
      await atMost(WAIT_MS, Promise.all(this.#serving))
      await nc.flush()
    })
  }
}

/**
 * Undefined for what no process of ours asks: above all for more at once than the limit ever has,
 * which nothing would answer. Throws for what is no MessagePack.
 */
export function questionIn(data: Uint8Array): Question | undefined {
  const { data: asked } = question.safeParse(decodeMsgpack(data))
  if (!asked?.asks.every(([, { kind, n }]) => kind === 'give back' || n <= asked.rate.burst)) return undefined
  return { ...asked, asks: unrolled(asked.asks) }
}

/** A message that cannot be read counts as no answer. */
function answersIn(data: Uint8Array): Answer[] {
  try {
    const found = answers.safeParse(decodeMsgpack(data))
    return found.success ? unrolled(found.data) : []
  } catch {
    return []
  }
}

/** Joins equal neighbours, with their number. */
function rolled<T extends Ask | Answer>(list: readonly T[]): [number, T][] {
  const runs: [number, T][] = []
  let last: string | undefined
  for (const item of list) {
    const text = Object.values(item).join(' ')
    const run = runs.at(-1)
    if (run && text === last) run[0] += 1
    else runs.push([1, item])
    last = text
  }
  return runs
}

function unrolled<T>(runs: readonly (readonly [number, T])[]): T[] {
  // No process asks more often: a larger number is cut.
  return runs.flatMap(([times, item]) => Array.from({ length: Math.min(times, ASKS_MAX) }, () => item))
}
