import { createServer } from 'node:http'
import { type AddressInfo, connect as connectSocket } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { expect, it } from 'vitest'
import { LiveClients } from '../../src/http/api/live.ts'
import type { LiveTopics } from '../../src/http/api/route.ts'
import { liveEvent } from '../../src/http/api/routes/live.ts'
import { quietLogger } from '../../src/telemetry.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { until } from '../kit/until.ts'

const RUNS: LiveTopics = { runs: true, gates: false, facts: false, run: [], scatter: [], logs: [] }
const ALL = { runs: new Set(), scatters: new Map(), gates: false, facts: false, missed: true }
type Client = Parameters<LiveClients['open']>[0]

/** A client of a flow in which all changes at once, again and again; or once, and then never. */
function client(id: string, { runs, again = false }: { runs: () => Promise<object[]>; again?: boolean }) {
  const lines: string[] = []
  const leave = new AbortController()
  async function* changes(_everyMs: number, signal: AbortSignal) {
    do yield ALL
    while (again && !signal.aborted)
    if (!signal.aborted) await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  }
  const say = (line: string): void => void lines.push(line)
  const call = {
    flow: { inspect: { changes }, runs },
    caller: { id, may: () => true, covers: () => true, seesAll: true },
    signal: leave.signal,
    logger: { ...quietLogger, info: say, warn: say, error: say },
  }
  return { call: call as unknown as Client, lines, leave: () => leave.abort() }
}

const none = async (): Promise<object[]> => []

it('so many clients may listen, and so many of a key; who leaves makes room', async () => {
  const clients = new LiveClients(undefined, { clients: 3, clientsOfKey: 2 })
  const refused = (id: string): void =>
    expect(() => clients.open(client(id, { runs: none }).call, RUNS)).toThrow(
      expect.objectContaining({ reason: 'unavailable', headers: { 'Retry-After': '10' } }),
    )
  const first = client('a', { runs: none })
  clients.open(first.call, RUNS)
  const second = clients.open(client('a', { runs: none }).call, RUNS)
  refused('a')
  clients.open(client('b', { runs: none }).call, RUNS)
  refused('c')
  first.leave()
  await second.body?.cancel()
  for (const one of ['the first', 'the second'])
    await until(`${one} has left`, async () => {
      try {
        clients.open(client('a', { runs: none }).call, RUNS)
        return true
      } catch {
        return false
      }
    })
  refused('c')
})

it('a remark says that the connection lives while nothing changes', async () => {
  const clients = new LiveClients(undefined, { heartbeatMs: 5 })
  const { call, leave } = client('a', { runs: none })
  let text = ''
  for await (const bytes of clients.open(call, RUNS).body ?? []) {
    text += Buffer.from(bytes).toString()
    if (text.length >= 8) break
  }
  leave()
  expect(text).toBe(': \n\n: \n\n')
})

it('an error ends the stream, is in the log, and reaches the client as a problem', async () => {
  for (const [error, reason, detail] of [
    [new FlowStoneError('state_behind', 'the state is behind'), 'unavailable', 'the state is behind'],
    [new Error('secret'), 'internal', 'Something went wrong here.'],
  ] as const) {
    const { call, lines } = client('a', { runs: () => Promise.reject(error) })
    const text = await new LiveClients(undefined).open(call, RUNS).text()
    const [, event, data = ''] = /^id: 1\nevent: (\w+)\ndata: (.*)\n\n$/.exec(text) ?? []
    expect(liveEvent.parse({ event, data: JSON.parse(data) })).toMatchObject({
      event: 'problem',
      data: { reason, detail },
    })
    expect(lines.at(-1)).toBe(`http: live updates ended: ${reason}`)
  }
})

it('a client that does not read is dropped, and its connection with it', async () => {
  const large = { id: 'x'.repeat(1_000_000) }
  const clients = new LiveClients(undefined, { stalledMs: 20, clients: 1 })
  const slow = client('a', { runs: async () => [large], again: true })
  const web = createServer(
    getRequestListener((_, { outgoing }) => clients.open(slow.call, RUNS, { cut: () => void outgoing.destroy() })),
  )
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
  const { port } = web.address() as AddressInfo
  const socket = connectSocket(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
  socket.on('error', () => undefined)
  try {
    const open = async (): Promise<number> =>
      new Promise((resolve, reject) => web.getConnections((error, count) => (error ? reject(error) : resolve(count))))
    await until('it is dropped', async () => slow.lines.length > 0 && (await open()) === 0)
    expect(slow.lines).toEqual(['http: live updates ended: the client does not read'])
  } finally {
    socket.destroy()
    web.close()
  }
  // Where nothing can cut the connection, the stream breaks off.
  const other = client('a', { runs: async () => [large], again: true })
  const { body } = new LiveClients(undefined, { stalledMs: 20 }).open(other.call, RUNS)
  await until('it is dropped', async () => other.lines.length > 0)
  await expect(body?.getReader().read()).rejects.toThrow('does not read')
})
