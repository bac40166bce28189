/** Whoever reads a stream is a consumer of it. A stream, and an account, may have only so many. */
import { FlowStoneError } from '../../streams/errors.ts'

const MAX_CONSUMERS = 10026

/** As the server answered to who wanted to read; undefined for another answer. */
export function crowdedError(stream: string, errCode: unknown): FlowStoneError | undefined {
  if (errCode !== MAX_CONSUMERS) return undefined
  return new FlowStoneError(
    'too_many_readers',
    `stream ${stream} has as many consumers as it may have, and cannot be read by another one now: raise max_consumers of the stream or the account, or have fewer read at a time`,
  )
}
