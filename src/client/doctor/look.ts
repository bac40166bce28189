/** Reading for the doctor: what cannot be read is said, and nothing waits for long. */
import type { Look } from '../../../projections/doctor/finding.ts'
import { messageOf } from '../../../streams/errors.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { atMost } from '../../options/timer.ts'
import type { RunDeps } from '../run-view.ts'

export interface DoctorDeps extends RunDeps {
  readonly clock: ServerClock
  /** Ids of this process's gate secrets; the first signs. */
  readonly gateKeys: readonly string[]
}

const ANSWER_MS = 5000

export async function look<T>(connection: Connection, read: () => Promise<T>): Promise<Look<T>> {
  try {
    const value = await atMost(
      ANSWER_MS,
      read().then((found) => ({ found })),
    )
    return value === 'late' ? { unseen: `no answer within ${ANSWER_MS / 1000} s` } : { value: value.found }
  } catch (error) {
    return { unseen: messageOf(await connection.explained(error)) }
  }
}
