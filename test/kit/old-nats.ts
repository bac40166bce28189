import type { AddressInfo } from 'node:net'
import { createServer, type Socket } from 'node:net'

/**
 * Speaks just enough of the NATS protocol to be connected to, as a server of the version that is
 * said.
 */
export async function oldNats(version: string): Promise<{ url: string } & AsyncDisposable> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    const info = {
      server_id: 'FAKE',
      server_name: 'fake',
      version,
      proto: 1,
      headers: true,
      max_payload: 1_048_576,
      jetstream: true,
    }
    socket.write(`INFO ${JSON.stringify(info)}\r\n`)
    socket.on('data', (data) => {
      if (data.toString('latin1').includes('PING')) socket.write('PONG\r\n')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `nats://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
