import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { HEAD_BYTES, type HelperData } from '../../src/worker/control/helper-code.ts'
import { joinThread } from '../../src/worker/control/helper-thread.ts'
import { until } from '../kit/until.ts'

const SLOTS = 1
const SLOT_BYTES = 64
const servers: Server[] = []

afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

/** Speaks as much of the protocol as a connection needs to begin. */
async function server(info: object): Promise<{ url: string; sockets: Socket[] }> {
  const sockets: Socket[] = []
  const listening = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    socket.on('data', (text) => void (text.includes('PING') && socket.write('PONG\r\n')))
    socket.write(`INFO ${JSON.stringify(info)}\r\n`)
  })
  servers.push(listening)
  await new Promise<void>((resolve) => void listening.listen(0, '127.0.0.1', resolve))
  const address = listening.address()
  return { url: `nats://127.0.0.1:${Object(address).port}`, sockets }
}

function part(url: string, more: Partial<HelperData> = {}) {
  const said: unknown[] = []
  const errors: unknown[] = []
  const data: HelperData = {
    memory: new SharedArrayBuffer(HEAD_BYTES + (4 + SLOT_BYTES) * SLOTS),
    slots: SLOTS,
    slotBytes: SLOT_BYTES,
    servers: [url],
    tls: undefined,
    worker: 'worker',
    questions: [],
    inbox: '_INBOX.helper',
    ackWaitMs: 30_000,
    maxBlockedMs: 600_000,
    owned: false,
    ...more,
  }
  const { port, close } = joinThread(data, (error) => errors.push(error))
  port.on('message', (message: object) => {
    said.push(message)
    if ('nonce' in message) port.postMessage({ auth: {} })
  })
  return { said, errors, close }
}

it('a part that cannot connect tries it again, and ends no other part', async () => {
  const [secret, open] = [await server({ tls_required: true }), await server({})]
  const noFile = part(secret.url, { tls: { caFile: '/there/is/none.pem' } })
  const noAddress = part('nats://[::')
  await until('it has tried it twice', () => secret.sockets.length > 1)
  const good = part(open.url)
  try {
    await until('the other one is connected', () => good.said.some((message) => 'connected' in Object(message)))
    expect([noFile.errors, noAddress.errors, good.errors]).toEqual([[], [], []])
  } finally {
    for (const { close } of [noFile, noAddress, good]) close()
  }
})

it('a part that is closed leaves its connection, and another one begins in the same thread', async () => {
  const { url, sockets } = await server({})
  const first = part(url)
  await until('it is connected', () => first.said.some((message) => 'connected' in Object(message)))
  first.close()
  first.close()
  await until('its connection is closed', () => sockets.every((socket) => socket.destroyed))
  const second = part(url)
  await until('it is connected', () => second.said.some((message) => 'connected' in Object(message)))
  expect(sockets).toHaveLength(2)
  second.close()
})

it('what cannot be handed to the thread is an error, and leaves nothing there', async () => {
  const errors: unknown[] = []
  const data = { memory: () => undefined } as unknown as HelperData
  expect(() => joinThread(data, (error) => errors.push(error))).toThrow(/could not be cloned/)
  const { url } = await server({})
  const good = part(url)
  await until('another one is connected', () => good.said.some((message) => 'connected' in Object(message)))
  good.close()
  expect(errors).toEqual([])
})
