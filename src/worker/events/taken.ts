/**
 * What was taken, on the log: one fact for a range of messages. The next range begins where the
 * last one ended, and its fact is stored only behind the fact of that one. So of two readers one is
 * let in, also when older facts have left the log.
 */
import { ConflictError } from '../../../streams/errors.ts'
import type { TakenEvent } from '../../../streams/event-schemas.ts'
import { type DraftOf, factPath } from '../../../streams/facts.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import type { WorkerShared } from '../attempt/shared.ts'

export const EVENTS_MAX = 500
/** Of a fact, as JSON; less where the server's messages are small. */
const FACT_BYTES = 256 * 1024

/** `new`: nothing was taken; messages that were there before do not count. */
export type From = number | 'new'

export interface Taker {
  readonly pipeline: string
  readonly subscription: string
  readonly version: string
  readonly source: string
  readonly stream: string
}

/** Up to which message a stream was taken, and the sequence of the fact that says so. */
export interface Taken {
  readonly to: number
  readonly seq: number
}

/** Undefined: nothing was taken yet. */
export async function lastTaken(connection: Connection, names: Names, of: Chain): Promise<Taken | undefined> {
  const query = { last_by_subj: chainFilter(names, of) }
  const found = await connection.read((nc) => leaderGet(nc, names.log(0), query))
  const fact = found && factOf(names, 0, found)
  return fact?.name === 'subscription.taken' ? { to: fact.data.to, seq: fact.seq } : undefined
}

export async function takenUpTo(connection: Connection, names: Names, of: Chain): Promise<number | undefined> {
  return (await lastTaken(connection, names, of))?.to
}

type Chain = Pick<Taker, 'pipeline' | 'subscription' | 'source'>

function chainFilter(names: Names, { pipeline, subscription, source }: Chain): string {
  return names.fact(0, factPath('subscription.taken', { pipeline, subscription, source, from: '*' }))
}

/** `after`: the fact of the range before, 0: none. Undefined when another reader was first. */
export async function storeTaken(
  { names, logOf, id }: Pick<WorkerShared, 'names' | 'logOf' | 'id'>,
  { pipeline, subscription, version, source, stream }: Taker,
  {
    from,
    to,
    events,
    after,
  }: { readonly from: From; readonly to: number; readonly events: readonly TakenEvent[]; readonly after: number },
): Promise<Taken | undefined> {
  const fact: DraftOf<'subscription.taken'> = {
    name: 'subscription.taken',
    ids: { pipeline, subscription, source, from: String(from) },
    data: { version, worker: id, stream, to, events: [...events] },
  }
  const expect = { seq: after, subject: chainFilter(names, fact.ids) }
  try {
    const { seq } = await logOf(0).append({ ...factEntry(names, 0, fact), expect })
    return { to, seq }
  } catch (error) {
    if (error instanceof ConflictError) return undefined
    throw error
  }
}

export interface Range {
  readonly to: number
  readonly events: readonly TakenEvent[]
}

/**
 * Ranges of messages whose facts are small enough. `mapped`: what came of each message, in order. A
 * message whose event does not fit by itself is refused.
 */
export function rangesOf(
  connection: Connection,
  mapped: readonly { readonly seq: number; readonly event: TakenEvent | undefined }[],
): Range[] {
  const most = connection.share(FACT_BYTES)
  const single = connection.share(Number.POSITIVE_INFINITY, 3 / 4)
  const ranges: Range[] = []
  let events: TakenEvent[] = []
  let bytes = 0
  let to = 0
  for (const { seq, event } of mapped) {
    const size = event ? Buffer.byteLength(JSON.stringify(event)) : 0
    if (events.length > 0 && (events.length >= EVENTS_MAX || bytes + size > most)) {
      ranges.push({ to, events })
      events = []
      bytes = 0
    }
    if (event && size > single) events.push(tooLarge(event, size, single))
    else if (event) events.push(event)
    bytes += size
    to = seq
  }
  if (mapped.length > 0) ranges.push({ to, events })
  return ranges
}

function tooLarge({ message, ...event }: TakenEvent, size: number, single: number): TakenEvent {
  // Refused already: only the message is not kept.
  if (message) return event
  const { seq, msgId } = event
  const refused = `its run would be given ${size} bytes, and a message of this server has room for ${single}; publish a reference to large data`
  return { seq, ...(msgId === undefined ? {} : { msgId }), refused }
}
