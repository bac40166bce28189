import { afterAll, beforeAll, expect, it } from 'vitest'
import { type GateHandler, gateHandler } from '../../src/http/index.ts'
import { useServer } from '../kit/fixture.ts'
import { until } from '../kit/until.ts'
import { type GateStage, openGateStage } from './kit.ts'

const BODY = new Uint8Array(1_048_576)
const server = useServer()
let gates: GateStage
let handler: GateHandler

beforeAll(async () => {
  gates = await openGateStage(server.url)
  const sender = { scheme: () => true, secret: 'a secret of sixteen or more', correlationKey: () => undefined }
  handler = gateHandler(gates.flow, { address: (request) => request.headers.get('x-from') ?? '', verified: { sender } })
})

afterAll(async () => {
  await gates?.[Symbol.asyncDispose]()
})

/** A body of 1 MiB that never ends. */
async function stuck(from: string): Promise<{ status?: number; release(): void }> {
  let stream: ReadableStreamDefaultController<Uint8Array> | undefined
  let read = false
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      stream = controller
      controller.enqueue(BODY)
    },
    pull: () => {
      read = true
    },
  })
  const sent: { status?: number; release(): void } = { release: () => stream?.error(new Error('gone')) }
  const answer = send('/hooks/flowstone/verified/sender', from, body).then((status) => {
    sent.status = status
  })
  await Promise.race([answer, until('it is read', () => read)])
  return sent
}

async function send(path: string, from: string, body: string | ReadableStream<Uint8Array>): Promise<number> {
  const headers = { 'Content-Type': 'text/plain', 'X-From': from }
  const request = new Request(`http://h${path}`, { method: 'POST', headers, body, duplex: 'half' })
  return (await handler(request)).status
}

it('slow bodies of one address leave room for others, and those of all who are not known for tokens', async () => {
  const gate = await gates.open()
  const slow = await Promise.all(Array.from({ length: 64 }, () => stuck('10.0.0.1')))
  try {
    expect(slow.filter(({ status }) => status === undefined)).toHaveLength(8)
    expect(await send('/hooks/flowstone/verified/sender', '10.0.0.1', 'x')).toBe(503)
    expect(await send('/hooks/flowstone/verified/sender', '10.0.0.2', 'x')).toBe(200)

    for (let i = 2; i <= 8; i++)
      slow.push(...(await Promise.all(Array.from({ length: 8 }, () => stuck(`10.0.0.${i}`)))))
    expect(await send('/hooks/flowstone/verified/sender', '10.0.0.9', 'x')).toBe(503)
    expect(await send(gate.path, '10.0.0.1', 'done')).toBe(200)
  } finally {
    for (const body of slow) body.release()
  }
  await until(
    'there is room again',
    async () => (await send('/hooks/flowstone/verified/sender', '10.0.0.9', 'x')) === 200,
  )
})
