/**
 * I/O managers: where values of assets live. Small ones ride in the fact itself; others are stored
 * by the manager, and the fact holds its reference.
 */
import { decodeMsgpack } from '../../streams/codec.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { type Shared, share } from '../../streams/readonly.ts'
import type { StoredValue } from '../../streams/schemas.ts'
import { encodeValue, isJsonSafe, isPlainData, jsonCopy } from '../../streams/value.ts'
import type { Connection } from '../log/connection.ts'
import { asAway, isUnreachable } from '../log/unreachable.ts'
import { unlessAborted } from '../options/timer.ts'

/** Whose value an I/O manager stores or loads. */
export interface IoContext {
  readonly run: string
  /**
   * Assets of the same name in two pipelines are two assets, so a place named after one needs this
   * too. Empty for a gate's payload.
   */
  readonly pipeline: string
  readonly asset: string
  readonly partition: string | undefined
}

/**
 * Implement this to keep values in a place of your own. References are plain JSON objects, and must
 * stay good for as long as the log is kept.
 *
 * What `load` gives is copied where it is plain data (objects, lists, Map, Set, dates, bytes), so a
 * manager may keep it. Of anything else, such as an instance of a class, no copy can be made:
 * `load` is then called for each execution.
 */
export interface IoManager {
  /**
   * Stores a value; the same value may be stored twice after a crash. Returns what `load` needs to
   * find it.
   */
  store(value: unknown, context: IoContext): Promise<Record<string, unknown>>
  /**
   * `signal` is aborted when nobody waits for the value any more. Throw FlowStoneError
   * `unreachable` when the place of the values is away: what needs them is tried again until it is
   * back, at no cost.
   */
  load(reference: Readonly<Record<string, unknown>>, options?: { readonly signal?: AbortSignal }): Promise<unknown>
  /**
   * What `load` gives is never changed by those who get it: one is enough for all executions of a
   * process. Default false.
   */
  readonly shared?: boolean
}

/** The manager of FlowStone itself takes bytes. */
export interface BytesIoManager extends IoManager {
  storeBytes(value: Uint8Array<ArrayBuffer>): Promise<Record<string, unknown>>
}

/**
 * Values up to this many bytes ride in the fact; less where the server's messages are small. As
 * JSON they may take six times as much.
 */
export const INLINE_MAX_BYTES = 64 * 1024
export const INLINE_PART = 1 / 8
export const REF_MAX_BYTES = 16 * 1024

/** How an execution gets at a value: what is shared, or what is loaded for it alone. */
export type Sight = Shared | { load(signal?: AbortSignal): Promise<unknown> }

export class Io {
  readonly #managers: ReadonlyMap<string, IoManager | BytesIoManager>
  readonly #connection: Pick<Connection, 'share'>

  constructor(connection: Pick<Connection, 'share'>, managers: ReadonlyMap<string, IoManager | BytesIoManager>) {
    this.#connection = connection
    this.#managers = managers
  }

  /**
   * `value` may be a snapshot. Throws InvalidError, naming the place, for a value that cannot be
   * encoded.
   */
  async store(manager: string, value: unknown, context: IoContext): Promise<StoredValue> {
    const found = this.#find(manager)
    if (manager !== 'nats') return { manager, ref: checkRef(manager, await found.store(value, context)) }
    const bytes = encodeValue(value)
    if (bytes.length <= this.#connection.share(INLINE_MAX_BYTES, INLINE_PART)) return inline(bytes)
    if (takesBytes(found)) return { manager, ref: await found.storeBytes(bytes) }
    return { manager, ref: checkRef(manager, await found.store(decodeMsgpack(bytes), context)) }
  }

  /**
   * The value, as a copy of its own where it can be copied. Rejects with the reason of the signal
   * as soon as that is aborted, whatever the manager does.
   */
  async load(stored: StoredValue, signal?: AbortSignal): Promise<unknown> {
    return (await this.#load(stored, signal)).value
  }

  /** For the executions of this process. */
  async loadShared(stored: StoredValue, signal?: AbortSignal): Promise<Sight> {
    const { value, isOwn } = await this.#load(stored, signal)
    if (isOwn) return share(value)
    if ('manager' in stored && this.#find(stored.manager).shared) return { isSame: true, get: () => value }
    return { load: (by) => this.load(stored, by) }
  }

  async #load(
    stored: StoredValue,
    signal?: AbortSignal,
  ): Promise<{ readonly value: unknown; readonly isOwn: boolean }> {
    if (!('manager' in stored))
      return {
        value: 'msgpack' in stored ? decodeMsgpack(Buffer.from(stored.msgpack, 'base64')) : stored.json,
        isOwn: true,
      }
    const manager = this.#find(stored.manager)
    const value = await unlessAborted(loadOf(manager, stored.ref, signal), signal)
    if (takesBytes(manager)) return { value, isOwn: true }
    if (manager.shared || !isPlainData(value)) return { value, isOwn: false }
    return { value: structuredClone(value), isOwn: true }
  }

  #find(name: string): IoManager {
    const found = this.#managers.get(name)
    if (found) return found
    throw new FlowStoneError(
      'unknown_io',
      `there is no I/O manager ${name} here; pass it to connect({ io: { ${name}: … } })`,
    )
  }
}

/** A manager whose place is away says so with `unreachable`. */
async function loadOf(
  manager: IoManager,
  ref: Readonly<Record<string, unknown>>,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  try {
    return await manager.load(ref, signal ? { signal } : {})
  } catch (error) {
    throw error instanceof Error && isUnreachable(error) ? asAway(error) : error
  }
}

function takesBytes(manager: IoManager | BytesIoManager): manager is BytesIoManager {
  return 'storeBytes' in manager
}

/**
 * A reference that is no object could not be read back from the log, and its run would never end.
 */
function checkRef(manager: string, ref: unknown): Record<string, unknown> {
  if (typeof ref === 'object' && ref !== null && !Array.isArray(ref)) {
    const copy = jsonCopy(ref, `I/O manager ${manager}: reference`)
    const bytes = Buffer.byteLength(JSON.stringify(copy))
    if (bytes <= REF_MAX_BYTES) return Object.fromEntries(Object.entries(Object(copy)))
    throw new InvalidError(
      `I/O manager ${manager}: a reference takes at most ${REF_MAX_BYTES} bytes as JSON, this one ${bytes}; store must keep the value elsewhere and return what load needs to find it`,
    )
  }
  throw new InvalidError(
    `I/O manager ${manager}: store must return a reference that is a plain object, got ${ref === null ? 'null' : Array.isArray(ref) ? 'an array' : typeof ref}`,
  )
}

function inline(bytes: Uint8Array): StoredValue {
  // Of the bytes, and not of what was given: that may be another thing by now.
  const value = decodeMsgpack(bytes)
  return isJsonSafe(value) ? { json: value } : { msgpack: Buffer.from(bytes).toString('base64') }
}

/** Keeps values in this process: for tests of pipelines whose worker and caller are one process. */
export function memoryIo(): IoManager {
  const values = new Map<string, unknown>()
  return {
    store: async (value, { run, asset }) => {
      const id = `${run}.${asset}`
      values.set(id, structuredClone(value))
      return { id }
    },
    load: async ({ id }) => {
      if (typeof id !== 'string' || !values.has(id))
        throw new InvalidError(`memory I/O: ${String(id)} was not stored by this process`)
      return structuredClone(values.get(id))
    },
  }
}
