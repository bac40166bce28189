/** A message of a stream, as the functions of a subscription get it. */
import { InvalidError, messageOf } from '../../../streams/errors.ts'
import type { EventMessage } from '../../define/subscription.ts'

export interface RawMessage {
  readonly subject: string
  readonly payload: Uint8Array
  readonly headers: ReadonlyMap<string, string>
  readonly seq: number
  readonly timeMs: number
}

export const MSG_ID = 'Nats-Msg-Id'

/** `bucket`: the message is a change in this key-value bucket. */
export function eventMessage(raw: RawMessage, bucket: string | undefined): EventMessage {
  const { subject, payload, headers, seq, timeMs } = raw
  const text = (): string => Buffer.from(payload).toString('utf8')
  const json = <T>(): T => {
    try {
      return JSON.parse(text()) as T
    } catch (cause) {
      throw new InvalidError(`the body is no JSON: ${messageOf(cause)}`, { cause })
    }
  }
  const change =
    bucket === undefined ? {} : { bucket, key: subject.slice(`$KV.${bucket}.`.length), operation: operationOf(headers) }
  return {
    subject,
    data: payload,
    headers,
    id: headers.get(MSG_ID),
    seq,
    time: new Date(timeMs),
    json,
    text,
    ...change,
  }
}

function operationOf(headers: ReadonlyMap<string, string>): NonNullable<EventMessage['operation']> {
  const operation = headers.get('KV-Operation')
  if (operation === 'PURGE' || headers.get('Nats-Marker-Reason') === 'Purge') return 'PURGE'
  return operation === 'DEL' || headers.has('Nats-Marker-Reason') ? 'DEL' : 'PUT'
}
