import { expect, it } from 'vitest'
import { fieldsFor, loggerOf } from '../../src/logs/logger.ts'
import { quietLogger } from '../../src/telemetry.ts'

const LEVELS = ['debug', 'info', 'warn', 'error'] as const

function closed(): never {
  throw new Error('the transport has ended')
}

it('a logger that throws fails nobody who logs', () => {
  const plain = { debug: closed, info: closed, warn: closed, error: closed }
  const pino = { ...plain, bindings: () => ({}), isLevelEnabled: () => true }
  for (const given of [plain, pino])
    for (const level of LEVELS) expect(() => loggerOf(given)[level]('said', { a: 1 })).not.toThrow()
})

it('a logger is given what was said, and nothing beside it', () => {
  const said: unknown[] = []
  const hear = (...all: unknown[]): void => void said.push(all)
  const logger = loggerOf({ debug: hear, info: hear, warn: hear, error: hear })
  logger.warn('alone')
  logger.info('with fields', { a: 1 })
  expect(said).toEqual([['alone'], ['with fields', { a: 1 }]])
})

it('a logger that is asked for again is the same one', () => {
  const hear = (): void => undefined
  const pino = { debug: hear, info: hear, warn: hear, error: hear, bindings: () => ({}), isLevelEnabled: () => true }
  const error = new Error('no luck')
  for (const given of [quietLogger, pino, { debug: hear, info: hear, warn: hear, error: hear }]) {
    const logger = loggerOf(given)
    expect(loggerOf(logger)).toBe(logger)
  }
  expect(fieldsFor(loggerOf(loggerOf(pino)), { error })).toEqual({ err: error })
})
