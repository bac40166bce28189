import { stripVTControlCharacters } from 'node:util'
import { expect, it } from 'vitest'
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
