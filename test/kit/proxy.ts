import { connect, createServer, type Socket } from 'node:net'

/**
 * A TCP proxy in front of a server, which can cut its connections, or hold back what passes without
 * closing them.
 */
export interface Proxy extends AsyncDisposable {
  readonly url: string
  /** Bytes that came from the server so far. */
  readonly received: () => number
  /** Connections that it took so far. */
  readonly connections: () => number
  /** Called with each piece that comes from the server, before it is passed on. */
  onReceive: ((bytes: number) => void) | undefined
  /** Ends all connections; new ones are taken. */
  cut(): void
  /** From now on nothing passes, either way, on connections that there are. New ones are taken. */
  stall(): void
}

export async function startProxy(port: number): Promise<Proxy> {
  const pairs = new Set<{ near: Socket; far: Socket; stalled: boolean }>()
  let received = 0
  let connections = 0
  const server = createServer((near) => {
    connections += 1
    const far = connect(port, '127.0.0.1')
    const pair = { near, far, stalled: false }
    pairs.add(pair)
    near.on('data', (data) => pair.stalled || far.write(data))
    far.on('data', (data) => {
      received += data.length
      proxy.onReceive?.(data.length)
      if (!pair.stalled) near.write(data)
    })
    const end = (): void => {
      pairs.delete(pair)
      near.destroy()
      far.destroy()
    }
    for (const socket of [near, far]) socket.on('close', end).on('error', end)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const proxy: Proxy = {
    url: `nats://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    received: () => received,
    connections: () => connections,
    onReceive: undefined,
    cut: () => {
      for (const { near, far } of pairs) {
        near.destroy()
        far.destroy()
      }
    },
    stall: () => {
      for (const pair of pairs) pair.stalled = true
    },
    async [Symbol.asyncDispose]() {
      proxy.cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return proxy
}
