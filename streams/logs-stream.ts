/** The stream of the lines of `ctx.log`. */
import {
  DiscardPolicy,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  StoreCompression,
  type StreamConfig,
} from '@nats-io/jetstream'
import { violationIn } from './denied.ts'
import { configOf, ensureStream, type Wish } from './ensure-stream.ts'
import { FlowStoneError } from './errors.ts'
import { pause } from './patiently.ts'
import type { Names } from './subjects.ts'

const NANOS_PER_MS = 1_000_000
const LOGS_MAX_AGE_MS = 7 * 24 * 3_600_000
const LOGS_MAX_BYTES = 1024 ** 3
/** Where nothing is said, so many times as much must be left. */
const LOGS_SHARE = 4
/** Less holds hardly a message. */
export const LOGS_MIN_BYTES = 1024 ** 2
/** Lines whose answer was lost are sent again within this time. */
const LOGS_WINDOW_MS = 30_000
/** At random up to this: those that collided shall not do so again. */
const RETRY_MAX_MS = 100

export interface LogsOptions {
  readonly logsMaxAgeMs?: number
  readonly logsMaxBytes?: number
}

/**
 * The server reserves the bytes that a stream may have, and makes no stream at all when all are
 * reserved. So by default the logs get a quarter of what it has left at most. A namespace can do
 * without them, as where an engine has the rights of an older version. Without `options` it looks
 * only whether they are there. Returns whether it made them.
 */
export async function ensureLogs(
  jsm: JetStreamManager,
  names: Names,
  replicas: number,
  options?: LogsOptions,
): Promise<boolean> {
  try {
    const there = await configOf(jsm, names.logs)
    if (there && !options) return false
    const wish = logsWish(names, replicas, there, options ?? {})
    if (!there && options?.logsMaxBytes === undefined) return await makeLogs(jsm, wish)
    await ensureStream(jsm, wish)
    return !there
  } catch (error) {
    if (violationIn(error) && (options?.logsMaxAgeMs ?? options?.logsMaxBytes) === undefined) return false
    throw error
  }
}

/**
 * The server does not say how much it has left. So the stream is made four times as large, and
 * then made smaller. Other namespaces may do the same at this moment, so each size is tried twice.
 */
async function makeLogs(jsm: JetStreamManager, wish: Wish & { readonly max_bytes: number }): Promise<boolean> {
  for (let maxBytes = wish.max_bytes; maxBytes >= LOGS_MIN_BYTES; maxBytes /= 4) {
    if (await fits(jsm, wish, maxBytes)) return true
    await pause(RETRY_MAX_MS * Math.random())
    if (await fits(jsm, wish, maxBytes)) return true
  }
  return false
}

async function fits(jsm: JetStreamManager, wish: Wish, maxBytes: number): Promise<boolean> {
  if (!(await hasRoom(jsm, { ...wish, max_bytes: LOGS_SHARE * maxBytes }))) return false
  if (await hasRoom(jsm, { ...wish, max_bytes: maxBytes })) return true
  // Streams that were made at the same moment may have more together than the server has. It then
  // refuses every change, and only lets streams be deleted.
  await jsm.streams.delete(wish.name).catch(() => undefined)
  return false
}

async function hasRoom(jsm: JetStreamManager, wish: Wish): Promise<boolean> {
  try {
    await ensureStream(jsm, wish)
    return true
  } catch (error) {
    if (error instanceof FlowStoneError && error.code === 'storage_full') return false
    throw error
  }
}

/**
 * Lines of `ctx.log`. The oldest go first when there is no room. What is not named stays as it was
 * set before.
 */
function logsWish(
  names: Names,
  replicas: number,
  there: StreamConfig | undefined,
  { logsMaxAgeMs, logsMaxBytes }: LogsOptions,
): Wish & { readonly max_bytes: number } {
  const ageMs = logsMaxAgeMs === undefined ? undefined : Math.round(logsMaxAgeMs)
  const maxAge = ageMs === undefined ? (there?.max_age ?? LOGS_MAX_AGE_MS * NANOS_PER_MS) : ageMs * NANOS_PER_MS
  return {
    name: names.logs,
    subjects: [`${names.ns}.logs.>`],
    num_replicas: replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.Old,
    max_age: maxAge,
    max_bytes: logsMaxBytes ?? there?.max_bytes ?? LOGS_MAX_BYTES,
    duplicate_window: Math.min(LOGS_WINDOW_MS * NANOS_PER_MS, maxAge),
    allow_direct: true,
    allow_atomic: true,
    allow_rollup_hdrs: false,
    allow_msg_ttl: false,
    compression: StoreCompression.S2,
  }
}
