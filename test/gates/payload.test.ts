import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { payloadSchema } from '../../src/define/payload-schema.ts'
import { checkPayload } from '../../src/gates/payload.ts'
import { SignalRejectedError } from '../../streams/errors.ts'

/** What is wrong, and how long it took to say so. */
function checked(schema: z.ZodType, payload: unknown): { readonly why: string | undefined; readonly tookMs: number } {
  const json = payloadSchema('test', schema)
  const startedMs = performance.now()
  let why: string | undefined
  try {
    checkPayload(json, payload)
  } catch (error) {
    if (!(error instanceof SignalRejectedError) || error.reason !== 'invalid_payload') throw error
    why = error.message
  }
  return { why, tookMs: performance.now() - startedMs }
}

const event = (kind: string) => z.object({ type: z.literal(kind), id: z.string(), at: z.string(), n: z.number() })
const EVENTS = z.array(z.union(Array.from({ length: 10 }, (_, i) => event(`k${i}`))))

let heap = 0
beforeEach(() => {
  heap = process.memoryUsage().heapTotal
})
afterEach(() => {
  expect(process.memoryUsage().heapTotal - heap).toBeLessThan(400e6)
})

describe('a payload that a gate does not take', () => {
  it('a payload that a gate does not take is refused without a list of all that is wrong, however long that would be', () => {
    const { why } = checked(EVENTS, JSON.parse(`[${'{},'.repeat(208_000)}{}]`))
    expect(why).toMatch(/it has more than \d+ values, which is the most that can be checked/)
  })

  it('a payload that a gate does not take is refused in bounded memory right below that limit', () => {
    const most = Number(/more than (\d+) values/.exec(checked(EVENTS, new Array(100_000).fill(1)).why ?? '')?.[1])
    const { why } = checked(
      EVENTS,
      Array.from({ length: most - 1 }, () => ({})),
    )
    expect(why).toBeDefined()
    expect(why?.length).toBeLessThan(2000)
  })

  it('a payload that a gate does not take names a few of the places where it is wrong', () => {
    const { why } = checked(z.array(z.object({ id: z.string() })), new Array(100).fill({ id: 7 }))
    expect(why).toContain('[0].id')
    expect(why).not.toContain('[9].id')
  })
})

describe('a check that would take for ever', () => {
  it('a check that would take for ever is broken off: a long text and a pattern', () => {
    const { why, tookMs } = checked(z.object({ a: z.string().regex(/(x+x+)+y/) }), { a: 'x'.repeat(30_000) })
    expect(why).toContain("it could not be checked against the gate's schema within 1000 ms")
    expect(tookMs).toBeLessThan(3000)
  })

  it('a check that would take for ever leaves the next one as it was', () => {
    const schema = z.object({ a: z.string().regex(/^(a+)+$/) })
    expect(checked(schema, { a: 'aaa' }).why).toBeUndefined()
    expect(checked(schema, { a: 'b' }).why).toContain('Invalid string')
  })
})

describe('a payload that a gate takes', () => {
  it('may be large', () => {
    const payload = Array.from({ length: 4000 }, (_, n) => ({ type: `k${n % 10}`, id: `${n}`, at: 'now', n }))
    expect(checked(EVENTS, payload).why).toBeUndefined()
    expect(
      checked(
        z.array(z.number()),
        Array.from({ length: 100_000 }, (_, n) => n),
      ).why,
    ).toBeUndefined()
  })

  it('a payload that a gate takes is checked by its own schema, also where thousands of others came before', () => {
    for (let n = 0; n < 500; n++) expect(checked(z.literal(n), n + 1).why).toBeDefined()
    for (let n = 0; n < 500; n++) expect(checked(z.literal(n), n).why).toBeUndefined()
  })
})
