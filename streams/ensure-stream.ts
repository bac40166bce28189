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

/**
 * The server lets a stream have 1,000 consumers unless it names a number. Scatters with a
 * `maxConcurrent`, readers and watches have one each while they last.
 */
const CONSUMERS_MAX = 100_000

/** An account may let its streams have fewer. */
const CONSUMERS_ERROR = 10026

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
      await add(jsm, { ...wish, ...more }).catch(async (error: unknown) => {
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
    const wished: StreamConfig = { ...existing.config, ...wish }
    if (differing.length > 0) await jsm.streams.update(wish.name, wished)
    await allowConsumers(jsm, wished)
  } catch (cause) {
    throw topologyError(`stream ${wish.name}`, cause)
  }
}

async function add(jsm: JetStreamManager, config: Wish): Promise<void> {
  try {
    await jsm.streams.add({ ...config, max_consumers: CONSUMERS_MAX })
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === CONSUMERS_ERROR)) throw error
    await jsm.streams.add(config)
  }
}

/** A number that an operator has set stays. A server may refuse another one. */
async function allowConsumers(jsm: JetStreamManager, there: StreamConfig): Promise<void> {
  if (there.max_consumers > 0) return
  const wished: StreamConfig = { ...there, max_consumers: CONSUMERS_MAX }
  await jsm.streams.update(there.name, wished).catch((error: unknown) => {
    if (!(error instanceof JetStreamApiError)) throw error
  })
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
