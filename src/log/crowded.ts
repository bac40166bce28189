/** Whoever reads a stream is a consumer of it. A stream, and an account, may have only so many. */
import { JetStreamApiError } from '@nats-io/jetstream'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Connection } from './connection.ts'

const MAX_CONSUMERS = 10026

/** As the server answered to who wanted to read; undefined for another answer. */
export function crowdedError(stream: string, errCode: unknown, cause?: unknown): FlowStoneError | undefined {
  if (errCode !== MAX_CONSUMERS) return undefined
  return new FlowStoneError(
    'too_many_readers',
    `stream ${stream} has as many consumers as it may have, and cannot be read by another one now: raise max_consumers of the stream or the account, or have fewer read at a time`,
    { cause },
  )
}

/** What is made to read the stream. Throws FlowStoneError `too_many_readers`, or `denied`. */
export async function reading<T>(connection: Connection, stream: string, made: Promise<T>): Promise<T> {
  try {
    return await connection.explaining(made)
  } catch (error) {
    throw (error instanceof JetStreamApiError && crowdedError(stream, error.code, error)) || error
  }
}
