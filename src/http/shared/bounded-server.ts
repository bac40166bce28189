/**
 * Node's HTTP server, with bounds on what a connection may cost, whatever it sends or does not
 * read. Node itself bounds headers, and the time in which a request arrives.
 */
import { createServer, type RequestListener, type Server, type ServerOptions } from 'node:http'
import type { Socket } from 'node:net'

type Exchange = Parameters<RequestListener>

/**
 * Requests that wait on a connection while one before them is answered. Hardly any client sends one
 * before it has its answer.
 */
const WAITING_MAX = 16
/** A connection on which nothing moves is closed, also one whose client does not read. */
const STILL_MS = 120_000
/** How long a body that nobody wants may go on after the answer. */
const UNWANTED_MS = 500
const CONNECTIONS_MAX = 10_000

export interface ServerBounds extends Pick<ServerOptions, 'headersTimeout' | 'requestTimeout' | 'keepAliveTimeout'> {
  /** Default 120 s, which is more than any answer takes to begin. */
  readonly stillMs?: number
}

export function boundedServer({ stillMs = STILL_MS, ...bounds }: ServerBounds, listener: RequestListener): Server {
  const server = createServer({
    ...bounds,
    // How often those are looked at; Node's own is 30 s.
    connectionsCheckingInterval: 2000,
    maxHeaderSize: 16_384,
  })
  server.timeout = stillMs
  server.maxConnections = CONNECTIONS_MAX
  const turns = new Turns(listener)
  server.on('request', (incoming, outgoing) => turns.take([incoming, outgoing]))
  return server
}

/**
 * Requests of a connection, one after the other. Node hands them on as they come: thousands would
 * be answered side by side, and all answers kept until the client reads them.
 */
class Turns {
  readonly #listener: RequestListener
  /** Of connections with a request that is being answered. */
  readonly #waiting = new WeakMap<Socket, Exchange[]>()

  constructor(listener: RequestListener) {
    this.#listener = listener
  }

  take(exchange: Exchange): void {
    const [{ socket }] = exchange
    const waiting = this.#waiting.get(socket)
    if (waiting && waiting.length >= WAITING_MAX) socket.destroy()
    else if (waiting) waiting.push(exchange)
    else this.#begin(socket, exchange)
  }

  #begin(socket: Socket, [incoming, outgoing]: Exchange): void {
    if (!this.#waiting.has(socket)) this.#waiting.set(socket, [])
    outgoing.once('close', () => {
      const next = socket.destroyed ? undefined : this.#waiting.get(socket)?.shift()
      if (next) this.#begin(socket, next)
      else this.#waiting.delete(socket)
    })
    outgoing.once('finish', () => {
      if (incoming.complete) return
      // Of GET, Node reads it to its end and drops it.
      setTimeout(() => {
        if (!incoming.complete) socket.destroy()
      }, UNWANTED_MS).unref()
    })
    this.#listener(incoming, outgoing)
  }
}
