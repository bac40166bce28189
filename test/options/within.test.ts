import { once } from 'node:events'
import { createServer, get, type IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { partsWithin, within } from '../../src/options/within.ts'
import { rejection } from '../kit/stage.ts'

const never = <T>(): Promise<T> => new Promise<T>(() => undefined)

async function partsOf<T>(parts: AsyncIterable<T>, found: T[] = []): Promise<T[]> {
  for await (const part of parts) found.push(part)
  return found
}

describe('who is asked and does not answer', () => {
  it('gets the signal aborted, and is not waited for', async () => {
    const told: AbortSignal[] = []
    const asked = within(20, undefined, (signal) => {
      told.push(signal)
      return never()
    })
    expect((await rejection(asked)).message).toBe('no answer within 0.02 s')
    expect(told.map(({ aborted }) => aborted)).toEqual([true])
  })

  it('is left when nobody waits any more', async () => {
    const left = new AbortController()
    const asked = within(60_000, left.signal, never)
    left.abort(new Error('enough'))
    expect((await rejection(asked)).message).toBe('enough')
  })
})

describe('a stream that stops in the middle', () => {
  it('is an error behind what it brought, and its connection is closed', async () => {
    const server = createServer((_, response) => void response.write('some'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const closed = once(server, 'connection').then(([socket]) => once(socket, 'close'))
    const [body] = (await once(get({ port, host: '127.0.0.1' }), 'response')) as [IncomingMessage]
    await once(body, 'readable')
    const found: unknown[] = []
    expect((await rejection(partsOf<unknown>(partsWithin(500, undefined, body), found))).message).toMatch(/no answer/)
    expect(found.map(String)).toEqual(['some'])
    await closed
    server.close()
  })

  it('brings all of one that does not stop, and ends one that is not read to its end', async () => {
    let ended = 0
    async function* three(): AsyncGenerator<number> {
      try {
        yield* [1, 2, 3]
      } finally {
        ended += 1
      }
    }
    expect(await partsOf(partsWithin(60_000, undefined, three()))).toEqual([1, 2, 3])
    for await (const part of partsWithin(60_000, undefined, three())) if (part === 2) break
    expect(ended).toBe(2)
  })
})
