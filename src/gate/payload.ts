/** What a gate takes. */
import { z } from 'zod'
import { measure } from '../../streams/codec.ts'
import { messageOf, SignalRejectedError } from '../../streams/errors.ts'
import type { GateCreated } from '../../streams/schemas.ts'

const PAYLOAD_MAX_BYTES = 1024 * 1024

/** Throws SignalRejectedError `invalid_payload`, which says what is wrong: the gate waits on. */
export function checkPayload(schema: GateCreated['payload'], payload: unknown): void {
  let bytes: number
  try {
    bytes = measure(payload, 'payload')
  } catch (cause) {
    throw new SignalRejectedError('invalid_payload', messageOf(cause), { cause })
  }
  if (bytes > PAYLOAD_MAX_BYTES)
    throw new SignalRejectedError(
      'invalid_payload',
      `payload takes more than ${PAYLOAD_MAX_BYTES} bytes; send a reference to it`,
    )
  if (!schema) return
  const checked = z.fromJSONSchema(schema).safeParse(payload)
  if (!checked.success)
    throw new SignalRejectedError(
      'invalid_payload',
      `the gate does not take this payload: ${z.prettifyError(checked.error)}`,
    )
}
