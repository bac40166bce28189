import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LINES_MAX, LogColumns, newLine } from '../../streams/log-columns.ts'
import { loggable, Members } from '../../streams/loggable.ts'
import { decodeLines, encodeLines, LOG_LEVELS, LOG_PHASES, type LogLine } from '../../streams/logs.ts'
import { namesOf } from '../../streams/subjects.ts'

function fieldsOf(value: unknown, max: number): unknown {
  const members = new Members()
  members.takeFields(value, max)
  return members.names?.length === 0 ? 0 : members.whole()
}
function keyOf(value: unknown, max: number): unknown {
  const members = new Members()
  members.takeKey(value, max)
  return members.whole()
}
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
    expect(fieldsOf(trap, 1000)).toEqual({ bad: '[unreadable: no]', good: 1 })
    expect(fieldsOf(proxy, 1000)).toEqual({ value: expect.stringContaining('[unreadable') })
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
    const fields = (value: unknown): unknown => fieldsOf(value, 5000)
    expect([fields(undefined), fields(null), fields({})]).toEqual([0, 0, 0])
    expect(fields(7)).toEqual({ value: 7 })
    expect(fields([1])).toEqual({ value: [1] })
    expect(fields(new Date(0))).toEqual({ value: '1970-01-01T00:00:00.000Z' })
    expect(fields(new Error('no'))).toMatchObject({ error: { message: 'no' } })
  })

  it('is as it was when it was logged, whatever is done with it later', () => {
    const given: Record<string, unknown> = { n: 1, text: 'a', none: null, on: true }
    const nested = { inner: { n: 1 } }
    const [flat, deep] = [fieldsOf(given, 1000), fieldsOf(nested, 1000)]
    Object.assign(given, { n: 2 })
    nested.inner.n = 2
    expect([flat, deep]).toEqual([{ n: 1, text: 'a', none: null, on: true }, { inner: { n: 1 } }])
  })

  it('takes the short way only where that is as JSON has it, and bounded', () => {
    class Point {
      x = 1
      toJSON(): string {
        return 'point'
      }
    }
    const fields = (value: unknown): unknown => fieldsOf(value, 100)
    expect(fields({ n: Number.NaN })).toEqual({ n: 'NaN' })
    expect(fields(new Point())).toEqual({ value: 'point' })
    expect(fields({ a: undefined, b: 1 })).toEqual({ b: 1 })
    expect(JSON.stringify(fields({ a: 'x'.repeat(500), b: 'y' })).length).toBeLessThan(200)
    expect(keyOf('k', 10)).toBe('k')
    expect(keyOf('k'.repeat(20), 10)).toBe(`${'k'.repeat(10)}…`)
    expect(keyOf({ city: 'Oslo', n: 1 }, 100)).toEqual({ city: 'Oslo', n: 1 })
    expect(keyOf({ id: 'a1', text: 'x'.repeat(99), n: 1 }, 64)).toEqual({
      id: 'a1',
      text: `${'x'.repeat(24)}…`,
      n: 1,
    })
    expect(keyOf({ id: 'a'.repeat(20), more: 'b'.repeat(30) }, 32)).toEqual({
      id: 'a'.repeat(20),
      '…': '…',
    })
    expect(keyOf(new Map([['a', 1]]), 100)).toEqual({ a: 1 })
    expect(keyOf(12n, 100)).toBe('12')
  })
})

describe('a message of log lines', () => {
  const names = namesOf('ns')
  const place = { pipeline: 'p', run: '0-abc', asset: 'a' }

  const source = { pipeline: 'p', worker: 'w', partition: 'x' }
  const columnsOf = (lines: readonly LogLine[]): LogColumns => {
    const columns = new LogColumns()
    const line = newLine()
    for (const { at, level, phase, attempt, message, fields, index, key } of lines) {
      line.timeMs = at.getTime()
      line.level = LOG_LEVELS.indexOf(level)
      line.phase = LOG_PHASES.indexOf(phase)
      line.attempt = attempt
      line.message = message
      line.fields.takeFields(fields, 1e6)
      line.index = index ?? -1
      line.key.takeKey(key, 1e6)
      columns.add(line)
    }
    return columns
  }
  const read = (columns: LogColumns): LogLine[] =>
    decodeLines(names, names.logLines(place, 'low'), encodeLines(source, columns))

  const text = fc.oneof(fc.constantFrom('begins', 'ends'), fc.string({ unit: 'binary' }))
  const plain = fc.oneof(text, fc.constantFrom(1, null, true), fc.double(), fc.jsonValue({ maxDepth: 2 }))
  const object = fc.oneof(
    fc.record({ a: plain, b: plain }, { requiredKeys: ['a'] }),
    fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('__proto__', '1', '…')), plain, { minKeys: 1 }),
  )
  const lineOf = fc
    .record({
      at: fc.oneof(fc.constant(1000), fc.integer({ min: -1e12, max: 2e12 })).map((ms) => new Date(ms)),
      level: fc.constantFrom(...LOG_LEVELS),
      phase: fc.constantFrom(...LOG_PHASES),
      attempt: fc.integer({ min: 1, max: 3 }),
      message: text,
      fields: fc.option(object, { nil: undefined }),
      of: fc.option(fc.record({ index: fc.nat(1e9), key: fc.oneof(plain, object) }), { nil: undefined }),
    })
    .map(({ of, fields, ...line }): LogLine => {
      const shownFields = fields === undefined ? {} : { fields: shown(fields, 1e6) as Record<string, unknown> }
      const shownOf = of ? { index: of.index, key: shown(of.key, 1e6) } : {}
      return { ...line, ...shownFields, ...shownOf, ...source, run: '0-abc', asset: 'a' }
    })

  it('gives its lines back, whatever they have in common', () => {
    fc.assert(
      fc.property(fc.array(lineOf, { minLength: 1, maxLength: 60 }), (lines) => {
        expect(read(columnsOf(lines))).toEqual(lines)
        // Where it is too long: the same in two.
        expect(columnsOf(lines).halves().flatMap(read)).toEqual(lines)
      }),
    )
  })

  it('says what stays the same once, and has few forms', () => {
    const of = { ...source, run: '0-abc', asset: 'a', at: new Date(5), phase: 'execute', attempt: 1 } as const
    const many = (make: (i: number) => Partial<LogLine>): LogLine[] =>
      Array.from({ length: LINES_MAX }, (_, i) => ({ ...of, level: 'info', message: 'is done', ...make(i) }))
    const bytes = (lines: LogLine[]): number => {
      expect(read(columnsOf(lines))).toEqual(lines)
      return encodeLines(source, columnsOf(lines)).length
    }
    const key = (i: number) => ({ id: i, text: 'x'.repeat(50) })
    expect(bytes(many((index) => ({ fields: { bytes: 100 }, index, key: 'k' })))).toBeLessThan(400)
    expect(bytes(many((index) => ({ index, key: key(index) })))).toBeLessThan(8 * LINES_MAX)
    // One call after the other, and two lines an instance.
    expect(bytes(many((i) => ({ message: i % 2 ? 'ends' : 'begins', index: i >> 1, key: 'k' })))).toBeLessThan(
      8 * LINES_MAX,
    )
    expect(bytes(many((i) => ({ message: `text ${i}` })))).toBeLessThan(16 * LINES_MAX)
    // What stayed the same for long, and does no more.
    const long = 'y'.repeat(1000)
    expect(bytes(many((i) => ({ fields: { text: i === LINES_MAX - 1 ? 'z' : long } })))).toBeLessThan(2000)
    expect(columnsOf(many((i) => ({ message: `${i}`, fields: { [`n${i}`]: i } }))).plain().forms.length).toBeLessThan(
      40,
    )
  })

  it('counts about the characters that it has', () => {
    fc.assert(
      fc.property(fc.array(lineOf, { minLength: 1, maxLength: 60 }), (lines) => {
        const columns = new LogColumns()
        const line = newLine()
        let chars = 0
        for (const { message, fields, index, key } of lines) {
          line.message = message
          line.fields.takeFields(fields, 1e6)
          line.index = index ?? -1
          line.key.takeKey(key, 1e6)
          chars += columns.add(line)
        }
        expect(JSON.stringify(columns.plain()).length).toBeLessThan(6 * chars + 400)
      }),
    )
  })

  it('of version 1 is read', () => {
    const v1 = {
      v: 1,
      ...source,
      lines: [
        [1000, 2, 'half \ud800 a "pair"', { n: 1 }, 0, 2, 17, { city: 'Oslo' }],
        [2000, 0, '', 0, 2, 1],
      ],
    }
    const of = { run: '0-abc', asset: 'a', ...source }
    expect(decodeLines(names, names.logLines(place, 'low'), Buffer.from(JSON.stringify(v1)))).toEqual([
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

  it('is read as far as it is one, whatever it holds', () => {
    const subject = names.logLines(place, 'low')
    const { lines: good } = JSON.parse(
      Buffer.from(
        encodeLines(
          source,
          columnsOf([
            {
              ...source,
              run: '0-abc',
              asset: 'a',
              at: new Date(1),
              level: 'info',
              phase: 'execute',
              attempt: 1,
              message: 'm',
              index: 1,
              key: { a: 1 },
            },
          ]),
        ),
      ).toString(),
    ) as { lines: Record<string, unknown> }
    const column = fc.array(fc.array(fc.jsonValue(), { maxLength: 3 }), { minLength: 1, maxLength: 2 })
    const form = { level: 1, phase: 0, text: [['m']], fields: ['a'], key: 0, columns: [[[1]], [[2]]] }
    const bad = fc.record(
      {
        at: fc.double({ noNaN: true }),
        order: column,
        times: column,
        attempts: column,
        indexes: column,
        forms: fc.array(fc.record({ text: column, columns: fc.array(column) }, { requiredKeys: [] })),
      },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(bad, (part) => {
        const forms = part.forms?.map((one) => ({ ...form, ...one }))
        const lines = { ...good, ...part, ...(forms ? { forms } : {}) }
        const all = decodeLines(names, subject, Buffer.from(JSON.stringify({ v: 2, ...source, lines })))
        for (const one of all) expect([Number.isFinite(one.at.getTime()), typeof one.message]).toEqual([true, 'string'])
      }),
    )
    // Whoever writes it may say that there are as many as he likes.
    const endless = { ...good, order: [[0], [1e15]], times: [[0], [1e15]], attempts: [[1], [1e15]] }
    expect(decodeLines(names, subject, Buffer.from(JSON.stringify({ v: 2, ...source, lines: endless })))).toHaveLength(
      1,
    )
  })

  it('is passed over when it is none', () => {
    const subject = names.logLines(place, 'high')
    const other = (v: number) => `{"v":${v},"pipeline":"p","worker":"w","lines":[]}`
    for (const text of ['', 'no', '{}', other(2), other(3), '[1]'])
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
