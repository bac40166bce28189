import { expect, it } from 'vitest'
import { apiProblem } from '../../src/http/api/problems.ts'
import { problemOf } from '../../src/http/shared/fault.ts'
import { REASONS } from '../../src/http/shared/reasons.ts'
import { quietLogger } from '../../src/telemetry.ts'
import { ERROR_CODES } from '../../streams/error-codes.ts'
import {
  ConflictError,
  FlowStoneError,
  InvalidError,
  RateLimitedError,
  SignalRejectedError,
} from '../../streams/errors.ts'

function answered(thrown: unknown): { status: number; reason: string; detail: string; wait?: string; logged: number } {
  let logged = 0
  const { status, reason, detail, headers } = apiProblem(thrown, { ...quietLogger, error: () => void logged++ })
  const wait = headers['Retry-After']
  return { status, reason, detail, ...(wait === undefined ? {} : { wait }), logged }
}

it('each error code has a reason over HTTP, and no other code has one', () => {
  // That one has reasons of its own.
  const codes = ERROR_CODES.filter((code) => code !== 'signal_rejected')
  expect(Object.keys(REASONS).toSorted()).toEqual(codes.toSorted())
})

it('the API says what became of a thing, and what the caller can do', () => {
  for (const [code, status, reason] of [
    ['pruned', 410, 'pruned'],
    ['not_found', 404, 'unknown_id'],
    ['unknown_pipeline', 404, 'unknown_asset'],
    ['no_snapshot', 404, 'not_kept'],
    ['not_retryable', 409, 'conflict'],
    ['not_started', 409, 'conflict'],
    ['missing_input', 422, 'invalid_input'],
  ] as const)
    expect(answered(new FlowStoneError(code, 'in words')), code).toEqual({
      status,
      reason,
      detail: 'in words',
      logged: 0,
    })
  expect(answered(new InvalidError('in words'))).toMatchObject({ status: 422, detail: 'in words' })
  expect(answered(new ConflictError('in words'))).toMatchObject({ status: 409, detail: 'in words' })
  expect(answered(new SignalRejectedError('expired', ''))).toMatchObject({ status: 410, reason: 'expired' })
  expect(answered(new RateLimitedError('full', { retryAfterMs: 1500 }))).toMatchObject({ status: 429, wait: '2' })
})

it('the API has a client wait for what may be there later, and says why where that is no secret', () => {
  for (const code of ['no_engine', 'state_behind', 'importing'] as const)
    expect(answered(new FlowStoneError(code, 'in words'))).toMatchObject({
      status: 503,
      detail: 'in words',
      wait: '2',
      logged: 0,
    })
  for (const code of ['unreachable', 'storage_full', 'unreadable', 'closed'] as const) {
    const problem = answered(new FlowStoneError(code, 'nats://10.0.0.5'))
    expect(problem).toMatchObject({ status: 503, wait: '2', logged: 1 })
    expect(problem.detail).not.toContain('10.0.0.5')
  }
})

it('faults of this side are logged; of what is stored the API says which', () => {
  expect(answered(new FlowStoneError('damaged_value', 'value x'))).toMatchObject({
    status: 500,
    reason: 'damaged',
    detail: 'value x',
    logged: 1,
  })
  // The last one is of the NATS user of this process, and not of the client.
  for (const thrown of [
    new Error('secret'),
    new FlowStoneError('mine', 'secret'),
    new FlowStoneError('denied', 'secret'),
  ])
    expect(answered(thrown)).toMatchObject({
      status: 500,
      reason: 'internal',
      detail: 'Something went wrong here.',
      logged: 1,
    })
  expect(answered(new FlowStoneError('unauthorized', 'secret'))).toMatchObject({ status: 500 })
})

it('the sender of a signal learns the reason, and no message but that of its payload', () => {
  expect(problemOf(new InvalidError('of must be a number'))).toMatchObject({
    reason: 'invalid_payload',
    detail: 'of must be a number',
  })
  expect(problemOf(new FlowStoneError('not_found', 'secret'))).toMatchObject({ reason: 'not_found' })
  for (const code of ERROR_CODES.filter((one) => one !== 'invalid'))
    expect(problemOf(new FlowStoneError(code, 'secret')).detail, code).not.toContain('secret')
})
