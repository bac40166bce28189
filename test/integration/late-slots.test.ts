import { once } from 'node:events'
import net from 'node:net'
import { describe, expect, it } from 'vitest'
import { connect, type Flow } from '../../src/index.ts'
import { after } from '../../src/options/timer.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

/** A proxy in front of a server whose answers come `delayMs` late. */
interface Late extends AsyncDisposable {
  readonly url: string
  delayMs: number
}

async function lateProxy(port: number): Promise<Late> {
  const sockets = new Set<net.Socket>()
  const proxy = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1')
    const end = (): void => {
      client.destroy()
      server.destroy()
    }
    client.pipe(server)
    server.on('data', (data) => void after(late.delayMs, () => client.destroyed || client.write(data)))
    for (const socket of [client, server]) {
      sockets.add(socket)
      socket.on('error', end).on('close', end)
    }
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const address = proxy.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  const late: Late = {
    url: `nats://127.0.0.1:${address.port}`,
    delayMs: 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      proxy.close()
      await once(proxy, 'close')
    },
  }
  return late
}

const server = useServer({ syncInterval: 'default' })

const LEASE = { lease: '1500ms', maxWait: '20s' } as const

describe('a slot whose answer comes after its lease has ended', () => {
  it('a slot whose answer comes after its lease has ended is not handed out: its caller gets another one, and no two run at once', async () => {
    await using late = await lateProxy(Number(new URL(server.url).port))
    const namespace = freshNamespace()
    await using slow = await connect({ servers: late.url, namespace })
    await using quick = await connect({ servers: server.url, namespace })
    let running = 0
    let most = 0
    const held: boolean[] = []
    const job = async (of: Flow, until: () => Promise<void>): Promise<string> =>
      await of.limiter.withSlot(
        'gpu',
        1,
        async (slot) => {
          held.push(slot.isHeld && !slot.signal.aborted)
          most = Math.max(most, ++running)
          await until()
          running -= 1
          return slot.id
        },
        LEASE,
      )
    await job(slow, async () => undefined)
    late.delayMs = 3000
    const first = job(slow, async () => undefined)
    await until('the server has given it a slot', async () => (await quick.limiter.status('gpu')).slots?.count === 1)
    await until('whose lease is over', async () => (await quick.limiter.status('gpu')).slots?.count === 0)
    const fresh = performance.now()
    const second = job(quick, () => until('a while has passed', () => performance.now() - fresh > 3000))
    await second
    late.delayMs = 0
    await first
    expect(held).toEqual([true, true, true])
    expect(most).toBe(1)
  })

  it('a slot whose answer comes after its lease has ended is not given by acquireSlot either', async () => {
    await using late = await lateProxy(Number(new URL(server.url).port))
    const namespace = freshNamespace()
    await using slow = await connect({ servers: late.url, namespace })
    await using quick = await connect({ servers: server.url, namespace })
    const first = await slow.limiter.acquireSlot('gpu', 1, LEASE)
    if (first === 'at_capacity') throw new Error('no slot')
    await first.release()
    late.delayMs = 3000
    const acquiring = slow.limiter.acquireSlot('gpu', 1, LEASE)
    await until('the server has given it a slot', async () => (await quick.limiter.status('gpu')).slots?.count === 1)
    await until('whose lease is over', async () => (await quick.limiter.status('gpu')).slots?.count === 0)
    const other = await quick.limiter.acquireSlot('gpu', 1, { lease: '20s' })
    if (other === 'at_capacity') throw new Error('no slot')
    late.delayMs = 0
    expect(await acquiring).toBe('at_capacity')
    await other.release()
  })
})
