/** Tells the server that a task is done. */
import { ask } from '../../log/ask.ts'
import type { Connection } from '../../log/connection.ts'
import { isPassing } from '../../log/nats.ts'
import { sleep } from '../../options/timer.ts'
import type { Delivery } from './puller.ts'

const ANSWER_MS = 500
const AGAIN_MIN_MS = 50
const AGAIN_MAX_MS = 1000
/** An election takes some ten seconds. The consumer may also be gone, with its limited queue. */
const GIVE_UP_MS = 20_000

/**
 * A task of a limited queue keeps its place until the server knows that it is done. While the
 * consumer changes leaders, nobody hears of that, and the place would stay empty for `ackWait`. So
 * it is said until the server confirms it. Elsewhere a lost acknowledgement costs one look at a
 * redelivered task.
 */
export function acknowledge(connection: Connection, reply: string, { isLimited }: Pick<Delivery, 'isLimited'>): void {
  if (isLimited) void untilConfirmed(connection, reply)
  else connection.tell(reply, '+ACK')
}

async function untilConfirmed(connection: Connection, reply: string): Promise<void> {
  const giveUpMs = performance.now() + GIVE_UP_MS
  for (let pauseMs = AGAIN_MIN_MS; !connection.isClosed; pauseMs = Math.min(AGAIN_MAX_MS, pauseMs * 2)) {
    try {
      await ask(connection.nc, reply, '+ACK', { timeoutMs: ANSWER_MS })
      return
    } catch (error) {
      if (!isPassing(error) || performance.now() > giveUpMs) return
    }
    await sleep(pauseMs, undefined, { unref: true })
  }
}
