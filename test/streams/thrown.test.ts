import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { failureOf } from '../../src/worker/attempt/run-code.ts'
import { FlowStoneError, InvalidError, TerminalError } from '../../streams/errors.ts'
import { errorInfo } from '../../streams/schemas.ts'
import { describe as described, infoOf, reasonOf } from '../../streams/thrown.ts'

const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:9'), { code: 'ECONNREFUSED' })

/** The classes of another copy of the package, as a bundle or a monorepo brings. */
async function otherCopy(): Promise<typeof import('../../streams/errors.ts')> {
  const copy = '../../streams/errors.ts?copy'
  return await import(copy)
}

describe('what is kept of an error', () => {
  it('holds its causes with their codes', () => {
    const info = infoOf(new TypeError('fetch failed', { cause: refused }))
    expect(info).toMatchObject({
      code: 'error',
      message: 'fetch failed',
      cause: { code: 'ECONNREFUSED', message: refused.message },
    })
    expect(described(info)).toBe('fetch failed (cause: connect ECONNREFUSED 127.0.0.1:9)')
    expect(errorInfo.parse(info)).toEqual(info)
  })

  it('holds the errors of an AggregateError', () => {
    const both = Object.assign(new AggregateError([refused, new Error('second')]), { code: 'ECONNREFUSED' })
    const info = infoOf(new Error('fetch failed', { cause: both }))
    expect(info.cause?.errors).toMatchObject([{ code: 'ECONNREFUSED' }, { message: 'second' }])
    expect(reasonOf(new Error('fetch failed', { cause: both }))).toContain('connect ECONNREFUSED 127.0.0.1:9; second')
  })

  it('ends where causes go round, or have no end', () => {
    const circle: Error & { cause?: unknown } = new Error('round')
    circle.cause = new Error('and', { cause: circle })
    expect(infoOf(circle)).toMatchObject({ cause: { message: 'and' } })
    let deep: Error = new Error('0')
    for (let i = 1; i < 100; i++)
      deep = Object.assign(
        new AggregateError(
          Array.from({ length: 100 }, () => new Error('x'.repeat(10_000))),
          `${i}`,
          { cause: deep },
        ),
      )
    expect(JSON.stringify(infoOf(deep)).length).toBeLessThan(24_000)
    expect(errorInfo.parse(infoOf(deep))).toEqual(infoOf(deep))
  })

  const hostile: [string, unknown][] = [
    ['null', null],
    ['undefined', undefined],
    ['a symbol', Symbol('x')],
    ['a function', () => 1],
    ['a bigint', 1n],
    [
      'a proxy that throws',
      new Proxy(new Error('x'), {
        get: () => {
          throw new Error('no')
        },
        has: () => {
          throw new Error('no')
        },
        getPrototypeOf: () => {
          throw new Error('no')
        },
      }),
    ],
    ['a proxy whose prototypes have no end', new Proxy({}, { getPrototypeOf: (target) => new Proxy(target, {}) })],
    [
      'a getter `code` that throws',
      Object.defineProperty(new Error('x'), 'code', {
        get: () => {
          throw new Error('no code')
        },
      }),
    ],
    [
      'a getter `message` that throws',
      Object.defineProperty(new Error('x'), 'message', {
        get: () => {
          throw new Error('no')
        },
      }),
    ],
    [
      'a getter `stack` that throws',
      Object.defineProperty(new Error('x'), 'stack', {
        get: () => {
          throw new Error('no')
        },
      }),
    ],
    [
      'a getter `cause` that throws',
      Object.defineProperty(new Error('x'), 'cause', {
        get: () => {
          throw new Error('no')
        },
      }),
    ],
    [
      'errors that are no list',
      Object.assign(new Error('x'), {
        errors: new Proxy([], {
          get: () => {
            throw new Error('no')
          },
        }),
      }),
    ],
    ['a message that is no text', Object.assign(new Error('x'), { message: Symbol('m') })],
    ['a frozen error', Object.freeze(new Error('x'))],
    [
      'a toJSON that throws',
      {
        toJSON: () => {
          throw new Error('no')
        },
      },
    ],
    [
      'a circle',
      (() => {
        const c: { c?: unknown } = {}
        c.c = c
        return c
      })(),
    ],
  ]
  it.each(hostile)('is always text: %s', (_, thrown) => {
    const { outcome, error, thrown: kept } = failureOf(thrown)
    expect(outcome).toBe('error')
    // Telemetry looks at it.
    expect(() => kept instanceof Error).not.toThrow()
    expect(errorInfo.parse(error)).toEqual(error)
    expect(error.message).not.toBe('')
  })

  it('has bounds, and never half a character', () => {
    const { message, stack } = infoOf(new Error(`${'x'.repeat(3999)}🙂${'y'.repeat(10_000_000)}`))
    expect(message).toBe('x'.repeat(3999))
    expect(stack?.isWellFormed()).toBe(true)
    expect(infoOf(new Error('a\ud83d')).message).toBe('a\ufffd')
  })

  it('of another realm is the same as of this', () => {
    const thrown: unknown = runInNewContext(
      'Object.assign(new TypeError("fetch failed", { cause: new Error("why") }), { code: "ECONN" })',
    )
    expect(infoOf(thrown)).toMatchObject({ code: 'ECONN', message: 'fetch failed', cause: { message: 'why' } })
    expect(infoOf(thrown).stack).toContain('TypeError: fetch failed')
    expect(
      infoOf(Object.assign(Object.create({ name: 'ApiError', message: 'quota exceeded' }), { status: 429 })),
    ).toMatchObject({ code: 'error', message: 'quota exceeded' })
  })
})

describe('errors of another copy of the package', () => {
  it('are known by their brand, and classes of users by themselves', async () => {
    const other = await otherCopy()
    expect(other.TerminalError).not.toBe(TerminalError)
    const theirs = new other.TerminalError('no use')
    expect(theirs).toBeInstanceOf(TerminalError)
    expect(theirs).toBeInstanceOf(FlowStoneError)
    expect(theirs).not.toBeInstanceOf(InvalidError)
    expect(new TerminalError('x')).toBeInstanceOf(other.TerminalError)
    class Mine extends TerminalError {}
    class Theirs extends other.TerminalError {}
    expect(new Theirs('x')).toBeInstanceOf(TerminalError)
    expect(theirs).not.toBeInstanceOf(Mine)
    expect(new Mine('x')).toBeInstanceOf(Mine)
    expect(failureOf(theirs).outcome).toBe('terminal')
    expect(failureOf(new other.RetryableError('later', { retryAfterMs: 5 }))).toMatchObject({
      outcome: 'error',
      retryAfterMs: 5,
    })
  })

  it('are none of ours when they only look so', () => {
    for (const thing of [
      null,
      undefined,
      1,
      'TerminalError',
      {},
      { code: 'terminal' },
      new Error('x'),
      Object.create(null),
    ])
      expect(thing instanceof FlowStoneError).toBe(false)
  })
})
