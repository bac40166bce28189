/**
 * Signals that came before their gate, by base token: kept for a while in the control bucket, for whoever opens a gate of that name.
 *
 * Neither can miss the other. The signaller puts its word down, then looks for the gate again; the opener stores the gate, then looks for a word. Both read from the leader, so
 * whichever is later sees the other, and if both see it, the gate takes one of them.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { z } from 'zod'
import type { GateIds } from '../../projections/gate.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import { ConflictError, FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { storedValue } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, leaderGet, publish } from '../log/nats.ts'
import { resolveEntry } from './entries.ts'

const KEPT_MAX = 10_000
const PAYLOAD_MAX_BYTES = 64 * 1024

const earlySignal = z.object({
  payload: storedValue,
  source: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  idempotency: z.string().optional(),
})
export type EarlySignal = z.infer<typeof earlySignal>

export interface EarlyPlace {
  readonly connection: Connection
  readonly names: Names
  readonly io: Io
  readonly log: Appender
  readonly p: number
}

function subjectOf(names: Names, hash: string): string {
  return names.kvSubject(names.controlBucket, `early.${hash}`)
}

/** Keeps a signal for `keepMs`. The newest one under a base token counts. Throws `too_many_early_signals` when 10,000 are kept. */
export async function keepEarly(
  { connection, names }: Pick<EarlyPlace, 'connection' | 'names'>,
  hash: string,
  signal: EarlySignal,
  keepMs: number,
): Promise<void> {
  const bucket = names.kvStream(names.controlBucket)
  const jsm = await jetstreamManager(connection.nc)
  const filter = subjectOf(names, '*')
  const info = await connection.read(() => jsm.streams.info(bucket, { subjects_filter: filter }))
  if (Object.keys(info.state.subjects ?? {}).length >= KEPT_MAX)
    throw new FlowStoneError(
      'too_many_early_signals',
      `${KEPT_MAX} signals wait for gates that do not exist yet; are their base tokens right?`,
    )
  const payload = encodeJson({ v: 1, ...signal })
  if (payload.length > PAYLOAD_MAX_BYTES)
    throw new InvalidError(`a signal that is kept for its gate must take at most ${PAYLOAD_MAX_BYTES} bytes`)
  const ttl = `${Math.max(1, Math.ceil(keepMs / 1000))}s`
  const entry: Entry = {
    subject: subjectOf(names, hash),
    payload,
    contentType: 'application/json',
    headers: { 'Nats-TTL': ttl },
  }
  const ack = await connection.read((nc) => publish(nc, entry, undefined, 5000))
  if (ack.error) throw new FlowStoneError('refused', `the signal could not be kept: ${ack.error.description}`)
}

/** Answers the gate with a signal that came before it, if there is one. */
export async function takeEarly(place: EarlyPlace, hash: string, ids: GateIds): Promise<void> {
  const { connection, names, log, p } = place
  const bucket = names.kvStream(names.controlBucket)
  const found = await connection.read((nc) => leaderGet(nc, bucket, { last_by_subj: subjectOf(names, hash) }))
  if (!found || found.payload.length === 0 || found.headers.has('KV-Operation')) return
  const signal = earlySignal.safeParse(decode(found.payload, undefined)).data
  if (!signal) return
  try {
    await log.append(resolveEntry(names, p, ids, { outcome: 'signaled', ...signal }))
  } catch (error) {
    // The signaller saw the gate too, or somebody else was first.
    if (!(error instanceof ConflictError)) throw error
  }
  await dropEarly(place, hash, found.seq)
}

/** It was taken. What was put there since stays. */
export async function dropEarly(
  { connection, names }: Pick<EarlyPlace, 'connection' | 'names'>,
  hash: string,
  seq: number,
): Promise<void> {
  const headers = { 'KV-Operation': 'DEL', 'Nats-TTL': '60s' }
  const entry: Entry = { subject: subjectOf(names, hash), payload: new Uint8Array(), expect: { seq }, headers }
  await connection.read((nc) => publish(nc, entry, undefined, 5000))
}
