import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { bodyKind, parseBody, readBody } from '../../src/http/shared/body.ts'
import { BodyBudget, type BodyRoom } from '../../src/http/shared/budget.ts'
import { HttpProblem } from '../../src/http/shared/problem.ts'

const LIMITS = { maxBytes: 1000, timeoutMs: 5000 }
const room = (): BodyRoom => new BodyBudget(10_000, 10_000).roomOf('a')

async function payloadOf(contentType: string | undefined, body: string | Uint8Array<ArrayBuffer>): Promise<unknown> {
  const headers = new Headers(contentType === undefined ? {} : { 'content-type': contentType })
  const kind = bodyKind(headers, LIMITS)
  const bytes = await readBody(new Request('http://h/', { method: 'POST', body: Buffer.from(body) }), LIMITS, room())
  return (await parseBody(kind, bytes, contentType ?? '')).value
}

async function refusal(contentType: string | undefined, body: string | Uint8Array<ArrayBuffer>): Promise<HttpProblem> {
  const problem: unknown = await payloadOf(contentType, body).then(
    (value) => expect.unreachable(`it was taken: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  )
  if (!(problem instanceof HttpProblem)) throw problem
  return problem
}

it.each<[string, string | undefined, string | Uint8Array<ArrayBuffer>, unknown]>([
  ['JSON', 'application/json', '{"a":[1,null]}', { a: [1, null] }],
  ['JSON of a vendor, with a charset', 'application/vnd.x.y+json; charset=UTF-8', '"text"', 'text'],
  [
    'a form, with a name that occurs twice',
    'application/x-www-form-urlencoded',
    'a=1&b=%C3%BC+x&a=2',
    { a: ['1', '2'], b: 'ü x' },
  ],
  ['an empty form', 'application/x-www-form-urlencoded', '', {}],
  ['text', 'text/plain', 'done\n', 'done\n'],
  ['XML, as text', 'application/xml', '<a/>', '<a/>'],
  [
    'bytes',
    'application/octet-stream',
    Uint8Array.of(0, 255),
    { contentType: 'application/octet-stream', base64: 'AP8=' },
  ],
  ['nothing at all', undefined, '', null],
])('%s becomes a payload', async (_, contentType, body, expected) => {
  expect(await payloadOf(contentType, body)).toEqual(expected)
})

it('a multipart form of texts becomes a payload, one with a file does not', async () => {
  const text = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'
  expect(await payloadOf('multipart/form-data; boundary=b', text)).toEqual({ a: '1' })
  const file = text.replace('name="a"', 'name="a"; filename="x.txt"')
  expect(await refusal('multipart/form-data; boundary=b', file)).toMatchObject({ status: 415 })
  expect(await refusal('multipart/form-data', text)).toMatchObject({ status: 400 })
  expect(await refusal('multipart/form-data; boundary=c', text)).toMatchObject({ status: 400 })
})

it.each<[string, string | undefined, string | Uint8Array<ArrayBuffer>, number]>([
  ['JSON that is none', 'application/json', '{', 400],
  ['an empty body that says it is JSON', 'application/json', '', 400],
  ['JSON in a form, as curl -d sends it', 'application/x-www-form-urlencoded', '{"approved":true}', 400],
  ['what is not UTF-8', 'application/json', Uint8Array.of(0x22, 0xff, 0x22), 400],
  ['JSON that is too deep', 'application/json', `${'['.repeat(100)}${']'.repeat(100)}`, 400],
  ['a body that does not say what it is', undefined, '{}', 415],
  ['a picture', 'image/png', 'x', 415],
  ['another charset', 'application/json; charset=utf-16', '{}', 415],
  ['no type at all', 'nonsense', '{}', 415],
])('%s is refused', async (_, contentType, body, status) => {
  expect(await refusal(contentType, body)).toMatchObject({ status })
})

it('a fault of JSON is reported with its place where that is known, and what was sent is not repeated', async () => {
  expect((await refusal('application/json', '{"a":1 "secret":2}')).detail).toBe(
    'The body is not JSON (at position 7 (line 1 column 8)).',
  )
  expect((await refusal('application/json', '{"password": secret}')).detail).toBe('The body is not JSON.')
})

it('a name that means something to JavaScript is a name like any other', async () => {
  const value = await payloadOf('application/x-www-form-urlencoded', '__proto__=1&constructor=2')
  expect(Object.entries(Object(value))).toEqual([
    ['__proto__', '1'],
    ['constructor', '2'],
  ])
  expect(Reflect.get({}, '1')).toBeUndefined()
})

it('a compressed body is refused, and one that says it is too long, before anything is read', () => {
  const kind = (headers: Record<string, string>) => () => bodyKind(new Headers(headers), LIMITS)
  expect(kind({ 'content-type': 'application/json', 'content-encoding': 'gzip' })).toThrow(HttpProblem)
  expect(kind({ 'content-type': 'application/json', 'content-length': '1001' })).toThrow('Body too large')
  expect(kind({ 'content-type': 'application/json', 'content-length': '1000' })()).toBe('json')
})

it('a body without end is cut off at the limit', async () => {
  let given = 0
  const endless = new ReadableStream({
    pull(controller) {
      given += 100
      controller.enqueue(new Uint8Array(100))
    },
  })
  const request = new Request('http://h/', { method: 'POST', body: endless, duplex: 'half' })
  await expect(readBody(request, LIMITS, room())).rejects.toMatchObject({ status: 413 })
  expect(given).toBeLessThan(2000)
})

it('a body in very many chunks takes as much memory as its bytes', async () => {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const [count, size] = [60_000, 16]
  let given = 0
  let grownBytes = 0
  const body = new ReadableStream({
    start() {
      collect()
      grownBytes = -process.memoryUsage().heapUsed
    },
    pull(controller) {
      given += 1
      controller.enqueue(new Uint8Array(size).fill(given % 251))
      if (given < count) return
      collect()
      grownBytes += process.memoryUsage().heapUsed
      controller.close()
    },
  })
  const request = new Request('http://h/', { method: 'POST', body, duplex: 'half' })
  const maxBytes = count * size
  const bytes = await readBody(request, { maxBytes, timeoutMs: 60_000 }, new BodyBudget(maxBytes, maxBytes).roomOf('a'))
  const expected = Uint8Array.from({ length: maxBytes }, (_, i) => (Math.floor(i / size) + 1) % 251)
  expect(Buffer.compare(bytes, expected)).toBe(0)
  expect(grownBytes).toBeLessThan(5_000_000)
})

it('a body in very many small chunks is refused', async () => {
  let given = 0
  const body = new ReadableStream({
    pull(controller) {
      given += 1
      controller.enqueue(Uint8Array.of(32))
    },
  })
  const request = new Request('http://h/', { method: 'POST', body, duplex: 'half' })
  const limits = { maxBytes: 1_000_000, timeoutMs: 60_000 }
  await expect(readBody(request, limits, room())).rejects.toMatchObject({
    status: 400,
    detail: 'The body comes in very many small chunks; send larger ones.',
  })
  expect(given).toBeLessThan(2000)
})

it('a body that does not come is waited for until its time has passed, and leaves nothing in the budget', async () => {
  const budget = new BodyBudget(10_000, 10_000)
  const stuck = new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(10)) })
  const request = new Request('http://h/', { method: 'POST', body: stuck, duplex: 'half' })
  const reading = readBody(request, { ...LIMITS, timeoutMs: 50 }, budget.roomOf('a'))
  await expect(reading).rejects.toMatchObject({ status: 408 })
  expect(budget.roomOf('b').take(10_000)).toBe(true)
})

it('more bodies at once than there is room for are put off, and take nothing', async () => {
  const budget = new BodyBudget(10_000, 10_000)
  budget.roomOf('a').take(9_990)
  const request = new Request('http://h/', { method: 'POST', body: 'x'.repeat(100) })
  await expect(readBody(request, LIMITS, budget.roomOf('b'))).rejects.toMatchObject({ status: 503 })
  expect(budget.roomOf('b').take(10)).toBe(true)
})

it('one sender has its share of the room, and no more', () => {
  const budget = new BodyBudget(1000, 300)
  const [a, b] = [budget.roomOf('a'), budget.roomOf('b')]
  expect(a.take(300)).toBe(true)
  expect(budget.roomOf('a').take(1)).toBe(false)
  expect(b.take(300)).toBe(true)
  a.give(301)
  expect(budget.roomOf('a').take(300)).toBe(true)
})

it.each([
  ['a form', 'application/x-www-form-urlencoded', 'a&'.repeat(524_288)],
  ['a form of names and values', 'application/x-www-form-urlencoded', 'a=%41&'.repeat(170_000)],
  [
    'a multipart form',
    'multipart/form-data; boundary=b',
    `${'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'.repeat(20_000)}--b--\r\n`,
  ],
])('%s with too many fields is refused before they are made', async (_, contentType, body) => {
  const bytes = Buffer.from(body)
  const kind = bodyKind(new Headers({ 'content-type': contentType }), LIMITS)
  const startedMs = performance.now()
  await expect(parseBody(kind, bytes, contentType)).rejects.toMatchObject({ detail: 'A form has at most 1000 fields.' })
  expect(performance.now() - startedMs).toBeLessThan(3000)
})
