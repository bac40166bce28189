/** I/O managers: where values of assets live. Small ones ride in the fact itself; others are stored by the manager, and the fact holds its reference. */
import { decodeMsgpack, encodeMsgpack, isJsonSafe, measure } from '../../streams/codec.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { StoredValue } from '../../streams/schemas.ts'

export interface IoContext {
  readonly run: string
  /** Assets of the same name in two pipelines are two assets, so a place named after one needs this too. Empty for a gate's payload. */
  readonly pipeline: string
  readonly asset: string
  readonly partition: string | undefined
}

/** Implement this to keep values in a place of your own. References are plain JSON objects, and must stay good for as long as the log is kept. */
export interface IoManager {
  /** Stores a value; the same value may be stored twice after a crash. Returns what `load` needs to find it. */
  store(value: unknown, context: IoContext): Promise<Record<string, unknown>>
  load(reference: Readonly<Record<string, unknown>>): Promise<unknown>
}

/** Values up to this many bytes ride in the fact. */
const INLINE_MAX_BYTES = 64 * 1024

export class Io {
  readonly #managers: ReadonlyMap<string, IoManager>

  constructor(managers: ReadonlyMap<string, IoManager>) {
    this.#managers = managers
  }

  /** Throws InvalidError, naming the place, for a value that cannot be encoded. */
  async store(manager: string, value: unknown, context: IoContext, inlineMax = INLINE_MAX_BYTES): Promise<StoredValue> {
    const found = this.#find(manager)
    if (manager !== 'nats') return { manager, ref: checkRef(manager, await found.store(value, context)) }
    if (measure(value) <= inlineMax) return inline(value)
    return { manager, ref: await found.store(value, context) }
  }

  async load(stored: StoredValue): Promise<unknown> {
    if ('manager' in stored) return this.#find(stored.manager).load(stored.ref)
    return 'msgpack' in stored ? decodeMsgpack(Buffer.from(stored.msgpack, 'base64')) : stored.json
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

/** A reference that is no object could not be read back from the log, and its run would never end. */
function checkRef(manager: string, ref: unknown): Record<string, unknown> {
  if (typeof ref === 'object' && ref !== null && !Array.isArray(ref)) return { ...ref }
  throw new InvalidError(
    `I/O manager ${manager}: store must return a reference that is a plain object, got ${ref === null ? 'null' : Array.isArray(ref) ? 'an array' : typeof ref}`,
  )
}

function inline(value: unknown): StoredValue {
  return isJsonSafe(value) ? { json: value } : { msgpack: Buffer.from(encodeMsgpack(value)).toString('base64') }
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
