import { connect, createServer } from 'node:net'
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { OrderedPull } from '../../src/log/ordered-pull.ts'
import { useServer } from '../kit/fixture.ts'
import { rawServer } from '../kit/guarded.ts'
import { freshNamespace } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default', maxPayload: 4 * 1024 * 1024 })
let connection: Connection
let jsm: JetStreamManager
beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
  jsm = await jetstreamManager(connection.nc)
})
afterAll(async () => {
  await connection?.close()
})

/** A stream of messages of these sizes, the last of them under another subject. */
async function streamOf(sizes: readonly number[]): Promise<string> {
  const stream = freshNamespace()
  await jsm.streams.add({ name: stream, subjects: [`${stream}.>`] })
  for (const [i, size] of sizes.entries())
    connection.nc.publish(`${stream}.${i === sizes.length - 1 ? 'last' : 'one'}`, Buffer.alloc(size, 'a'))
  await until('all are stored', async () => (await jsm.streams.info(stream)).state.messages === sizes.length)
  return stream
}

interface Got {
  readonly seq: number
  readonly timeMs: number
  readonly size: number
}

async function pulling(
  stream: string,
  {
    from = 1,
    filters,
    room = Number.POSITIVE_INFINITY,
    by = connection,
  }: { from?: number; filters?: readonly string[]; room?: number; by?: Connection } = {},
): Promise<{ pull: OrderedPull; got: Got[]; give: (room: number) => void }> {
  const got: Got[] = []
  let most = room
  const pull = await OrderedPull.open(by, {
    stream,
    from,
    filters,
    hasRoom: () => got.length < most,
    onMessage: ({ data }, seq, timeMs) => void got.push({ seq, timeMs, size: data.length }),
  })
  const give = (more: number): void => {
    most = more
    pull.more()
  }
  return { pull, got, give }
}

const consumersOf = async (stream: string): Promise<number> => (await jsm.streams.info(stream)).state.consumer_count
const MIXED = Array.from({ length: 3000 }, (_, i) =>
  Math.floor(i / 300) % 2 === 0 ? 100 : i % 7 === 0 ? 20_000 : 3000,
)

it('all messages come in order, over many requests to one consumer', async () => {
  const stream = await streamOf(MIXED)
  const before = Date.now()
  const { pull, got } = await pulling(stream)
  await until('all have come', () => got.length === MIXED.length)
  expect(got.map(({ seq }) => seq)).toEqual(MIXED.map((_, i) => i + 1))
  expect(got.map(({ size }) => size)).toEqual(MIXED)
  for (const { timeMs } of got) expect(Math.abs(timeMs - before)).toBeLessThan(60_000)
  expect(await consumersOf(stream)).toBe(1)
  await connection.nc.request(`${stream}.late`, 'late')
  await until('the late one has come', () => got.at(-1)?.seq === MIXED.length + 1)
  expect(await consumersOf(stream)).toBe(1)
  pull.stop()
})

it('messages come from a sequence on, and of one subject', async () => {
  const stream = await streamOf([1, 2, 3, 4])
  const [some, last] = [await pulling(stream, { from: 3 }), await pulling(stream, { filters: [`${stream}.last`] })]
  await until('they have come', () => some.got.length === 2 && last.got.length === 1)
  expect(some.got.map(({ size }) => size)).toEqual([3, 4])
  expect(last.got.map(({ size }) => size)).toEqual([4])
  some.pull.stop()
  last.pull.stop()
})

it('no more is asked for than there is room for', async () => {
  const stream = await streamOf(MIXED)
  const { pull, got, give } = await pulling(stream, { room: 1500 })
  await until('there is no room', () => got.length >= 1500)
  // The server answers in order: what was asked for before this has come.
  await connection.nc.flush()
  await until('its consumer has nothing to send', async () => {
    const [consumer] = await jsm.consumers.list(stream).next()
    return consumer?.num_waiting === 0
  })
  expect(got.length).toBeLessThan(2500)
  give(Number.POSITIVE_INFINITY)
  await until('all have come', () => got.length === MIXED.length)
  pull.stop()
})

it('a message that is larger than a request asks for comes, too', async () => {
  const own = await Connection.open({ servers: server.url })
  Object.defineProperty(own, 'maxPayload', { value: 1000 })
  const sizes = [10, 3_000_000, 10, 2_000_000, 10]
  const stream = await streamOf(sizes)
  const { pull, got } = await pulling(stream, { by: own })
  await until('all have come', () => got.length === sizes.length)
  expect(got.map(({ size }) => size)).toEqual(sizes)
  expect(await consumersOf(stream)).toBe(1)
  pull.stop()
  await own.close()
})

it('it ends when its consumer is deleted, when the connection is closed, and when it is stopped', async () => {
  const own = await Connection.open({ servers: server.url })
  const [deleted, closed, stopped] = [await streamOf([1]), await streamOf([1]), await streamOf([1])]
  const pulls = await Promise.all([pulling(deleted), pulling(closed, { by: own }), pulling(stopped)])
  await until('all have begun', () => pulls.every(({ got }) => got.length === 1))
  const [consumer] = await jsm.consumers.list(deleted).next()
  await jsm.consumers.delete(deleted, consumer?.name ?? '')
  await pulls[0].pull.ended
  await own.close()
  await pulls[1].pull.ended
  pulls[2].pull.stop()
  await pulls[2].pull.ended
  await connection.nc.request(`${stopped}.late`, 'late')
  expect(pulls[2].got).toHaveLength(1)
})

it('a request that was lost is made again, of the same consumer', async () => {
  const stream = await streamOf([1, 2, 3])
  const tell = vi.spyOn(connection, 'tell').mockImplementationOnce(() => undefined)
  try {
    const { pull, got } = await pulling(stream)
    await until('all have come', () => got.length === 3)
    expect(tell).toHaveBeenCalledTimes(3)
    expect(await consumersOf(stream)).toBe(1)
    pull.stop()
  } finally {
    tell.mockRestore()
  }
})

it('a message that takes long on a slow line is waited for', async () => {
  await using line = await slowLine(server.url, 250_000)
  const own = await Connection.open({ servers: line.url })
  const stream = await streamOf([1_000_000])
  const { pull, got } = await pulling(stream, { by: own })
  await until('it has come', () => got.length === 1)
  expect(await consumersOf(stream)).toBe(1)
  expect(line.lines()).toBe(1)
  pull.stop()
  await own.close()
})

it('a server that bounds requests is asked for no more than it allows', async () => {
  const conf = 'host: 127.0.0.1\nport: {port}\njetstream { store_dir: "{dir}", limits { max_request_batch: 200 } }'
  await using own = await rawServer(conf)
  const by = await Connection.open({ servers: own.url })
  const manager = await jetstreamManager(by.nc)
  await manager.streams.add({ name: 'LIMITS', subjects: ['limits.>'] })
  for (let i = 0; i < 1000; i++) by.nc.publish('limits.one', 'a')
  const { pull, got } = await pulling('LIMITS', { by })
  await until('all have come', () => got.length === 1000)
  expect((await manager.streams.info('LIMITS')).state.consumer_count).toBe(1)
  pull.stop()
  await by.close()
})

it('it ends when the server says nothing to a request', async () => {
  const stream = await streamOf([1])
  const tell = vi.spyOn(connection, 'tell').mockImplementation(() => undefined)
  try {
    const { pull, got } = await pulling(stream)
    await pull.ended
    expect(got).toEqual([])
  } finally {
    tell.mockRestore()
  }
})

it('a consumer whose answer got lost is not left behind', async () => {
  const stream = await streamOf([1])
  const { nc } = connection
  const publish = nc.publish.bind(nc)
  let asked = 0
  const spy = vi.spyOn(nc, 'publish').mockImplementation((subject, payload, options) => {
    const isIt = subject.includes(`CONSUMER.CREATE.${stream}`)
    if (isIt) asked += 1
    publish(subject, payload, isIt ? { ...options, reply: 'nobody.listens' } : options)
  })
  try {
    await expect(pulling(stream)).rejects.toThrow(/timeout/i)
    expect(asked).toBe(1)
    await until('it is gone', async () => (await consumersOf(stream)) === 0)
  } finally {
    spy.mockRestore()
  }
})

it('there is none of a stream that is not there', async () => {
  await expect(pulling('NOT_THERE')).rejects.toMatchObject({ code: 'no_stream' })
})

/** A way to a server by which so many bytes a second come back, and how often it was taken. */
async function slowLine(url: string, bytesPerSecond: number) {
  let lines = 0
  const proxy = createServer((near) => {
    lines += 1
    const far = connect(Number(new URL(url).port), '127.0.0.1')
    near.pipe(far)
    far.pause()
    const giving = setInterval(() => {
      const some = far.read(Math.min(far.readableLength, bytesPerSecond / 50))
      if (some) near.write(some)
    }, 20)
    for (const socket of [near, far])
      socket
        .on('error', () => undefined)
        .on('close', () => {
          clearInterval(giving)
          near.destroy()
          far.destroy()
        })
    far.on('readable', () => undefined)
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const address = proxy.address()
  const port = typeof address === 'object' ? address?.port : undefined
  return {
    url: `nats://127.0.0.1:${port}`,
    lines: () => lines,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => proxy.close(() => resolve())),
  }
}
