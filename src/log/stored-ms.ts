/** When a message was stored, to the millisecond, by whichever way it was read. */
import type { JsMsg } from '@nats-io/jetstream'

/** So near to a full millisecond the number of the library may be on its wrong side. */
const UNSURE_NS = 1024
const MS = 1_000_000

/**
 * The library gives nanoseconds as a number, which has no place for the last two digits. So a time
 * just before a full millisecond would be read as the next one. The subject of the answer has all
 * digits.
 */
export function storedMsOf(message: Pick<JsMsg, 'info'>): number {
  const nanos = Number(message.info.timestampNanos)
  const ms = Math.floor(nanos / MS)
  const rest = nanos - ms * MS
  if (rest > UNSURE_NS && rest < MS - UNSURE_NS) return ms
  const reply: unknown = Reflect.get(message, 'reply')
  const tokens = typeof reply === 'string' ? reply.split('.') : []
  // Domain and account are left out by older servers.
  const exact = Number(tokens[tokens.length < 11 ? 7 : 9]?.slice(0, -6))
  return exact > 0 ? exact : ms
}

/** Whether two times are of one message. Earlier versions read some of them a millisecond late. */
export function isSameStoredMs(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1
}
