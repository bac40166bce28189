/** What a gate takes. */
import { messageOf, SignalRejectedError } from '../../streams/errors.ts'
import type { GateCreated } from '../../streams/gate-schemas.ts'
import { mismatchOf, wireBytes } from '../define/json-check.ts'

export const PAYLOAD_MAX_BYTES = 1024 * 1024
/** Of a signal that is kept for a gate that is not there yet. */
export const EARLY_MAX_BYTES = 64 * 1024

/** Throws SignalRejectedError `invalid_payload`, which says what is wrong: the gate waits on. */
export function checkPayload(schema: GateCreated['payload'], payload: unknown, maxBytes = PAYLOAD_MAX_BYTES): void {
  let bytes: number
  try {
    bytes = wireBytes('payload', payload, maxBytes)
  } catch (cause) {
    throw new SignalRejectedError('invalid_payload', messageOf(cause), { cause })
  }
  if (bytes > maxBytes)
    throw new SignalRejectedError(
      'invalid_payload',
      `payload takes more than ${maxBytes} bytes; send a reference to it`,
    )
  const mismatch = schema && mismatchOf(schema, payload, bytes, "the gate's schema")
  if (mismatch !== undefined)
    throw new SignalRejectedError('invalid_payload', `the gate does not take this payload: ${mismatch}`)
}
