/**
 * The position of a state bucket on its log, stored under the key `engine`. It also shows whether
 * the log is still the one that the bucket was made from. A log may be created anew, be restored
 * from an older backup, or lose its end. It then holds other facts under the same sequences, and
 * the engine would skip them silently.
 */
import { randomBytes } from 'node:crypto'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { decode, encodeJson } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { leaderGet, type StoredMessage, streamBounds } from '../../log/nats.ts'
import { isSameStoredMs } from '../../log/stored-ms.ts'

const ENGINE_VERSION = 2

/** A message of the log that stays there, by which the log is known again. */
export interface Mark {
  readonly seq: number
  /** The server's time when it was stored, in milliseconds. */
  readonly ms: number
}

export interface Position {
  /** All up to here is folded into the bucket. */
  readonly seq: number
  /**
   * An earlier engine folded the facts up to here, but their documents are lost, discarded or were
   * never stored. Their tasks were enqueued then, and perhaps done. An engine that folds these
   * facts again enqueues no tasks; the reconciler finds the missing ones. 0: there are no such
   * facts.
   */
  readonly recoverTo: number
  /** The last fact at or before `seq`. None before the first fact. */
  readonly mark?: Mark
  /**
   * Another one each time the log became another: a task enqueued then is not the one of the same
   * id before, which WORK would drop as sent twice. As long as the log is the same, so is this: an
   * engine that died may have enqueued tasks of facts behind `seq`, which must not be done twice.
   */
  readonly epoch?: string
  /**
   * A checkpoint that did not fit one batch: it is stored whole under `staged.<id>.`, and must be
   * copied from there before anything else is done.
   */
  readonly redo?: Redo
}

export interface Redo {
  readonly id: string
  readonly count: number
  /** The position when it is done. */
  readonly seq: number
  readonly mark?: Mark
}

export const START: Position = { seq: 0, recoverTo: 0 }

export function encodePosition({ seq, recoverTo, mark, epoch, redo }: Position): Uint8Array {
  return encodeJson({
    v: ENGINE_VERSION,
    seq,
    ...(seq < recoverTo ? { recoverTo } : {}),
    ...(mark ? { mark } : {}),
    ...(epoch === undefined ? {} : { epoch }),
    ...(redo ? { redo } : {}),
  })
}

/**
 * Undefined where no engine has written yet. Throws `newer_version`, or `bad_state` for what no
 * engine wrote.
 */
export function positionIn(bucket: string, found: StoredMessage | undefined): Position | undefined {
  if (!found || found.payload.length === 0) return undefined
  const bad = (): FlowStoneError =>
    new FlowStoneError(
      'bad_state',
      `key ${ENGINE_KEY} of bucket ${bucket} is not what an engine wrote; ${REBUILD_ADVICE}`,
    )
  let doc: unknown
  try {
    doc = decode(found.payload, 'application/json')
  } catch {
    throw bad()
  }
  if (typeof doc !== 'object' || doc === null) throw bad()
  const version = Number(Reflect.get(doc, 'v'))
  if (version > ENGINE_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `${bucket} was written by a newer FlowStone (state version ${version}); upgrade this engine, or rebuild`,
    )
  const seq = count(Reflect.get(doc, 'seq'))
  const recoverTo = count(Reflect.get(doc, 'recoverTo') ?? 0)
  if (seq === undefined || recoverTo === undefined) throw bad()
  const mark = markIn(Reflect.get(doc, 'mark'))
  const redo = redoIn(Reflect.get(doc, 'redo'))
  const epoch: unknown = Reflect.get(doc, 'epoch')
  return {
    seq,
    recoverTo,
    ...(mark ? { mark } : {}),
    ...(typeof epoch === 'string' ? { epoch } : {}),
    ...(redo ? { redo } : {}),
  }
}

function count(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined
}

function markIn(value: unknown): Mark | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const seq = count(Reflect.get(value, 'seq'))
  const ms = count(Reflect.get(value, 'ms'))
  return seq === undefined || ms === undefined ? undefined : { seq, ms }
}

function redoIn(value: unknown): Redo | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const seq = count(Reflect.get(value, 'seq'))
  const parts = count(Reflect.get(value, 'count'))
  const mark = markIn(Reflect.get(value, 'mark'))
  if (seq === undefined || parts === undefined) return undefined
  return { id: String(Reflect.get(value, 'id')), count: parts, seq, ...(mark ? { mark } : {}) }
}

export const REBUILD_ADVICE =
  'stop all engines of the namespace, then make the state anew from the log: flowstone rebuild, or flow.rebuild()'

/** Why no engine may continue from this position on this log; undefined when it may. */
export async function logRefusal(
  connection: Connection,
  names: Names,
  shard: number,
  { seq, mark }: Position,
): Promise<FlowStoneError | undefined> {
  const stream = names.log(shard)
  const refuse = (why: string): FlowStoneError =>
    new FlowStoneError(
      'log_changed',
      `the log ${stream} is not the one that the state of shard ${shard} was made from: ${why}. Was it made anew, restored from an older backup, or did it lose its end? To go on with this log, ${REBUILD_ADVICE}`,
    )
  const bounds = await connection
    .read((nc) => streamBounds(nc, stream))
    .catch((error: unknown) => {
      if (error instanceof FlowStoneError && error.code === 'no_stream') return undefined
      throw error
    })
  if (!bounds) return refuse('it is gone (`flowstone setup` makes an empty one)')
  const { last } = bounds
  if (last < seq) return refuse(`it ends at ${last}, and the state stands at ${seq}`)
  if (!mark) return undefined
  const found = await connection.read((nc) => leaderGet(nc, stream, { seq: mark.seq }))
  if (!found) return refuse(`message ${mark.seq} is gone`)
  if (isSameStoredMs(found.timeMs, mark.ms)) return undefined
  const times = [found.timeMs, mark.ms].map((ms) => new Date(ms).toISOString())
  return refuse(`message ${mark.seq} was stored at ${times[0]}, and the state knows one of ${times[1]}`)
}

/** Whether the log has no other message in place of the mark. That one may have left the log. */
export async function isMarkOf(
  { connection, names, shard }: { readonly connection: Connection; readonly names: Names; readonly shard: number },
  mark: Mark | undefined,
): Promise<boolean> {
  if (!mark) return true
  const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq: mark.seq }))
  return !found || isSameStoredMs(found.timeMs, mark.ms)
}

/** Codes of the problems that end only when a person acts. */
export const REFUSALS: ReadonlySet<string> = new Set(['log_changed', 'newer_version', 'history_lost'])

export function newEpoch(): string {
  return randomBytes(4).toString('hex')
}
