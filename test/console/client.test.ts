import { expect, it } from 'vitest'
import { addressOf, Client, Problem, pathOf } from '../../src/console/api/client.ts'

interface Sent {
  readonly address: string
  readonly init: RequestInit
}

/** A client of a server that answers with these, one after the other. */
function clientOf(answers: readonly (Response | Error)[], key?: string) {
  const sent: Sent[] = []
  const refused: number[] = []
  const left = [...answers]
  const client = new Client({
    key: () => key,
    onRefused: () => refused.push(sent.length),
    fetch: async (address, init = {}) => {
      sent.push({ address: String(address), init })
      const answer = left.shift()
      if (answer instanceof Response) return answer
      throw answer ?? new Error('nothing is left to answer')
    },
  })
  return { client, sent, refused }
}

const problem = (status: number, body: object): Response => new Response(JSON.stringify(body), { status })

it('a read passes its query and the moment, and the key in a header', async () => {
  const { client, sent } = clientOf([Response.json({ runs: [] })], 'fs_key')
  const at = new Date('2026-11-28T14:00:20.000Z')
  const read = { path: '/runs', query: { tag: ['a=1', 'b=2'], open: true, target: undefined } }
  expect(await client.get(read, { at })).toEqual({ runs: [] })
  expect(sent[0]?.address).toBe('/api/v1/runs?tag=a%3D1&tag=b%3D2&open=true&at=2026-11-28T14%3A00%3A20.000Z')
  expect(sent[0]?.init.headers).toEqual({ Authorization: 'Bearer fs_key' })
  expect(sent[0]?.init.credentials).toBe('omit')
})

it('a post sends JSON, or no body, and the key of the press', async () => {
  const { client, sent } = clientOf([Response.json({ ok: true }), Response.json({ ok: true })])
  await client.post('/runs', { target: 'a/b' }, { key: 'once' })
  await client.post('/runs/1/retry')
  expect(sent[0]?.init).toMatchObject({
    method: 'POST',
    body: '{"target":"a/b"}',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': 'once' },
  })
  expect(sent[1]?.init.body).toBeUndefined()
})

it('a refusal says the detail of the server, and its reason', async () => {
  const { client } = clientOf([problem(409, { reason: 'conflict', detail: 'It has ended.', field: 'run' })])
  await expect(client.post('/runs/1/cancel')).rejects.toMatchObject({
    message: 'It has ended.',
    reason: 'conflict',
    status: 409,
    field: 'run',
  })
})

it('what is no problem of the API, as from a proxy, is one all the same', async () => {
  const { client } = clientOf([new Response('<html>', { status: 502 }), new TypeError('fetch failed')])
  await expect(client.get({ path: '/home' })).rejects.toMatchObject({ status: 502, reason: 'internal' })
  await expect(client.get({ path: '/home' })).rejects.toMatchObject({ status: 0, reason: 'offline' })
})

it('a key that is refused is said, and only then', async () => {
  const { client, refused } = clientOf([
    problem(403, { reason: 'forbidden' }),
    problem(401, { reason: 'unauthorized' }),
  ])
  await expect(client.get({ path: '/home' })).rejects.toBeInstanceOf(Problem)
  expect(refused).toEqual([])
  await expect(client.get({ path: '/home' })).rejects.toBeInstanceOf(Problem)
  expect(refused).toEqual([2])
})

it('ids stay one part of a path, whatever they hold', () => {
  expect(pathOf`/runs/${'a/../b?c#d'}/input`).toBe('/runs/a%2F..%2Fb%3Fc%23d/input')
  expect(addressOf('/runs', {})).toBe('/runs')
})
