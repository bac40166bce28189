import { once } from 'node:events'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { boundedServer, type ServerBounds } from '../../src/http/shared/bounded-server.ts'
import { until } from '../kit/until.ts'

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

interface Client {
  readonly socket: Socket
  readonly got: () => string
  readonly closed: () => boolean
}

async function serve(listener: RequestListener, bounds: ServerBounds = {}): Promise<() => Promise<Client>> {
  const server = boundedServer(bounds, listener).listen(0, '127.0.0.1')
  ends.push(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return async () => {
    const socket = connect(port, '127.0.0.1')
    ends.push(() => socket.destroy())
    let got = ''
    let isClosed = false
    socket.on('data', (data) => {
      got += data.toString('latin1')
    })
    // What is sent to a connection that the server has closed may be an error.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      isClosed = true
    })
    await once(socket, 'connect')
    return { socket, got: () => got, closed: () => isClosed }
  }
}

function line(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
}

it('requests that a connection sends at once are answered one after the other, in order', async () => {
  const begun: [IncomingMessage, ServerResponse][] = []
  const client = await (await serve((...exchange) => void begun.push(exchange)))()
  client.socket.write(Array.from({ length: 10 }, (_, i) => line(`/${i}`)).join(''))
  for (let i = 0; i < 10; i++) {
    await until('the next one is begun', () => begun.length === i + 1)
    const [incoming, outgoing] = begun[i] ?? []
    expect(incoming?.url).toBe(`/${i}`)
    outgoing?.end(`answer ${i};`)
  }
  await until('all are answered', () => client.got().includes('answer 9;'))
  expect(client.got().match(/answer \d;/g)).toEqual(Array.from({ length: 10 }, (_, i) => `answer ${i};`))
  client.socket.write(line('/later'))
  await until('the connection is of use', () => begun.length === 11)
})

it('a connection that sends very many requests at once is closed, and few of them are begun', async () => {
  let begun = 0
  const client = await (await serve(() => void begun++))()
  client.socket.write(line('/').repeat(1000))
  await until('it is closed', client.closed)
  expect(begun).toBe(1)
})

it('requests of one connection do not wait for those of another, and those of one that is gone are dropped', async () => {
  const begun: string[] = []
  const connected = await serve(({ url = '' }) => void begun.push(url))
  const [one, two] = [await connected(), await connected()]
  one.socket.write(line('/one') + line('/dropped'))
  await until('the first is begun', () => begun.includes('/one'))
  two.socket.write(line('/two'))
  await until('the other one is begun', () => begun.includes('/two'))
  one.socket.destroy()
  const three = await connected()
  three.socket.write(line('/three'))
  await until('another one is begun', () => begun.includes('/three'))
  expect(begun).toEqual(['/one', '/two', '/three'])
})

it.each(['GET', 'HEAD', 'POST'])(
  'a body of %s that nobody reads and that has no end is cut off after the answer',
  async (method) => {
    const client = await (await serve((_, outgoing) => void outgoing.end('done')))()
    client.socket.write(`${method} / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`)
    const chunk = `10000\r\n${' '.repeat(65_536)}\r\n`
    const more = (): void => void (client.socket.destroyed || client.socket.write(chunk, () => setImmediate(more)))
    more()
    await until('it is closed', client.closed)
    expect(client.got()).toMatch(/^HTTP\/1.1 200 /)
  },
)

it('a connection whose client does not read its answer is closed', async () => {
  let outgoing: ServerResponse | undefined
  const answer: RequestListener = (_, response) => {
    outgoing = response
    response.end(Buffer.alloc(64 * 1_048_576))
  }
  const client = await (await serve(answer, { stillMs: 200 }))()
  client.socket.pause()
  client.socket.write(line('/'))
  await until('the server has dropped it', () => outgoing?.destroyed === true)
  expect(outgoing?.writableFinished).toBe(false)
})
