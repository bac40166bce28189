/** What keeps every engine from a shard until a person acts. */
import { ENGINE_KEY } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { leaderGet } from '../../log/nats.ts'
import { historyLost } from '../history/lost.ts'
import { logRefusal, positionIn, REFUSALS } from './position.ts'

/**
 * What keeps every engine from a shard, as any client can see it: for `status`, and for an engine
 * before it claims the shard.
 */
export async function refusalOf(
  connection: Connection,
  names: Names,
  shard: number,
): Promise<FlowStoneError | undefined> {
  const bucket = names.stateBucket(shard)
  try {
    const found = await connection.read((nc) =>
      leaderGet(nc, names.kvStream(bucket), { last_by_subj: names.kvSubject(bucket, ENGINE_KEY) }),
    )
    const position = positionIn(bucket, found)
    const refusal = position && (await logRefusal(connection, names, shard, position))
    // A state that is made again begins with the history.
    return refusal ?? (position?.seq ? undefined : await historyLost({ connection, names, shard }))
  } catch (error) {
    if (error instanceof FlowStoneError && REFUSALS.has(error.code)) return error
    // A bucket that is gone is made again; a server that is away comes back.
    return undefined
  }
}
