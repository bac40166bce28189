/** What a gate takes. */
import { z } from 'zod'
import { encodeMsgpack, measure } from '../../streams/codec.ts'
import { messageOf, SignalRejectedError } from '../../streams/errors.ts'
import type { GateCreated } from '../../streams/schemas.ts'

const PAYLOAD_MAX_BYTES = 1024 * 1024
/** Of a signal that is kept for a gate that is not there yet. */
export const EARLY_MAX_BYTES = 64 * 1024

/** Throws SignalRejectedError `invalid_payload`, which says what is wrong: the gate waits on. */
export function checkPayload(schema: GateCreated['payload'], payload: unknown, maxBytes = PAYLOAD_MAX_BYTES): void {
  let bytes: number
  try {
    bytes = measure(payload, 'payload')
    // Text that is not ASCII takes more than was measured: up to three times as much.
    if (bytes <= maxBytes && 3 * bytes > maxBytes) bytes = encodeMsgpack(payload).length
  } catch (cause) {
    throw new SignalRejectedError('invalid_payload', messageOf(cause), { cause })
  }
  if (bytes > maxBytes)
    throw new SignalRejectedError(
      'invalid_payload',
      `payload takes more than ${maxBytes} bytes; send a reference to it`,
    )
  if (!schema) return
  const checked = z.fromJSONSchema(schema).safeParse(payload)
  if (!checked.success)
    throw new SignalRejectedError(
      'invalid_payload',
      `the gate does not take this payload: ${oneLine(z.prettifyError(checked.error))}`,
    )
}

/** Where it is shown (terminals, logs, `detail` of a problem) is one line. */
function oneLine(pretty: string): string {
  return pretty
    .replaceAll(/\n\s*→ /g, ' ')
    .replaceAll('\n', '; ')
    .replaceAll('✖ ', '')
}
