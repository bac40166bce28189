import { expect, it } from 'vitest'
import { type BufferLimits, LogBuffer, type LogMessage, type LogScope } from '../../src/logs/buffer.ts'
import { fieldsFor, loggerOf, takerOf } from '../../src/logs/logger.ts'
import { parseLogOptions } from '../../src/logs/options.ts'
import { LineRate } from '../../src/logs/rate.ts'
import { BoundLog, type RunLog, RunLogs } from '../../src/logs/run-log.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { LINES_MAX, type NewLine, newLine } from '../../streams/log-columns.ts'
import { decodeLines } from '../../streams/logs.ts'
import { namesOf } from '../../streams/subjects.ts'

const names = namesOf('ns')
const scopeOf = (name: string, partition?: string): LogScope => ({
  subjects: [`ns.logs.p.0-r.${name}.low`, `ns.logs.p.0-r.${name}.high`],
  source: { pipeline: 'p', worker: 'w', partition },
  dropped: (lines) => row(`dropped ${lines}`, 2),
})
const row = (message: string, level = 1): NewLine => ({ ...newLine(), message, level })
const bufferOf = (limits: Partial<BufferLimits> = {}): LogBuffer =>
  new LogBuffer({ maxChars: 100_000, messageChars: 10_000, messageBytes: 10_000, ...limits })
const said = (messages: readonly LogMessage[]): string[] =>
  messages.map(({ subject, payload }) => {
    const lines = decodeLines(names, subject, payload)
    return `${subject.split('.').slice(4).join('.')}: ${lines.map(({ message }) => message).join(' ')}`
  })
const text = (of: string): string => of.repeat(400)

it('lines of a log buffer are put together by what they are of, and by how much they matter', () => {
  const buffer = bufferOf()
  const [a, b] = [scopeOf('a'), scopeOf('b')]
  buffer.add(a, row('1'))
  buffer.add(b, row('2'))
  buffer.add(a, row('3', 2))
  buffer.add(a, row('4', 0))
  expect(said(buffer.take())).toEqual(['a.low: 1 4', 'b.low: 2', 'a.high: 3'])
  expect(buffer.isEmpty).toBe(true)
  expect(buffer.take()).toEqual([])
})

it('a message of a log buffer is bounded, and of one source', () => {
  const buffer = bufferOf({ messageChars: 1000 })
  for (const one of ['a', 'b', 'c']) buffer.add(scopeOf('x'), row(text(one)))
  buffer.add(scopeOf('x', 'eu'), row('d'))
  expect(said(buffer.take())).toEqual([`x.low: ${text('a')} ${text('b')}`, `x.low: ${text('c')}`, 'x.low: d'])

  const alike = bufferOf({ messageChars: 100_000 })
  for (let i = 0; i <= LINES_MAX; i++) alike.add(scopeOf('x'), row('a'))
  const counts = alike.take().map(({ subject, payload }) => decodeLines(names, subject, payload).length)
  expect(counts).toEqual([LINES_MAX, 1])
})

it('a message of a log buffer that escapes make too long is halved, and a line that is too long is counted', () => {
  const buffer = bufferOf({ messageBytes: 600 })
  const control = '\u0001'.repeat(15)
  buffer.add(scopeOf('x'), row(control))
  buffer.add(scopeOf('x'), row('\u0001'.repeat(100)))
  buffer.add(scopeOf('x'), row('b'))
  expect(said(buffer.take())).toEqual([`x.low: ${control}`, 'x.low: b'])
  buffer.sent()
  expect(buffer.isEmpty).toBe(false)
  expect(said(buffer.take())).toEqual(['x.high: dropped 1'])
  expect(buffer.isEmpty).toBe(true)
})

it('what is too much for a log buffer is dropped, and a line says how many', () => {
  const buffer = bufferOf({ maxChars: 1100 })
  const scope = scopeOf('a')
  expect(['1', '2', '3', '4'].map((one) => buffer.add(scope, row(text(one))))).toEqual([true, true, false, false])
  expect(said(buffer.take())).toEqual([`a.low: ${text('1')} ${text('2')}`, 'a.high: dropped 2'])
  // What is being sent still takes its place.
  expect(buffer.add(scope, row(text('5')))).toBe(false)
  buffer.sent()
  expect(buffer.add(scope, row(text('6')))).toBe(true)
  expect(said(buffer.take())).toEqual([`a.low: ${text('6')}`, 'a.high: dropped 1'])
})

it('a worker keeps so many lines each second, twice as many at once, and warnings and errors besides', () => {
  let nowMs = 0
  const rate = new LineRate(10, () => nowMs)
  const taken = (isHigh: boolean): number => {
    for (let count = 0; ; count++) if (!rate.takes(isHigh)) return count
  }
  expect(taken(false)).toBe(20)
  expect(taken(true)).toBe(20)
  expect(taken(true)).toBe(0)
  nowMs += 1000
  expect([taken(false), taken(true)]).toEqual([0, 10])
  nowMs += 3500
  expect([taken(false), taken(true)]).toEqual([15, 20])
  nowMs += 3_600_000
  expect(taken(false)).toBe(20)
  const endless = new LineRate(Number.POSITIVE_INFINITY, () => nowMs)
  for (let i = 0; i < 100_000; i++) if (!endless.takes(false)) throw new Error('it refuses a line')
})

it('an option of logs that is none is refused', () => {
  expect(parseLogOptions('logs')).toEqual({ isOn: true, level: 'debug', maxPerSecond: 10_000 })
  expect(parseLogOptions('logs', { maxPerSecond: Number.POSITIVE_INFINITY }).maxPerSecond).toBe(
    Number.POSITIVE_INFINITY,
  )
  for (const maxPerSecond of [0, -1, Number.NaN, '5' as unknown as number])
    expect(() => parseLogOptions('logs', { maxPerSecond })).toThrow('logs.maxPerSecond must be a number from 1')
})

it('a logger that takes the fields first, as pino does, gets them first', () => {
  const said: unknown[] = []
  const write = (...given: unknown[]): void => void said.push(given)
  const pino = {
    bindings: () => ({}),
    isLevelEnabled: (level: string) => level !== 'debug',
    debug: write,
    info: write,
    warn: write,
    error: write,
  }
  const logger = loggerOf(pino)
  logger.warn('hello', { a: 1 })
  logger.info('plain')
  expect(said).toEqual([
    [{ a: 1 }, 'hello'],
    [{}, 'plain'],
  ])
  const taken = [takerOf(logger)(0), takerOf(logger)(1), takerOf(loggerOf(undefined))(1)]
  expect(taken).toEqual([false, true, false])
  // pino serializes an error by this name, and JSON has no word for one.
  const error = new Error('no', { cause: new Error('why') })
  expect(fieldsFor(logger, { error, n: 1 })).toEqual({ err: error, n: 1 })
  expect(fieldsFor(console, { error, n: 1n })).toMatchObject({
    error: { message: 'no', cause: { message: 'why' } },
    n: 1n,
  })
  expect(fieldsFor(loggerOf(undefined), { error, n: 1n })).toEqual({ error: 'no (cause: why)', n: '1' })
  // @ts-expect-error no logger
  expect(() => loggerOf({ info: write })).toThrow('logger must have debug, info, warn and error')
})

it('a logger hears a line whose fields fail when they are read, without those', () => {
  const heard: unknown[] = []
  const write = (message: string, fields: unknown): void => void heard.push([message, fields])
  const logger = { debug: write, info: write, warn: write, error: write }
  const settings = { isOn: false, level: 'debug', maxPerSecond: 1 } as const
  const task = { run: runId(0, 'a'), asset: assetName('a'), pipeline: 'p', partition: undefined, attempt: 1 }
  const logs = new RunLogs({ logger, names: namesOf('ns'), worker: 'w', sink: undefined, settings })
  const log: RunLog = new BoundLog(logs.of(task, 'execute'))
  const trap = {
    good: 1,
    get bad(): unknown {
      throw new Error('no')
    },
  }
  log.info('reads', trap)
  expect(heard).toEqual([['reads', expect.objectContaining({ run: '0-a', good: 1, bad: '[unreadable: no]' })]])
})
