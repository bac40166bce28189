/**
 * Deliveries are signals by correlation key that carry an idempotency key. The gate of a delivery
 * is decided once, and the decision is kept. So a delivery that is sent again answers the same
 * gate, even if other gates with that key were opened in between.
 *
 * The decision is written before the gate is answered. If a process dies between the two, the
 * decision remains, and the next try of the sender continues with it. Of two tries at the same
 * time, the server lets one decide, and the other follows.
 */
import { z } from 'zod'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, ERR, leaderGet, publish } from '../log/nats.ts'

/** Senders give up long before. */
export const REMEMBERED_FOR = `${30 * 86_400}s`

const decision = z.object({ v: z.literal(1), gate: z.string() })

export interface Decided {
  /** The gate's id. */
  readonly gate: string
  /** What the next decision expects; 0 where none was made. */
  readonly seq: number
}

type Place = { readonly connection: Connection; readonly names: Names }

function subjectOf(names: Names, name: string, delivery: string): string {
  return names.kvSubject(names.controlBucket, `delivery.${name}.${delivery}`)
}

/**
 * The gate that the delivery is for, by the hashes of the correlation key and of the idempotency
 * key. `gate` is undefined where that is not decided.
 */
export async function decidedGate(
  { connection, names }: Place,
  name: string,
  delivery: string,
): Promise<{ readonly gate: string | undefined; readonly seq: number }> {
  const stream = names.kvStream(names.controlBucket)
  const subject = subjectOf(names, name, delivery)
  const found = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
  if (!found) return { gate: undefined, seq: 0 }
  const parsed = found.payload.length > 0 ? decision.safeParse(decode(found.payload, undefined)).data : undefined
  return { gate: parsed?.gate, seq: found.seq }
}

/**
 * Decides, if nothing was decided since `expectSeq`. False when another one was first, or may have
 * been: to be looked at again.
 */
export async function decideGate(
  { connection, names }: Place,
  name: string,
  delivery: string,
  { gate, seq }: Decided,
): Promise<boolean> {
  const entry: Entry = {
    subject: subjectOf(names, name, delivery),
    payload: encodeJson({ v: 1, gate }),
    contentType: 'application/json',
    expect: { seq },
    headers: { 'Nats-TTL': REMEMBERED_FOR },
  }
  const ack = await connection.read((nc) => publish(nc, entry, undefined, 5000))
  if (!ack.error) return true
  const { errCode, description } = ack.error
  if (errCode === ERR.wrongLastSequence || errCode === ERR.wrongLastSequenceConstant) return false
  throw new FlowStoneError('refused', `the signal could not be recorded: ${description}`)
}
