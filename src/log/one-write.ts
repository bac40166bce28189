/**
 * What is sent in one turn of the event loop leaves in one write. The client library writes after
 * every few steps of code. A write costs this process and the server more than the message in it.
 */
import { Socket } from 'node:net'
import type { NatsConnection } from '@nats-io/nats-core'

const holding = new WeakMap<NatsConnection, Socket>()

/** Called before something is sent: it leaves at the end of this turn, with all that follows. */
export function holdWrites(nc: NatsConnection): void {
  if (holding.has(nc)) return
  const socket = socketOf(nc)
  if (!socket) return
  holding.set(nc, socket)
  socket.cork()
  setImmediate(() => writeNow(nc))
}

/**
 * Writes what is held. Called before code of users begins, because it may hold up this turn for
 * long, and before the process ends.
 */
export function writeNow(nc: NatsConnection): void {
  const socket = holding.get(nc)
  if (!socket) return
  holding.delete(nc)
  socket.uncork()
}

/** Undefined while there is none, and for a WebSocket. */
export function socketOf(nc: NatsConnection): Socket | undefined {
  let found: unknown = nc
  for (const key of ['protocol', 'transport', 'socket'])
    found = typeof found === 'object' && found !== null ? Reflect.get(found, key) : undefined
  return found instanceof Socket ? found : undefined
}
