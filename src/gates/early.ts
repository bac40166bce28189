/**
 * Signals that came before their gate, by correlation key. The control bucket keeps them for a
 * while, for whoever opens a gate with that key.
 *
 * A signal and its gate cannot miss each other. The signaller stores the signal, then looks for the
 * gate again; the opener stores the gate, then looks for a signal. Both read from the leader, so
 * whichever is later sees the other. If both see it, the gate takes one of them.
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { GateIds } from '../../projections/effects.ts'
import { by } from '../../streams/by.ts'
import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError, SignalRejectedError } from '../../streams/errors.ts'
import type { GateCreated } from '../../streams/gate-schemas.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { type StoredValue, storedValue } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Io } from '../io/manager.ts'
import { isGone } from '../io/nats.ts'
import type { Appender } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, ERR, leaderGet, publish, type StoredMessage, UNIT_HEADER } from '../log/nats.ts'
import { isAway } from '../log/unreachable.ts'
import { emit } from '../telemetry.ts'
import { decidedGate, decideGate } from './delivery.ts'
import { resolveEntry } from './entries.ts'
import { checkPayload } from './payload.ts'
import type { Refusals } from './refused.ts'

export const KEPT_MAX = 10_000
const KEEP_TRIES = 20
const KEEP_PAUSE_MS = 20

const earlySignal = z.object({
  payload: storedValue,
  source: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  idempotency: z.string().optional(),
  by: by.optional(),
})
export type EarlySignal = z.infer<typeof earlySignal>

export interface EarlyPlace {
  readonly connection: Connection
  readonly names: Names
  readonly io: Io
  readonly log: Appender
  readonly shard: number
  readonly refusals: Pick<Refusals, 'add'>
}

function subjectOf(names: Names, hash: string): string {
  return names.kvSubject(names.controlBucket, `early.${hash}`)
}

/**
 * Keeps a signal for `keepMs`, if none is kept under its correlation key: as at a gate, the first
 * one counts. True when it is that one, by its idempotency key, again. Throws SignalRejectedError
 * `already_signaled`, or `too_many_early_signals` when 10,000 are kept.
 */
export async function keepEarly(
  { connection, names }: Pick<EarlyPlace, 'connection' | 'names'>,
  hash: string,
  signal: EarlySignal,
  keepMs: number,
): Promise<boolean> {
  const bucket = names.kvStream(names.controlBucket)
  const jsm = await jetstreamManager(connection.nc)
  const filter = subjectOf(names, '*')
  const info = await connection.read(() => jsm.streams.info(bucket, { subjects_filter: filter }))
  if (Object.keys(info.state.subjects ?? {}).length >= KEPT_MAX)
    throw new FlowStoneError(
      'too_many_early_signals',
      `${KEPT_MAX} signals wait for gates that do not exist yet; are their correlation keys right?`,
    )
  const payload = encodeJson({ v: 1, ...signal })
  const ttl = `${Math.max(1, Math.ceil(keepMs / 1000))}s`
  const unit = randomBytes(9).toString('base64url')
  for (let seq = 0, look = 1; ; look++) {
    const entry: Entry = {
      subject: subjectOf(names, hash),
      payload,
      contentType: 'application/json',
      expect: { seq },
      headers: { 'Nats-TTL': ttl },
    }
    const ack = await connection.read((nc) => publish(nc, entry, unit, 5000))
    if (!ack.error) return false
    const found = await connection.read((nc) => leaderGet(nc, bucket, { last_by_subj: subjectOf(names, hash) }))
    const kept = found && parseEarly(found)
    // Asked twice, because an answer was lost.
    if (kept && found.headers.get(UNIT_HEADER) === unit) return false
    if (kept) {
      if (signal.idempotency !== undefined && kept.idempotency === signal.idempotency) return true
      throw new SignalRejectedError(
        'already_signaled',
        'another signal is kept already for the gate of this correlation key',
      )
    }
    const { errCode, description } = ack.error
    const isTaken = errCode === ERR.wrongLastSequence || errCode === ERR.wrongLastSequenceConstant
    if (!isTaken || look === KEEP_TRIES)
      throw new FlowStoneError('refused', `the signal could not be kept: ${description}`)
    // The key holds the marker of a deleted signal; or what was there has expired meanwhile, or is
    // still on its way there.
    seq = found?.seq ?? 0
    if (errCode === ERR.wrongLastSequenceConstant) await connection.ready(KEEP_PAUSE_MS)
  }
}

function parseEarly(found: StoredMessage): EarlySignal | undefined {
  if (found.payload.length === 0 || found.headers.has('KV-Operation')) return undefined
  return earlySignal.safeParse(decode(found.payload, undefined)).data
}

/** Answers the gate with a signal that came before it, if there is one. */
export async function takeEarly(
  place: EarlyPlace,
  hash: string,
  ids: GateIds,
  schema: GateCreated['payload'],
): Promise<void> {
  const { connection, names, io, log, shard } = place
  const bucket = names.kvStream(names.controlBucket)
  const found = await connection.read((nc) => leaderGet(nc, bucket, { last_by_subj: subjectOf(names, hash) }))
  const signal = found && parseEarly(found)
  if (!signal) return
  const { run, asset, gate } = ids
  try {
    const loaded = await loadKept(io, signal.payload, `${run}.${asset}.${gate}`)
    if (loaded) checkPayload(schema, loaded.value)
    if (signal.idempotency !== undefined)
      if (!(await isFor(place, hash, signal.idempotency, `${run}.${asset}.${gate}`))) return
    // Stored again: else nothing would keep its object until the history has the fact that names
    // it, as it is old.
    const context = { run, pipeline: '', asset, partition: undefined }
    const payload = loaded ? await io.store('nats', loaded.value, context) : signal.payload
    const end = resolveEntry(names, shard, ids, { outcome: 'signaled', ...signal, payload })
    // It exists if the signaller saw the gate too, or if another signal was first.
    if ((await log.appendOnce(end)) === 'stored')
      emit('flowstone:gate.signal', { gate: `${run}.${asset}.${gate}`, run, asset, waitedMs: 0 })
  } catch (error) {
    // The gate does not accept this payload, and keeps waiting.
    if (!(error instanceof SignalRejectedError)) throw error
    const { reason } = error
    emit('flowstone:gate.refuse', { reason, gate: `${run}.${asset}.${gate}` })
    place.refusals.add({ gate: `${run}.${asset}.${gate}`, reason, source: signal.source, by: signal.by })
  }
  await dropEarly(place, hash)
}

/**
 * Undefined where the value is gone for good. The signal was accepted, so it answers its gate all
 * the same. What continues after the gate cannot read the payload, and its attempts end with that.
 */
async function loadKept(io: Io, payload: StoredValue, gate: string): Promise<{ readonly value: unknown } | undefined> {
  try {
    return { value: await io.load(payload) }
  } catch (cause) {
    if (isGone(cause)) return undefined
    if (!(cause instanceof FlowStoneError) || isAway(cause)) throw cause
    const message = `the signal that was kept for gate ${gate} cannot be read: ${cause.message}`
    throw new FlowStoneError(cause.code, message, { cause })
  }
}

/**
 * Whether the delivery is for this gate, and for no other: it may have answered one before, or two
 * gates of the name may be opened at the same time.
 */
async function isFor(place: EarlyPlace, hash: string, delivery: string, gate: string): Promise<boolean> {
  for (;;) {
    const decided = await decidedGate(place, hash, delivery)
    if (decided.gate !== undefined) return decided.gate === gate
    if (await decideGate(place, hash, delivery, { gate, seq: decided.seq })) return true
  }
}

/** It was taken. Left there, it would answer the next gate of that name. */
export async function dropEarly(
  { connection, names }: Pick<EarlyPlace, 'connection' | 'names'>,
  hash: string,
): Promise<void> {
  const headers = { 'KV-Operation': 'DEL', 'Nats-TTL': '60s' }
  const entry: Entry = { subject: subjectOf(names, hash), payload: new Uint8Array(), headers }
  await connection.read((nc) => publish(nc, entry, undefined, 5000))
}

/** What was kept, and is refused as a signal, answers no later gate of the name. */
export async function dropIfRefused<T>(
  place: Pick<EarlyPlace, 'connection' | 'names'>,
  hash: string,
  signalling: Promise<T>,
): Promise<T> {
  try {
    return await signalling
  } catch (error) {
    if (error instanceof SignalRejectedError) await dropEarly(place, hash)
    throw error
  }
}
