/**
 * Attempts to answer a gate that were refused, as the control bucket keeps them: one document for
 * each gate, with counts by reason and the newest attempts. Never a token.
 *
 * A process counts in memory and writes once a second, so a flood costs no more than a few
 * messages. Anybody can be refused with a forged token, any number of times. So forged tokens have
 * a part of each bound: of the gates of one write, of the documents, and of the attempts that a
 * document shows. A process that dies takes with it what it has counted in its last second.
 */
import { z } from 'zod'
import { decode, encodeJson } from '../../streams/codec.ts'
import type { SignalRejectedError } from '../../streams/errors.ts'
import { parseGateId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { Names } from '../../streams/subjects.ts'
import { cut } from '../../streams/text.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, ERR, leaderGet, publish } from '../log/nats.ts'
import { after, type Timer } from '../options/timer.ts'
import type { GateDeps } from './deps.ts'
import { GateReader } from './reader.ts'
import type { RefusedSignals, SignalRejection } from './types.ts'

/** Documents at most, and how long one is kept after the last attempt. */
export const REFUSED_MAX = 10_000
export const REFUSED_FOR = `${7 * 86_400}s`
/** Attempts that a document shows. */
export const SHOWN = 10
const SHOWN_FORGED = 3
const TEXT_MAX = 100

const EVERY_MS = 1000
/** Gates that are written at a time; of more, refusals are only in the telemetry. */
export const GATES_AT_ONCE = 32
const FORGED_AT_ONCE = 8
const AT_ONCE = 8
const READ_AHEAD = 64
const TRIES = 3

const REASONS = [
  'malformed_token',
  'invalid_signature',
  'expired',
  'not_found',
  'already_signaled',
  'cancelled',
  'invalid_payload',
] as const satisfies readonly SignalRejection[]

const attempt = z.object({
  atMs: z.number(),
  reason: z.enum(REASONS),
  source: z.string().optional(),
  by: z.string().optional(),
})
const refused = z.object({
  v: z.literal(1),
  count: z.int(),
  reasons: z.partialRecord(z.enum(REASONS), z.int()),
  /** The newest first. */
  last: z.array(attempt),
})
type Attempt = z.infer<typeof attempt>
export type RefusedDoc = z.infer<typeof refused>

const NONE: RefusedDoc = { v: 1, count: 0, reasons: {}, last: [] }

/** The two together; what a document shows is bounded. */
export function mergeRefused(a: RefusedDoc, b: RefusedDoc): RefusedDoc {
  const reasons = { ...a.reasons }
  for (const reason of REASONS) {
    const count = (a.reasons[reason] ?? 0) + (b.reasons[reason] ?? 0)
    if (count > 0) reasons[reason] = count
  }
  let forged = 0
  const last = [...b.last, ...a.last]
    .toSorted((x, y) => y.atMs - x.atMs)
    .filter(({ reason }) => !isForged(reason) || ++forged <= SHOWN_FORGED)
  return { v: 1, count: a.count + b.count, reasons, last: last.slice(0, SHOWN) }
}

/** What anybody can cause who knows the id of a gate. */
function isForged(reason: SignalRejection): boolean {
  return reason === 'invalid_signature'
}

export interface RefusedAttempt {
  /** The gate's id. */
  readonly gate: string
  readonly reason: SignalRejectedError['reason']
  readonly source?: string | undefined
  readonly by?: string | undefined
}

type Place = { readonly connection: Connection; readonly names: Names }

function subjectOf(names: Names, gate: string): string {
  return names.kvSubject(names.controlBucket, `refused.${gate}`)
}

/** Ids of gates of which there is a document; `under`: of all, or of one run (`<run>.>`). */
export async function refusedGates({ connection, names }: Place, under = '>'): Promise<string[]> {
  const jsm = await jetstreamManager(connection.nc)
  const filter = subjectOf(names, under)
  const stream = names.kvStream(names.controlBucket)
  const info = await connection.read(() => jsm.streams.info(stream, { subjects_filter: filter }))
  const prefix = subjectOf(names, '')
  return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
}

async function readRefused(
  { connection, names }: Place,
  gate: string,
): Promise<{ readonly doc: RefusedDoc | 'newer' | undefined; readonly seq: number }> {
  const stream = names.kvStream(names.controlBucket)
  const found = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subjectOf(names, gate) }))
  if (!found || found.payload.length === 0) return { doc: undefined, seq: found?.seq ?? 0 }
  return { doc: refused.safeParse(decode(found.payload, undefined)).data ?? 'newer', seq: found.seq }
}

/** Takes note of refused attempts, and reads what was noted. */
export class Refusals {
  readonly #deps: GateDeps
  readonly #read: GateReader
  #pending = new Map<string, RefusedDoc>()
  #forged = 0
  #timer: Timer | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(deps: GateDeps) {
    this.#deps = deps
    this.#read = new GateReader(deps)
  }

  /** Counts in memory: asks nobody, and never throws. */
  add({ gate, reason, source, by }: RefusedAttempt): void {
    const pending = this.#pending.get(gate)
    if (!pending) {
      if (this.#pending.size >= GATES_AT_ONCE) return
      if (isForged(reason) && this.#forged++ >= FORGED_AT_ONCE) return
    }
    const one: Attempt = {
      // By the clock of this process, until it is written.
      atMs: Date.now(),
      reason,
      ...(typeof source === 'string' ? { source: cut(source, TEXT_MAX) } : {}),
      ...(by === undefined ? {} : { by: cut(by, TEXT_MAX) }),
    }
    this.#pending.set(gate, mergeRefused(pending ?? NONE, { v: 1, count: 1, reasons: { [reason]: 1 }, last: [one] }))
    this.#timer ??= after(EVERY_MS, () => void this.flush(), { unref: true })
  }

  /** Writes what was counted. Never throws: what cannot be written is not noted. */
  flush(): Promise<void> {
    this.#timer?.cancel()
    this.#timer = undefined
    const pending = [...this.#pending]
    this.#pending = new Map()
    this.#forged = 0
    if (pending.length === 0) return this.#writing
    this.#writing = this.#writing.then(() => this.#write(pending)).catch(() => undefined)
    return this.#writing
  }

  async #write(pending: readonly (readonly [string, RefusedDoc])[]): Promise<void> {
    await this.#deps.found()
    const offMs = Math.round(this.#deps.clock.now() - Date.now())
    let room: Promise<number> | undefined
    // Of new documents, in the order in which they are made.
    const takeRoom = async (isForgery: boolean): Promise<boolean> => {
      room ??= refusedGates(this.#deps).then(({ length }) => length)
      const kept = await room
      if (kept >= (isForgery ? REFUSED_MAX / 2 : REFUSED_MAX)) return false
      room = Promise.resolve(kept + 1)
      return true
    }
    for (let i = 0; i < pending.length; i += AT_ONCE)
      await Promise.allSettled(
        pending.slice(i, i + AT_ONCE).map(([gate, more]) => this.#writeOne(gate, later(more, offMs), takeRoom)),
      )
  }

  async #writeOne(gate: string, more: RefusedDoc, takeRoom: (isForgery: boolean) => Promise<boolean>): Promise<void> {
    const { connection, names, shards } = this.#deps
    const at = parseGateId(gate)
    for (let n = 0; n < TRIES; n++) {
      const { doc, seq } = await readRefused(this.#deps, gate)
      if (doc === 'newer') return
      if (!doc) {
        // A forged token may name any gate.
        if (at.shard >= shards || !(await this.#read.created(at))) return
        const isForgery = more.count === more.reasons.invalid_signature
        if (!(await takeRoom(isForgery))) return
      }
      const entry: Entry = {
        subject: subjectOf(names, gate),
        payload: encodeJson(mergeRefused(doc ?? NONE, more)),
        contentType: 'application/json',
        expect: { seq },
        headers: { 'Nats-TTL': REFUSED_FOR },
      }
      const ack = await connection.untilDisconnect((nc) => publish(nc, entry, undefined, 5000))
      const errCode = ack?.error?.errCode
      if (errCode !== ERR.wrongLastSequence && errCode !== ERR.wrongLastSequenceConstant) return
    }
  }

  /** Of one gate. */
  async of(gate: string): Promise<RefusedSignals | undefined> {
    const { doc } = await readRefused(this.#deps, gate)
    return doc === undefined || doc === 'newer' ? undefined : viewOf(doc)
  }

  /** Of those gates that have any; one request where none has. `under`: as in `refusedGates`. */
  async ofAll(gates: readonly string[], under?: string): Promise<ReadonlyMap<string, RefusedSignals>> {
    const found = new Map<string, RefusedSignals>()
    if (gates.length === 0) return found
    const known = new Set(await refusedGates(this.#deps, under))
    const wanted = gates.filter((gate) => known.has(gate))
    for (let i = 0; i < wanted.length; i += READ_AHEAD)
      await Promise.all(
        wanted.slice(i, i + READ_AHEAD).map(async (gate) => {
          const view = await this.of(gate)
          if (view) found.set(gate, view)
        }),
      )
    return found
  }
}

function later(doc: RefusedDoc, ms: number): RefusedDoc {
  return { ...doc, last: doc.last.map((one) => ({ ...one, atMs: one.atMs + ms })) }
}

function viewOf({ count, reasons, last }: RefusedDoc): RefusedSignals {
  return { count, reasons, last: last.map(({ atMs, ...rest }) => ({ at: new Date(atMs), ...rest })) }
}
