import { FlowStoneError } from '../../streams/errors.ts'
import { decodeFact, type Fact } from '../../streams/facts.ts'
import type { Names } from '../../streams/subjects.ts'
import type { StoredMessage } from './nats.ts'

export function factOf(names: Names, shard: number, message: StoredMessage): Fact {
  const path = names.factPath(message.subject) ?? ''
  return decodeFact({
    path,
    payload: message.payload,
    contentType: message.headers.get('Content-Type'),
    shard,
    seq: message.seq,
    timeMs: message.timeMs,
  })
}

/** As the engine does: what is no fact of ours is stepped over. */
export function factIfAny(names: Names, shard: number, message: StoredMessage): Fact | undefined {
  try {
    return factOf(names, shard, message)
  } catch (error) {
    if (!(error instanceof FlowStoneError) || error.code === 'newer_version') throw error
    return undefined
  }
}
