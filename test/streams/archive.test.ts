import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  ArchiveTally,
  blobPartIn,
  blobRecords,
  blobsIn,
  checkFoot,
  documentIn,
  documentRecord,
  factIn,
  factRecord,
  lineOf,
  recordIn,
} from '../../streams/archive.ts'
import { encodeJson, encodeMsgpack } from '../../streams/codec.ts'
import type { SealedFact } from '../../streams/history.ts'
import { encodeValue } from '../../streams/value.ts'

const RUN = '0-abc'

function fact(payload: Uint8Array, contentType: string | undefined, event = 'requested'): SealedFact {
  return { path: `run.${RUN}.${event}`, seq: 7, timeMs: 1_700_000_000_123, contentType, payload }
}

function backAndForth(given: SealedFact): SealedFact {
  const { shard, ...found } = factIn('ns', recordIn(lineOf(factRecord('ns', 0, given))))
  expect(shard).toBe(0)
  return found
}

describe('a fact in an archive', () => {
  it('comes back byte for byte, whatever stands in it', () => {
    const anyBody = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }))
    fc.assert(
      fc.property(anyBody, (body) => {
        const payload = encodeJson({ v: 1, fact: 'run.requested', ...body })
        const given = fact(payload, 'application/json')
        const { payload: found, ...rest } = backAndForth(given)
        expect(rest).toEqual({ path: given.path, seq: 7, timeMs: given.timeMs, contentType: 'application/json' })
        expect(Buffer.from(found).equals(payload)).toBe(true)
      }),
    )
  })

  it('comes back byte for byte where JSON has several ways to write it', () => {
    const texts = [
      '{"v":1,"fact":"run.requested","n":-0}',
      '{"v":1,"fact":"run.requested","n":1.0}',
      '{"fact":"run.requested","v":1}',
      '{ "v": 1, "fact": "run.requested" }',
      '{"v":1,"fact":"run.requested","2":1,"1":2}',
      '{"v":1,"fact":"run.requested","a":1,"a":2}',
      '{"v":1,"fact":"run.requested","__proto__":{"x":1}}',
      '{"v":1,"fact":"run.requested","n":12345678901234567890}',
      '{"v":1,"fact":"run.requested","t":"\\u0041"}',
      '{"v":1,"fact":"run.finished"}',
      '{"v":"1","fact":"run.requested"}',
      '{"v":1e999,"fact":"run.requested"}',
      '{"v":0.5,"fact":"run.requested"}',
      '{"v":-1,"fact":"run.requested"}',
      '[1]',
    ]
    for (const text of texts) {
      const given = fact(new TextEncoder().encode(text), 'application/json')
      expect(Buffer.from(backAndForth(given).payload).toString()).toBe(text)
    }
  })

  it('comes back byte for byte as MessagePack, and is readable', () => {
    const value = { at: new Date(0), big: 1n, minus: -0, set: new Set([new Float32Array([1])]) }
    const payload = encodeMsgpack({
      v: 1,
      fact: 'scatter.outcomes',
      values: encodeMsgpack([1, 'b']),
      refs: [[0, { json: 1 }]],
      more: encodeValue(value),
    })
    const given = { ...fact(payload, 'application/msgpack'), path: `scatter.${RUN}.many.outcomes` }
    expect(backAndForth(given)).toEqual(given)
    const record = factRecord('ns', 0, given)
    expect(record).toMatchObject({ kind: 'scatter.outcomes', run: RUN, seq: 7, data: { values: [1, 'b'] } })
    expect(record.time).toBe('2023-11-14T22:13:20.123Z')
  })

  it('has its bytes only where its data do not give them', () => {
    const plain = fact(encodeJson({ v: 1, fact: 'run.requested', target: 'a' }), 'application/json')
    expect(factRecord('ns', 0, plain)).not.toHaveProperty('raw')
    expect(factRecord('ns', 0, { ...plain, contentType: undefined })).toHaveProperty('raw')
  })
})

describe('what else is in an archive', () => {
  it('is documents, of JSON or of bytes', () => {
    for (const doc of [{ seq: 1, id: RUN }, new Uint8Array([0, 255, 10])])
      expect(documentIn(recordIn(lineOf(documentRecord(0, RUN, 'segment.x', doc))))).toEqual({ key: 'segment.x', doc })
  })

  it('is large values, in parts', () => {
    const ref = { hash: 'a'.repeat(64), encoding: 'zstd', plainBytes: 9 } as const
    const bytes = new Uint8Array(500_000).map((_, i) => i)
    const parts = [...blobRecords(ref, bytes)].map((record) => blobPartIn(recordIn(lineOf(record))))
    expect(parts.map(({ part, parts: all }) => [part, all])).toEqual([0, 1, 2].map((part) => [part, 3]))
    expect(parts[0]?.ref).toEqual(ref)
    expect(Buffer.concat(parts.map((part) => part.bytes)).equals(bytes)).toBe(true)
  })

  it('names each large value that a fact names, wherever it stands', () => {
    const ref = { manager: 'nats', ref: { hash: 'b'.repeat(64), bytes: 3 } }
    const other = { manager: 'own', ref: { hash: 'c'.repeat(64) } }
    const body = { v: 1, fact: 'x', value: ref, refs: [[2, { deep: ref }]], other }
    const found = [{ hash: 'b'.repeat(64) }, { hash: 'b'.repeat(64) }]
    expect(blobsIn(fact(encodeJson(body), 'application/json'))).toEqual(found)
    expect(blobsIn(fact(encodeMsgpack(body), 'application/msgpack'))).toEqual(found)
  })

  it('is counted, and its hash is of every line', () => {
    const records = [factRecord('ns', 0, fact(encodeJson({ v: 1, fact: 'run.requested' }), 'application/json'))]
    const tallyOf = (lines: readonly string[]) => {
      const tally = new ArchiveTally()
      for (const line of lines) tally.add(recordIn(line), line)
      return tally.foot()
    }
    const lines = records.map(lineOf)
    const foot = tallyOf(lines)
    expect(foot).toMatchObject({ facts: 1, lines: 1, ranges: [{ shard: 0, first: 7, last: 7 }] })
    const end = { kind: 'end', data: foot }
    expect(() => checkFoot(end, tallyOf(lines))).not.toThrow()
    expect(() => checkFoot(end, tallyOf([]))).toThrow(/lines/)
    expect(() => checkFoot(end, tallyOf(lines.map((line) => line.replace('"seq":7', '"seq":8'))))).toThrow(/hash/)
  })
})

it.each([
  ['no object', '7', 'it: '],
  ['no kind', '{"shard":0}', 'kind: '],
  ['a sequence that is a text', '{"kind":"run.finished","seq":"7"}', 'seq: '],
  ['a subject that is a number', '{"kind":"run.finished","subject":7}', 'subject: '],
  ['bytes that are no text', '{"kind":"blob","raw":[1]}', 'raw: '],
  ['an id that is no text', '{"kind":"run.finished","ids":{"run":7}}', 'ids.run: '],
])('a line with %s is refused, and the error names the field', (_, line, field) => {
  expect(() => recordIn(line)).toThrow(`this is no whole archive: a line is not what an export writes: ${field}`)
})
