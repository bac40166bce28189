/**
 * A message that was refused, and that its stream does not keep: a work queue drops it once it is
 * acknowledged. So it stands beside its refusal in `subscription.taken`, to be read again.
 */
import { type FactOf, factPath } from '../../../streams/facts.ts'
import { sealedAt } from '../../log/history.ts'
import { leaderGet } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { RawMessage } from './message.ts'
import type { Source } from './source.ts'

type Kept = NonNullable<FactOf<'subscription.taken'>['data']['events'][number]['message']>

/** With more, the message is not kept. */
const HEADERS_MAX = 16 * 1024

/** Streams with limits keep what was acknowledged. */
export function dropsTaken({ retention }: Pick<Source, 'retention'>): boolean {
  return retention !== 'limits'
}

/** Small ones as they are, others by the object store. Undefined for one with too many headers. */
export async function keptMessage(
  { io }: Pick<WorkerShared, 'io'>,
  pipeline: string,
  { subject, payload, headers, timeMs }: Omit<RawMessage, 'seq'>,
): Promise<Kept | undefined> {
  const all = Object.fromEntries(headers)
  if (JSON.stringify(all).length > HEADERS_MAX) return undefined
  const context = { run: '', pipeline, asset: '', partition: undefined }
  const data = await io.store('nats', new Uint8Array(payload), context)
  return { subject, timeMs: Math.floor(timeMs), headers: all, data }
}

/** A message that was kept when it was refused; undefined: it was not. */
export async function readKept(
  { connection, names, io }: Pick<WorkerShared, 'connection' | 'names' | 'io'>,
  ids: Readonly<Record<'pipeline' | 'subscription' | 'source' | 'seq', string>>,
): Promise<{ readonly message: RawMessage; readonly stream: string } | undefined> {
  const log = names.log(0)
  const last_by_subj = names.fact(0, factPath('event.refused', ids))
  const found = await connection.read((nc) => leaderGet(nc, log, { last_by_subj }))
  const refused = found && factIfAny(names, 0, found)
  const at = refused?.name === 'event.refused' ? refused.data.kept : undefined
  if (at === undefined) return undefined
  const stored = await connection.read((nc) => leaderGet(nc, log, { seq: at }))
  const taken = stored ? factIfAny(names, 0, stored) : await sealedAt({ connection, names }, 0, at)
  if (taken?.name !== 'subscription.taken') return undefined
  const seq = Number(ids.seq)
  const kept = taken.data.events.find((event) => event.seq === seq)?.message
  const payload = kept && (await io.load(kept.data))
  if (!kept || !(payload instanceof Uint8Array)) return undefined
  const { subject, timeMs, headers } = kept
  const message = { subject, timeMs, headers: new Map(Object.entries(headers)), seq, payload }
  return { message, stream: taken.data.stream }
}
