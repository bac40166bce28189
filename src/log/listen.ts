/**
 * The one way to subscribe with a callback. An exception in a callback ends the client library's
 * read loop, and with it everything on that connection; a message of anybody may be undecodable,
 * down to its headers. Here it is dropped and reported.
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/nats-core'
import { holdWrites } from './one-write.ts'
import { reportsOf } from './reports.ts'

/** `onError`: the server refused the subscription; it is reported by itself. */
export function listen(
  nc: NatsConnection,
  subject: string,
  onMessage: (message: Msg) => void,
  onError?: (error: Error) => void,
): Subscription {
  holdWrites(nc)
  return nc.subscribe(subject, {
    callback: (error, message) => {
      try {
        if (error) onError?.(error)
        else onMessage(message)
      } catch (thrown) {
        reportsOf(nc)?.badMessage(subject, thrown)
      }
    },
  })
}
