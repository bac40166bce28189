/** Returns tasks that this worker did not begin to their queue. */
import { messageOf } from '../../../streams/errors.ts'
import { encodeTask, type Task } from '../../../streams/tasks.ts'
import { STALE_HEADER } from '../../log/entries.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { acknowledge } from './acknowledge.ts'
import type { Delivery } from './puller.ts'

/**
 * What a worker does with a task that it gets. A worker that drains takes nothing new. When a task
 * needs the process for itself, the worker returns what it had asked for before. There are
 * exceptions:
 *
 * - Another task that must run alone waits its turn.
 * - A task that was delivered again is not returned: as a new message it would look unbegun.
 * - A late first delivery is not returned either: another worker may have done it meanwhile. The
 *   server delivers it again if it is not done. Its next worker then looks (`Judge`).
 */
export function onDelivery(
  { count, late }: { readonly count: number; readonly late: boolean },
  { alone }: { readonly alone?: boolean | undefined },
  worker: { readonly draining: boolean; readonly aloneWanted: boolean },
): 'take' | 'return' | 'leave' {
  const again = count > 1
  if (late && !again) return 'leave'
  if (worker.draining) return again ? 'leave' : 'return'
  return worker.aloneWanted && !alone && !again ? 'return' : 'take'
}

/**
 * Returns a task to its queue as a new message. A delivery after a negative acknowledgement would
 * look like one after a crash, and would cost an attempt. A task that was delivered again must not
 * be returned: it may have been begun. False: it could not be stored.
 */
export async function requeue(
  shared: WorkerShared,
  delivery: Delivery,
  delayMs: number,
  ack: () => void = () => acknowledge(shared.connection, delivery.reply, delivery),
): Promise<boolean> {
  const { logger } = shared
  const { payload, headers } = delivery
  try {
    await enqueueAgain(shared, delivery, { payload, contentType: headers.get('Content-Type') }, delayMs)
    ack()
    return true
  } catch (error) {
    // The message stays with this consumer. The server delivers it again after ackWait.
    logger.warn(`a task could not be put back: ${messageOf(error)}`, { task: idOf(delivery) })
    return false
  }
}

/** Stores what is left of a task as a new message. The caller acknowledges the one it came with. */
export async function requeueRest(shared: WorkerShared, delivery: Delivery, rest: Task): Promise<void> {
  await enqueueAgain(shared, delivery, encodeTask(rest), 0)
}

async function enqueueAgain(
  { names, clock, workOf }: WorkerShared,
  delivery: Delivery,
  { payload, contentType }: { readonly payload: Uint8Array; readonly contentType: string | undefined },
  delayMs: number,
): Promise<void> {
  const { shard, subject } = delivery
  const id = idOf(delivery)
  await workOf(shard).append({
    subject: names.taskSchedule(shard, `${id}~back`),
    payload,
    ...(contentType === undefined ? {} : { contentType }),
    headers: {
      'Fs-Task': id,
      // Its own time begins anew with this message.
      [STALE_HEADER]: '1',
      'Nats-Schedule': `@at ${new Date(clock.now() + delayMs).toISOString()}`,
      'Nats-Schedule-Target': subject,
    },
  })
}

function idOf({ headers, streamSeq }: Delivery): string {
  return headers.get('Fs-Task') ?? String(streamSeq)
}

/** Leaves what came again to a later delivery. */
export function nak({ connection }: WorkerShared, { reply }: Delivery, delayMs: number): void {
  connection.tell(reply, `-NAK ${JSON.stringify({ delay: delayMs * 1_000_000 })}`)
}
