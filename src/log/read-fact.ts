import { FlowStoneError } from '../../streams/errors.ts'
import { decodeFact, type Fact } from '../../streams/facts.ts'
import type { SealedFact } from '../../streams/history.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import type { StoredMessage } from './nats.ts'
import { reportsOf } from './reports.ts'

export function factOf(names: Names, shard: number, message: StoredMessage): Fact {
  return decodeFact({ ...storedFact(names.factPath(message.subject) ?? '', message), shard })
}

/** As the engine does: what is no fact of ours is stepped over. */
export function factIfAny(names: Names, shard: number, message: StoredMessage): Fact | undefined {
  return decodedIfAny(() => factOf(names, shard, message))
}

/**
 * The same of a fact in the history. What was sealed could be read once, so one that cannot be read
 * any more is reported, unless `onBad` does it.
 */
export function sealedFactIfAny(
  { connection, names }: { readonly connection: Connection; readonly names: Names },
  shard: number,
  sealed: SealedFact,
  onBad = (error: unknown): void => reportsOf(connection.nc)?.badMessage(names.fact(shard, sealed.path), error),
): Fact | undefined {
  return decodedIfAny(() => decodeFact({ ...sealed, shard }), onBad)
}

function decodedIfAny(decode: () => Fact, onBad?: (error: unknown) => void): Fact | undefined {
  try {
    return decode()
  } catch (error) {
    if (!(error instanceof FlowStoneError) || error.code === 'newer_version') throw error
    onBad?.(error)
    return undefined
  }
}

/** A message of the log as the history keeps it. */
export function storedFact(path: string, { seq, timeMs, headers, payload }: StoredMessage): SealedFact {
  return { path, seq, timeMs, contentType: headers.get('Content-Type'), payload }
}
