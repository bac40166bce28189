import { createHash, randomBytes } from 'node:crypto'
import { Objm } from '@nats-io/obj'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, connect, pipeline } from '../../src/index.ts'
import { messageOf } from '../../streams/errors.ts'
import { useServer } from '../kit/fixture.ts'
import { startProxy } from '../kit/proxy.ts'
import { listeningLogger, openStage, rejection } from '../kit/stage.ts'
import { busy } from '../kit/within.ts'

const server = useServer()

const SIZE = 8 * 1024 * 1024
const large = asset('large', { execute: () => new Uint8Array(randomBytes(SIZE)) })
const pipe = pipeline('p', [large])

it.each(['cut', 'stall'] as const)(
  'a large value is read on within 3 s when its connection is %s half way',
  async (how) => {
    await using stage = await openStage(server.url, pipe)
    const run = await stage.flow.materialize(large)
    const whole = await run.result()
    await using proxy = await startProxy(Number(new URL(server.url).port))
    await using flow = await connect({
      servers: proxy.url,
      namespace: stage.namespace,
      logger: listeningLogger(),
    })
    const before = proxy.received()
    let brokenMs = 0
    let onMs = 0
    proxy.onReceive = (bytes) => {
      // Whole pieces of the value: what is said when a client connects is less.
      if (brokenMs > 0 && onMs === 0 && bytes > 8192 && proxy.connections() > 1) onMs = performance.now()
      if (brokenMs > 0 || proxy.received() - before < SIZE / 2) return
      brokenMs = performance.now()
      proxy[how]()
    }
    // (A comparison by `toEqual` of so much takes minutes to print.)
    expect(sha256(await flow.run<Uint8Array>(run.id).result())).toBe(sha256(whole))
    expect(brokenMs).toBeGreaterThan(0)
    expect(onMs - brokenMs).toBeGreaterThan(0)
    expect(onMs - brokenMs).toBeLessThan(3000 * busy())
  },
)

it.each(['cut', 'stall'] as const)('a large value is stored on when its connection is %s half way', async (how) => {
  await using proxy = await startProxy(Number(new URL(server.url).port))
  await using stage = await openStage(server.url, pipe, { worker: false })
  await using flow = await connect({ servers: proxy.url, namespace: stage.namespace, logger: listeningLogger() })
  let executions = 0
  const counted = asset('counted', {
    retry: { maxAttempts: 1 },
    execute: () => {
      executions += 1
      setTimeout(() => proxy[how](), 20)
      return new Uint8Array(randomBytes(SIZE))
    },
  })
  await flow.worker(pipeline('q', [counted]))
  const run = await stage.flow.materialize(counted)
  expect((await run.result()).length).toBe(SIZE)
  expect(executions).toBe(1)
})

it('a wait for a large value ends with its signal while the connection stalls', async () => {
  await using stage = await openStage(server.url, pipe)
  const run = await stage.flow.materialize(large)
  await run.result()
  await using proxy = await startProxy(Number(new URL(server.url).port))
  await using flow = await connect({ servers: proxy.url, namespace: stage.namespace, logger: listeningLogger() })
  const leave = new AbortController()
  const before = proxy.received()
  let abortedMs = 0
  proxy.onReceive = () => {
    if (abortedMs > 0 || proxy.received() - before < SIZE / 2) return
    abortedMs = performance.now()
    proxy.stall()
    leave.abort(new Error('enough'))
  }
  const left = flow.run(run.id).result({ signal: leave.signal })
  expect(await left.then(() => 'it came', messageOf)).toBe('enough')
  expect(performance.now() - abortedMs).toBeLessThan(5000 * busy())
})

it('values in the object store are objects as NATS has them, and those of NATS can be read', async () => {
  await using stage = await openStage(server.url, pipe)
  await (await stage.flow.materialize(large)).result()
  const nc = await connectNats({ servers: server.url })
  const bucket = await new Objm(nc).open(`${stage.namespace}_blobs`)
  const [object] = await bucket.list()
  expect(object).toMatchObject({ deleted: false })
  expect(object?.size).toBeGreaterThan(SIZE)
  const bytes = await bucket.getBlob(object?.name ?? '')
  expect(bytes?.length).toBe(object?.size)
  await nc.close()
})

it('a value that somebody put in the place of another one is not taken for it', async () => {
  await using stage = await openStage(server.url, pipe)
  const run = await stage.flow.materialize(large)
  await run.result()
  const nc = await connectNats({ servers: server.url })
  const bucket = await new Objm(nc).open(`${stage.namespace}_blobs`)
  const [object] = await bucket.list()
  await bucket.putBlob({ name: object?.name ?? '' }, new Uint8Array(randomBytes(SIZE)))
  await nc.close()
  const other = await stage.connect()
  expect(await rejection(other.run(run.id).result())).toMatchObject({
    code: 'damaged_value',
    message: expect.stringContaining('is another one: its hash is'),
  })
})

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
