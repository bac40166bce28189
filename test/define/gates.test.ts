import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { parseApproval, parseGate } from '../../src/define/gates.ts'
import { checkPayload } from '../../src/gates/payload.ts'
import { InvalidError, SignalRejectedError } from '../../streams/errors.ts'

/** What somebody without types may hand over. */
function odd<T>(value: unknown): T {
  return value as T
}

function refusal(parse: () => unknown): string {
  try {
    parse()
  } catch (error) {
    if (error instanceof InvalidError) return error.message
    throw error
  }
  return 'taken'
}

describe('options of a gate', () => {
  it.each<[unknown, string]>([
    [null, 'gate: options must be an object'],
    [5, 'gate: options must be an object'],
    [[], 'gate: options must be an object'],
    [{ timout: '1h' }, 'gate: there is no option timout; did you mean timeout?'],
    [
      { timeoutAction: 'retry', retryDelays: '5m' },
      "gate: retryDelays must be a list such as ['5m', '15m'], got \"5m\"",
    ],
    [{ timeoutAction: 'retry', retryDelays: [] }, 'gate: retryDelays must name at least one wait'],
    [{ timeout: -1 }, 'gate: timeout must be milliseconds or text'],
    [{ timeout: '4000d' }, 'gate: timeout must be more than 0 and at most 10 years'],
    // 32,000 bytes, though half as many characters.
    [{ metadata: 'é'.repeat(16_000) }, 'gate: metadata must be JSON of at most 16384 bytes'],
    [{ metadata: new Date(0) }, 'gate: metadata must be JSON'],
    [{ payloadSchema: { type: 'string' } }, 'gate: payloadSchema must be a schema of zod 4'],
  ])('%j are refused, and it is said why', (options, message) => {
    expect(refusal(() => parseGate(odd(options)))).toContain(message)
  })

  it('of an approval leave its payload and its metadata alone', () => {
    expect(refusal(() => parseApproval(odd({ message: 'a', metadata: 1 })))).toContain('no option metadata')
    expect(refusal(() => parseApproval(odd({ message: 'a', payloadSchema: z.string() })))).toContain(
      'no option payloadSchema',
    )
    expect(refusal(() => parseApproval(odd({ message: 'a', contxt: 1 })))).toContain('did you mean context?')
    expect(refusal(() => parseApproval({ message: 'a', context: 'x'.repeat(17_000) }))).toContain('message and context')
    expect(parseApproval({ message: 'a', context: 1 }).metadata).toEqual({ message: 'a', context: 1 })
  })
})

function taken(schema: z.ZodType, payload: unknown): boolean {
  try {
    checkPayload(parseGate({ payloadSchema: schema }).payload, payload)
    return true
  } catch (error) {
    if (error instanceof SignalRejectedError && error.reason === 'invalid_payload') return false
    throw error
  }
}

describe('a payload’s schema', () => {
  const tree: z.ZodType = z.object({ name: z.string(), kids: z.array(z.lazy(() => tree)) })
  it.each<[string, z.ZodType, unknown[], unknown[]]>([
    ['two patterns', z.string().regex(/^a/).regex(/b$/), ['ab'], ['a', 'b']],
    ['beginning and end', z.string().startsWith('a.').endsWith('z'), ['a.z'], ['a.', 'abz']],
    ['a record of an enum', z.record(z.enum(['a', 'b']), z.number()), [{ a: 1, b: 2 }], [{ a: 1 }, { a: 1, b: '2' }]],
    ['a local time', z.iso.datetime({ local: true }), ['2026-01-01T00:00:00'], ['2026-13-01T00:00:00']],
    ['a format that is a pattern', z.stringFormat('as', /^a+$/), ['aa'], ['b']],
    ['a GUID', z.guid(), ['00000000-0000-0000-0000-000000000001'], ['x']],
    ['a tree', tree, [{ name: 'a', kids: [{ name: 'b', kids: [] }] }], [{ name: 'a', kids: [{ name: 1 }] }]],
    ['a strict object', z.strictObject({ a: z.string() }), [{ a: 'x' }], [{ a: 'x', b: 1 }]],
    [
      'a choice',
      z.discriminatedUnion('t', [z.object({ t: z.literal('a'), n: z.int() })]),
      [{ t: 'a', n: 1 }],
      [{ t: 'b' }],
    ],
  ])('takes from the log what it takes in the code: %s', (_, schema, good, bad) => {
    for (const payload of good) expect(schema.safeParse(payload).success && taken(schema, payload)).toBe(true)
    for (const payload of bad) expect(schema.safeParse(payload).success || taken(schema, payload)).toBe(false)
  })

  it('says in one line what is wrong, and where', () => {
    const { payload } = parseGate({ payloadSchema: z.object({ a: z.object({ n: z.number() }), b: z.string() }) })
    expect(() => checkPayload(payload, { a: { n: 'x' } })).toThrow(
      /payload: Invalid input: expected string.* at b; Invalid input: expected number, received string at a.n$/,
    )
  })

  it.each<[string, z.ZodType, string]>([
    ['flags of a pattern', z.object({ a: z.string().regex(/^a+$/i) }), 'the flags of /^a+$/i cannot be kept'],
    ['what a URL may hold', z.httpUrl(), 'what a URL may hold cannot be kept'],
    ['a Date', z.date(), 'Date cannot be represented'],
    [
      'a transform',
      z.object({ n: z.string().transform(Number) }),
      'a transform (or pipe, preprocess, codec) cannot be kept',
    ],
    ['a second schema', z.string().pipe(z.email()), 'a transform (or pipe'],
    ['a text for a truth', z.stringbool(), 'a transform (or pipe'],
    ['what comes before', z.preprocess(String, z.string()), 'a transform (or pipe'],
    ['coercion', z.array(z.coerce.number()), 'coercion cannot be kept; say what is sent'],
    ['a text that is cut', z.string().trim(), 'what changes a value'],
    ['an address that is changed', z.url({ normalize: true }), 'what changes a value'],
    ['a default', z.object({ a: z.string().default('x') }), 'a default cannot be kept; use optional()'],
    ['a default before', z.string().prefault('x'), 'a default cannot be kept'],
    ['a value for what is wrong', z.string().catch('x'), 'a value for what is wrong cannot be kept'],
    ['a refinement', z.object({ n: z.number() }).refine(({ n }) => n > 1), 'a refinement cannot be kept; look'],
    ['a check of one’s own', z.union([z.string().check(() => {}), z.number()]), 'a refinement cannot be kept'],
    ['a format of one’s own', z.stringFormat('even', (text) => text.length % 2 === 0), 'a refinement cannot be kept'],
    ['what cannot be read back', z.string().meta({ not: { type: 'number' } }), 'not is not supported'],
  ])('that would be another one on the log is refused: %s', (_, schema, message) => {
    expect(refusal(() => parseGate({ payloadSchema: schema }))).toContain(message)
  })
})
