import { stripVTControlCharacters } from 'node:util'
import { expect, it } from 'vitest'
import { Failures } from '../../src/cli/failures.ts'
import { lineOf } from '../../src/cli/logs.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { printable } from '../../streams/text.ts'

it('JSON of the command says what JSON has no word for, and bytes are base64', () => {
  const cases: [unknown, string][] = [
    [new TextEncoder().encode('hi'), '{"$bytes":"aGk="}'],
    [{ b: Buffer.from('hi'), n: 1 }, '{"b":{"$bytes":"aGk="},"n":1}'],
    [[Number.NaN, -0, Number.NEGATIVE_INFINITY, 0], '[{"$number":"NaN"},{"$number":"-0"},{"$number":"-Infinity"},0]'],
    [[undefined, { a: undefined }], '[{"$undefined":true},{}]'],
    [undefined, '{"$undefined":true}'],
    [12n, '{"$bigint":"12"}'],
    [new Map([['a', 1n]]), '{"$map":[["a",{"$bigint":"1"}]]}'],
    [new Set([1]), '{"$set":[1]}'],
    [new Float32Array([1]), '{"$Float32Array":"AACAPw=="}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [{ at: new Date(Number.NaN) }, '{"at":{"$date":"invalid"}}'],
  ]
  for (const [value, json] of cases) expect(jsonOf(value)).toBe(json)
})

it('a line of a log is one line of its own, whatever an outsider has written into it', () => {
  const line = {
    at: new Date(0),
    level: 'info',
    run: '0-a',
    pipeline: 'p',
    asset: 'a',
    phase: 'execute',
    attempt: 1,
    worker: 'w',
  } as const
  const forged = 'hi\n1970-01-01T00:00:00.000Z error b  gone\r\u001b[2J'
  const text = lineOf({ ...line, message: forged, fields: { 'x\ny': forged } })
  for (const more of text.split('\n').slice(1)) expect(more).toMatch(/^ {4}/)
  expect(text.split('\n')).toHaveLength(2)
  // All that is left is what cannot move a cursor.
  expect(printable(stripVTControlCharacters(text), { lines: true })).toBe(stripVTControlCharacters(text))
})

it('failures are said with place and causes, the first ones of an asset, and then how many more', () => {
  const said: string[] = []
  const events: Record<string, unknown>[] = []
  const failures = new Failures({
    json: false,
    result: () => undefined,
    event: (_, fields, line) => {
      events.push(fields)
      said.push(line)
    },
    note: () => undefined,
  })
  const cause = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:9'), { code: 'ECONNREFUSED' })
  const error = new TypeError('fetch failed', { cause })
  const failed = { run: '0-a', asset: 'pages', outcome: 'error', error }
  failures.add({ ...failed, attempt: 1, phase: 'execute', isLast: false })
  expect(said[0]).toMatch(
    /^failed {3}pages, attempt 1 of run 0-a: TypeError: fetch failed\n {11}at .*output\.test[\s\S]*\n {9}caused by ECONNREFUSED: connect ECONNREFUSED 127\.0\.0\.1:9\n {9}it is tried again$/,
  )
  for (let index = 0; index < 10; index++)
    failures.add({ ...failed, attempt: 2, index, key: { city: 'Oslo' }, isLast: true })
  failures.add({ ...failed, attempt: 1, phase: 'gather', asset: 'other', isLast: true })
  failures.add({ ...failed, attempt: 1, outcome: 'returned', isLast: false })
  failures.end()
  expect(said.slice(1).map((line) => line.split('\n')[0])).toEqual([
    'failed   pages, instance 0 ({"city":"Oslo"}), attempt 2 of run 0-a: TypeError: fetch failed',
    'failed   pages, instance 1 ({"city":"Oslo"}), attempt 2 of run 0-a: TypeError: fetch failed',
    'failed   gather of other, attempt 1 of run 0-a: TypeError: fetch failed',
    'failed   8 more attempts of pages (run 0-a); the last: fetch failed',
  ])
  expect(said[1]).toMatch(/it is not tried again$/)
  expect(events[1]).toMatchObject({
    asset: 'pages',
    index: 0,
    again: false,
    error: { cause: { code: 'ECONNREFUSED' } },
  })
})

it('a failure of whatever was thrown is said', () => {
  const said: string[] = []
  const failures = new Failures({
    json: false,
    result: () => undefined,
    event: (_, _fields, line) => void said.push(line),
    note: () => undefined,
  })
  const no = (): never => {
    throw new Error('hands off')
  }
  const thrown = [
    new Proxy(new Error('x'), { get: no, has: no, getPrototypeOf: no, ownKeys: no, getOwnPropertyDescriptor: no }),
    Object.defineProperty(new Error('its name throws'), 'name', { get: no }),
    Object.assign(new Error('its name is none'), { name: { toString: no } }),
    undefined,
  ]
  for (const [i, error] of thrown.entries())
    failures.add({ run: '0-a', asset: `a${i}`, attempt: 1, outcome: 'error', error, isLast: false })
  expect(said.map((line) => line.split('\n')[0])).toEqual([
    'failed   a0, attempt 1 of run 0-a: Error: a thrown object that cannot be shown',
    'failed   a1, attempt 1 of run 0-a: Error: its name throws',
    'failed   a2, attempt 1 of run 0-a: Error: its name is none',
    expect.stringMatching(/^failed {3}a3, attempt 1 of run 0-a: thrown: /),
  ])
})
