import { describe, expect, it } from 'vitest'
import {
  formatTraceparent,
  parseTraceparent,
  partSpan,
  runSpan,
  traceContextOf,
  tracedPart,
  traceOfMessage,
} from '../../streams/trace.ts'

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const SPAN = '00f067aa0ba902b7'
const parent = `00-${TRACE}-${SPAN}-01`

describe('a traceparent', () => {
  it('is read and written as the standard says', () => {
    expect(parseTraceparent(parent)).toEqual({ traceId: TRACE, spanId: SPAN, isSampled: true })
    expect(parseTraceparent(`00-${TRACE}-${SPAN}-00`)).toMatchObject({ isSampled: false })
    // A later version may have more behind what is known, and more flags.
    expect(parseTraceparent(`cc-${TRACE}-${SPAN}-03-more`)).toMatchObject({ traceId: TRACE, isSampled: true })
    expect(formatTraceparent({ traceId: TRACE, spanId: SPAN, isSampled: false })).toBe(`00-${TRACE}-${SPAN}-00`)
  })

  it.each([
    undefined,
    '',
    'nonsense',
    `ff-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01-more`,
    `00-${'0'.repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
  ])('that is malformed is none: %s', (text) => {
    expect(parseTraceparent(text)).toBeUndefined()
    expect(traceContextOf(text, 'a=1')).toBeUndefined()
  })

  it('of a message is found in either way of writing its header, with its state', () => {
    expect(traceOfMessage(new Map([['traceparent', parent]]))).toEqual({ traceparent: parent })
    const canonical = new Map([
      ['Traceparent', parent],
      ['Tracestate', 'a=1'],
    ])
    expect(traceOfMessage(canonical)).toEqual({ traceparent: parent, tracestate: 'a=1' })
    expect(traceContextOf(parent, 'x'.repeat(513))).toEqual({ traceparent: parent })
    expect(traceOfMessage(new Map())).toBeUndefined()
  })
})

describe('the spans of a run', () => {
  const of = { namespace: 'shop', run: '0-abc' }

  it('are the same for all who know the run, and others in another namespace', () => {
    expect(runSpan(of)).toEqual(runSpan({ ...of }))
    expect(runSpan(of)).toMatchObject({ traceId: expect.stringMatching(/^[0-9a-f]{32}$/), isSampled: true })
    expect(runSpan({ ...of, namespace: 'test' }).traceId).not.toBe(runSpan(of).traceId)
    // These ids are in logs of others: they must not change.
    expect(formatTraceparent(runSpan(of))).toMatchInlineSnapshot(
      `"00-0c61ed48ae56ee2f230fb0e3b4cdb403-c4623c7b0820d5fb-01"`,
    )
  })

  it('are in the trace of the requester, where there is one', () => {
    const asked = { ...of, trace: { traceparent: `00-${TRACE}-${SPAN}-00` } }
    expect(runSpan(asked)).toEqual({ traceId: TRACE, spanId: runSpan(of).spanId, isSampled: false })
    expect(partSpan(asked, tracedPart.attempt('a', 1)).traceId).toBe(TRACE)
  })

  it('differ for each part', () => {
    const parts = [
      tracedPart.attempt('a', 1),
      tracedPart.attempt('a', 2),
      tracedPart.attempt('b', 1),
      tracedPart.scatter('a'),
      tracedPart.lease('a', '0-1-1'),
      tracedPart.instance('a', 1, 1),
      tracedPart.instance('a', 1, 2),
      tracedPart.gate('a', 'a1n1'),
      tracedPart.resume('a', 'a1n1', 1),
      tracedPart.reminder('a', 'a1n1', 1),
    ]
    expect(new Set(parts.map((part) => partSpan(of, part).spanId)).size).toBe(parts.length)
  })
})
