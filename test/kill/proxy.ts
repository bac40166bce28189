/**
 * A TCP proxy in front of a server, for one process: its connections can be cut, refused, stalled,
 * made half-open or slow, while those of other processes are well.
 */
import { once } from 'node:events'
import { createServer, connect as dial, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export type Direction = 'both' | 'up' | 'down'
type Way = 'up' | 'down'

interface Link {
  readonly client: Socket
  readonly server: Socket
  /** What one side sends gets lost, and the other side hears nothing of it. */
  isDead: boolean
}

export class ServerProxy implements AsyncDisposable {
  readonly url: string
  readonly #listener: Server
  readonly #links = new Set<Link>()
  #refuses = false
  #delayMs = 0
  readonly #stalled = new Set<Way>()

  private constructor(listener: Server, port: number) {
    this.#listener = listener
    this.url = `nats://127.0.0.1:${port}`
  }

  static async open(target: () => number): Promise<ServerProxy> {
    const listener = createServer()
    listener.listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const address = listener.address()
    const proxy = new ServerProxy(listener, typeof address === 'object' && address ? address.port : 0)
    listener.on('connection', (client) => proxy.#connect(client, target()))
    return proxy
  }

  /** Both sides hear of it at once. */
  cut(): void {
    for (const { client, server } of this.#links) {
      client.destroy()
      server.destroy()
    }
  }

  /** Cut, and nobody gets through for a while. */
  async refuse(forMs: number): Promise<void> {
    this.#refuses = true
    this.cut()
    await sleep(forMs)
    this.#refuses = false
  }

  /** Nothing comes through for a while, and then all of it. */
  async stall(forMs: number, direction: Direction): Promise<void> {
    const ways: Way[] = direction === 'both' ? ['up', 'down'] : [direction]
    for (const way of ways) this.#stalled.add(way)
    for (const link of this.#links) for (const way of ways) sourceOf(link, way).pause()
    await sleep(forMs)
    for (const way of ways) this.#stalled.delete(way)
    for (const link of this.#links) for (const way of ways) sourceOf(link, way).resume()
  }

  /**
   * The connections that there are carry nothing any more, and are cut in the end; new ones are
   * well.
   */
  async halfOpen(forMs: number): Promise<void> {
    const links = [...this.#links]
    for (const link of links) link.isDead = true
    await sleep(forMs)
    for (const { client, server } of links) {
      client.destroy()
      server.destroy()
    }
  }

  /** Everything arrives, late. */
  async slow(forMs: number, delayMs: number): Promise<void> {
    this.#delayMs = delayMs
    await sleep(forMs)
    this.#delayMs = 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#refuses = true
    this.cut()
    this.#listener.close()
  }

  #connect(client: Socket, port: number): void {
    client.on('error', () => undefined)
    if (this.#refuses) {
      client.destroy()
      return
    }
    const server = dial(port, '127.0.0.1')
    server.on('error', () => undefined)
    const link: Link = { client, server, isDead: false }
    this.#links.add(link)
    for (const socket of [client, server])
      socket.on('close', () => {
        this.#links.delete(link)
        // A side that is dead says nothing to the other.
        if (link.isDead) return
        client.destroy()
        server.destroy()
      })
    this.#forward(link, 'up')
    this.#forward(link, 'down')
  }

  #forward(link: Link, way: Way): void {
    const from = sourceOf(link, way)
    const to = way === 'up' ? link.server : link.client
    let last: Promise<void> = Promise.resolve()
    let waiting = 0
    const send = (chunk: Buffer): void => {
      if (link.isDead || to.destroyed) return
      if (!to.write(chunk)) {
        from.pause()
        to.once('drain', () => {
          if (!this.#stalled.has(way)) from.resume()
        })
      }
    }
    from.on('data', (chunk: Buffer) => {
      // In order, also as the delay changes.
      if (this.#delayMs === 0 && waiting === 0) {
        send(chunk)
        return
      }
      waiting += 1
      last = Promise.all([last, sleep(this.#delayMs)]).then(() => {
        waiting -= 1
        send(chunk)
      })
    })
    if (this.#stalled.has(way)) from.pause()
  }
}

function sourceOf({ client, server }: Link, way: Way): Socket {
  return way === 'up' ? client : server
}
