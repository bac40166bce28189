/** One stream as it is wished: it is made where it is missing, and updated where it differs. */
import { JetStreamApiError, type JetStreamManager, type StreamConfig } from '@nats-io/jetstream'
import { FlowStoneError, messageOf } from './errors.ts'
import { isFullError } from './full.ts'
import { NOT_FOUND } from './namespace.ts'

export type Wish = Partial<StreamConfig> & Pick<StreamConfig, 'name'>

/** Undefined: there is none. */
export async function configOf(jsm: JetStreamManager, stream: string): Promise<StreamConfig | undefined> {
  try {
    return (await jsm.streams.info(stream)).config
  } catch (error) {
    if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return undefined
    throw topologyError(`stream ${stream}`, error)
  }
}

/** Makes it, or updates what differs. `more`: of a stream that it makes. */
export async function ensureStream(
  jsm: JetStreamManager,
  wish: Wish,
  more: Pick<Partial<StreamConfig>, 'metadata' | 'first_seq'> = {},
): Promise<void> {
  try {
    const existing = await jsm.streams.info(wish.name).catch((error: unknown) => {
      if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return undefined
      throw error
    })
    if (!existing) {
      await jsm.streams.add({ ...wish, ...more }).catch(async (error: unknown) => {
        // Another process was faster with another detail: look again, and compare.
        if (error instanceof JetStreamApiError && error.code === 10058) return ensureStream(jsm, wish)
        throw error
      })
      return
    }
    const differing = Object.entries(wish).filter(([field, value]) => {
      const actual: unknown = Reflect.get(existing.config, field)
      return !covers(value, actual)
    })
    if (differing.length > 0) await jsm.streams.update(wish.name, { ...existing.config, ...wish })
  } catch (cause) {
    throw topologyError(`stream ${wish.name}`, cause)
  }
}

/** Whether what is there has all that is wished; the server adds fields of its own. */
function covers(wished: unknown, actual: unknown): boolean {
  if (Array.isArray(wished)) {
    return (
      Array.isArray(actual) && actual.length === wished.length && wished.every((item, i) => covers(item, actual[i]))
    )
  }
  if (typeof wished === 'object' && wished !== null) {
    return (
      typeof actual === 'object' &&
      actual !== null &&
      Object.entries(wished).every(([key, value]) => covers(value, Reflect.get(actual, key)))
    )
  }
  return wished === actual || ((wished === false || wished === 0) && actual === undefined)
}

export function topologyError(what: string, cause: unknown): FlowStoneError {
  if (cause instanceof FlowStoneError) return cause
  if (cause instanceof JetStreamApiError && isFullError(cause.code, cause.message))
    return new FlowStoneError(
      'storage_full',
      `JetStream storage is full: ${what} could not be made (${cause.message}). Delete streams or raise the limit, then try again`,
      { cause },
    )
  return new FlowStoneError('topology', `${what} could not be made or updated: ${messageOf(cause)}`, { cause })
}
