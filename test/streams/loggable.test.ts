import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { loggable, loggableFields, loggableKey } from '../../streams/loggable.ts'
import { decodeLines, encodeLines } from '../../streams/logs.ts'
import { namesOf } from '../../streams/subjects.ts'

const shown = (value: unknown, max = 10_000): unknown => JSON.parse(loggable(value, max))

describe('a value in a log', () => {
  it('is as JSON has it, where JSON has it', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 3 }), (value) => {
        expect(shown(value, 1_000_000)).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })

  it('is valid JSON and bounded, whatever it is', () => {
    fc.assert(
      fc.property(fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true }), (value) => {
        const text = loggable(value, 500)
        expect(() => JSON.parse(text)).not.toThrow()
        expect(text.length).toBeLessThan(5000)
      }),
    )
  })

  it('says what JSON has no word for', () => {
    const cycle: Record<string, unknown> = { name: 'a' }
    cycle.self = cycle
    expect(shown({ big: 12n, nan: Number.NaN, at: new Date(0), run: () => 1, none: undefined })).toEqual({
      big: '12',
      nan: 'NaN',
      at: '1970-01-01T00:00:00.000Z',
      run: '[function]',
    })
    expect(shown(cycle)).toEqual({ name: 'a', self: '[circular]' })
    expect(
      shown(
        new Map<unknown, unknown>([
          ['a', new Set([1])],
          [{ b: 1 }, Buffer.from('abc')],
        ]),
      ),
    ).toEqual({
      a: [1],
      '{"b":1}': '[Buffer of 3 bytes]',
    })
  })

  it('is an error with its causes and its own members', () => {
    const cause = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
    const error = Object.assign(new TypeError('fetch failed', { cause }), { status: 502 })
    expect(shown(error)).toMatchObject({
      name: 'TypeError',
      message: 'fetch failed',
      stack: expect.stringContaining('loggable.test'),
      cause: { code: 'ECONNREFUSED', message: 'connect ECONNREFUSED' },
      status: 502,
    })
  })

  it('never throws for what throws when it is read', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const trap = {
      get bad(): unknown {
        throw new Error('no')
      },
      good: 1,
    }
    expect(shown(trap)).toEqual({ bad: '[unreadable: no]', good: 1 })
    expect(shown({ proxy })).toEqual({ proxy: expect.stringContaining('[unreadable') })
    expect(shown({ toJSON: () => trap })).toEqual({ bad: '[unreadable: no]', good: 1 })
    expect(loggableFields(trap, 1000).value).toEqual({ bad: '[unreadable: no]', good: 1 })
    expect(loggableFields(proxy, 1000).value).toEqual({ value: expect.stringContaining('[unreadable') })
  })

  it('is cut where it is long, wide or deep', () => {
    expect(shown('x'.repeat(10_000))).toHaveLength(4001)
    const wide = shown(Array.from({ length: 1000 }, (_, i) => i)) as unknown[]
    expect(wide).toHaveLength(101)
    expect(wide.at(-1)).toBe('… 900 more')
    expect(loggable({ a: { b: { c: { d: { e: { f: { g: 1 } } } } } } }, 1000)).toContain('[Object]')
    expect(shown({ a: 'x'.repeat(300), b: 1, c: 2 }, 200)).toMatchObject({ '…': '2 more' })
  })

  it('stands under a name as a field when it is no object', () => {
    const fields = (value: unknown): unknown => loggableFields(value, 5000).value
    expect([fields(undefined), fields(null), fields({})]).toEqual([0, 0, 0])
    expect(fields(7)).toEqual({ value: 7 })
    expect(fields([1])).toEqual({ value: [1] })
    expect(fields(new Date(0))).toEqual({ value: '1970-01-01T00:00:00.000Z' })
    expect(fields(new Error('no'))).toMatchObject({ error: { message: 'no' } })
  })

  it('is as it was when it was logged, whatever is done with it later', () => {
    const given: Record<string, unknown> = { n: 1, text: 'a', none: null, on: true }
    const nested = { inner: { n: 1 } }
    const [flat, deep] = [loggableFields(given, 1000), loggableFields(nested, 1000)]
    Object.assign(given, { n: 2 })
    nested.inner.n = 2
    expect([flat.value, deep.value]).toEqual([{ n: 1, text: 'a', none: null, on: true }, { inner: { n: 1 } }])
  })

  it('takes the short way only where that is as JSON has it, and bounded', () => {
    class Point {
      x = 1
      toJSON(): string {
        return 'point'
      }
    }
    const fields = (value: unknown): unknown => loggableFields(value, 100).value
    expect(fields({ n: Number.NaN })).toEqual({ n: 'NaN' })
    expect(fields(new Point())).toEqual({ value: 'point' })
    expect(fields({ a: undefined, b: 1 })).toEqual({ b: 1 })
    expect(JSON.stringify(fields({ a: 'x'.repeat(500), b: 'y' })).length).toBeLessThan(200)
    expect(loggableKey('k', 10)).toEqual({ value: 'k', chars: 1 })
    expect(loggableKey('k'.repeat(20), 10).value).toBe(`${'k'.repeat(10)}…`)
    expect(loggableKey({ city: 'Oslo', n: 1 }, 100).value).toEqual({ city: 'Oslo', n: 1 })
    expect(loggableKey({ id: 'a1', text: 'x'.repeat(99), n: 1 }, 64).value).toEqual({
      id: 'a1',
      text: `${'x'.repeat(24)}…`,
      n: 1,
    })
    expect(loggableKey({ id: 'a'.repeat(20), more: 'b'.repeat(30) }, 32).value).toEqual({
      id: 'a'.repeat(20),
      '…': '…',
    })
    expect(loggableKey(new Map([['a', 1]]), 100).value).toEqual({ a: 1 })
    expect(loggableKey(12n, 100).value).toBe('12')
  })
})

describe('a message of log lines', () => {
  const names = namesOf('ns')
  const place = { pipeline: 'p', run: '0-abc', asset: 'a' }

  it('gives its lines back', () => {
    const payload = encodeLines({ pipeline: 'p', worker: 'w', partition: 'x' }, [
      [1000, 2, 'half \ud800 a "pair"', { n: 1 }, 0, 2, 17, { city: 'Oslo' }],
      [2000, 0, '', 0, 2, 1],
    ])
    const of = { run: '0-abc', asset: 'a', pipeline: 'p', worker: 'w', partition: 'x' }
    expect(decodeLines(names, names.logLines(place, 'low'), payload)).toEqual([
      {
        ...of,
        at: new Date(1000),
        level: 'warn',
        message: 'half \ud800 a "pair"',
        fields: { n: 1 },
        phase: 'execute',
        attempt: 2,
        index: 17,
        key: { city: 'Oslo' },
      },
      { ...of, at: new Date(2000), level: 'debug', message: '', phase: 'gather', attempt: 1 },
    ])
  })

  it('is passed over when it is none', () => {
    const subject = names.logLines(place, 'high')
    for (const text of ['', 'no', '{}', '{"v":2,"pipeline":"p","worker":"w","lines":[]}', '[1]'])
      expect(decodeLines(names, subject, Buffer.from(text))).toEqual([])
    const some = '{"v":1,"pipeline":"p","worker":"w","lines":[[],[1],["x",1,2],[1,9,"a",0,0,1]]}'
    expect(decodeLines(names, subject, Buffer.from(some))).toEqual([])
    expect(decodeLines(names, 'ns.other', Buffer.from('{}'))).toEqual([])
    // A time that is no date, and no attempt: whoever shows the line would fail.
    for (const line of ['[1e300,2,"a",0,0,1]', '[-9e15,2,"a",0,0,1]', '[1,2,"a",0,0]', '[1,2,"a",0,0,"x"]'])
      expect(decodeLines(names, subject, Buffer.from(`{"v":1,"pipeline":"p","worker":"w","lines":[${line}]}`))).toEqual(
        [],
      )
  })
})
