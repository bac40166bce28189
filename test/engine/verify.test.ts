import { existsSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isDamage } from '../../src/engine/verify/damage.ts'
import { Ledger, Sequences } from '../../src/engine/verify/ledger.ts'
import { Findings } from '../../src/engine/verify/report.ts'
import { Scratch, Texts } from '../../src/engine/verify/scratch.ts'
import { Shadow } from '../../src/engine/verify/shadow.ts'
import { FlowStoneError } from '../../streams/errors.ts'

describe('a report of verifying', () => {
  it('is good only if nothing was found and all could be looked at', () => {
    const findings = new Findings(2)
    expect([findings.isGood, findings.notes]).toEqual([true, []])
    for (const n of [1, 1, 2, 3, 4]) findings.unseen(`pack ${n}`, 'no answer')
    expect([findings.isGood, findings.listed]).toEqual([false, []])
    expect(findings.notes).toEqual([
      'could not look at pack 1: no answer',
      'could not look at pack 2: no answer',
      'could not look at 2 other things',
    ])
  })

  it('calls damaged what is stored so, and not what nobody could read', () => {
    const zlib = Object.assign(new Error('wrong'), { code: 'Z_DATA_ERROR' })
    const away = new FlowStoneError('unreachable', 'no answer')
    const unreadable = (cause?: unknown): unknown => new FlowStoneError('unreadable', 'x', { cause })
    for (const error of [zlib, unreadable(zlib), unreadable(), new FlowStoneError('undecodable', 'x')])
      expect(isDamage(error)).toBe(true)
    for (const error of [away, unreadable(away), new Error('x'), new FlowStoneError('newer_version', 'x'), undefined])
      expect(isDamage(error)).toBe(false)
  })
})

describe('a ledger', () => {
  it('says what is missing, and what is there twice under other marks', () => {
    const hash = fc.bigInt({ min: 0n, max: 40n }).map((n) => n << 58n || n)
    const there = fc.array(fc.tuple(hash, fc.integer({ min: 0, max: 2 })))
    fc.assert(
      fc.property(there, fc.array(hash), (added, wanted) => {
        using scratch = new Scratch()
        const ledger = new Ledger(scratch)
        for (const [one, mark] of added) ledger.add(BigInt.asUintN(64, one), mark)
        for (const one of wanted) ledger.want(BigInt.asUintN(64, one), String(BigInt.asUintN(64, one)))
        const found = [...ledger.compare()]
        const known = new Set(added.map(([one]) => String(BigInt.asUintN(64, one))))
        const missing = found.flatMap((one) => ('missing' in one ? [one.missing] : []))
        const lacking = wanted.map((one) => String(BigInt.asUintN(64, one))).filter((one) => !known.has(one))
        expect(missing.toSorted()).toEqual(lacking.toSorted())
        const marks = Map.groupBy(added, ([one]) => BigInt.asUintN(64, one))
        const twice = new Set(found.flatMap((one) => ('twice' in one ? [one.twice.hash] : [])))
        for (const [one, all] of marks) expect(twice.has(one)).toBe(new Set(all.map(([, mark]) => mark)).size > 1)
      }),
    )
  })

  it('goes to files when it is large, which are gone afterwards', () => {
    const scratch = new Scratch()
    const ledger = new Ledger(scratch)
    const texts = new Texts(scratch)
    const places = Array.from({ length: 2000 }, (_, i) => texts.add(`${'x'.repeat(100)} ${i}`))
    for (let i = 0; i < 30_000; i++) ledger.add(BigInt(i) << 45n, i)
    ledger.want(12_345n << 45n, 'there')
    ledger.want(1n, 'not there')
    expect([...ledger.compare()]).toEqual([{ missing: 'not there' }])
    expect(texts.get(places[0] ?? -1)).toBe(`${'x'.repeat(100)} 0`)
    expect(texts.get(places[1999] ?? -1)).toBe(`${'x'.repeat(100)} 1999`)
    const folder = scratch.folder ?? ''
    expect(existsSync(folder)).toBe(true)
    scratch[Symbol.dispose]()
    expect(existsSync(folder)).toBe(false)
  })
})

it('sequences that were not added are counted, and the first of them named', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 200 })), (added) => {
      const sequences = new Sequences()
      for (const seq of added) sequences.add(seq)
      const all = Array.from({ length: 195 }, (_, i) => i + 3).filter((seq) => !added.includes(seq))
      expect(sequences.missing(3, 197)).toEqual({ count: all.length, first: all.slice(0, 5) })
    }),
  )
  const large = new Sequences()
  large.add(20_000_000)
  expect([large.has(20_000_000), large.has(19_999_999), large.has(90_000_000)]).toEqual([true, false, false])
})

describe('a state beside', () => {
  it('has all documents as they were put, whatever of them is in memory', () => {
    using scratch = new Scratch()
    const shadow = new Shadow(scratch)
    for (let i = 0; i < 10_000; i++) {
      shadow.put(`run.${i}`, { i, text: 'a run' })
      if (i % 3 === 0) shadow.edit<{ i: number; text: string }>(`run.${i}`).text = 'changed'
      if (i % 7 === 0) shadow.delete(`run.${i}`)
      shadow.settle()
    }
    shadow.put('segment.x', new Uint8Array([1, 2, 3]))
    for (let i = 0; i < 10_000; i++) {
      const expected = i % 7 === 0 ? undefined : { i, text: i % 3 === 0 ? 'changed' : 'a run' }
      expect(shadow.get(`run.${i}`)).toEqual(expected)
    }
    expect(shadow.get('segment.x')).toEqual(new Uint8Array([1, 2, 3]))
    expect([...shadow.keys()]).toHaveLength(10_000 - Math.ceil(10_000 / 7) + 1)
    expect(shadow.hashOf('run.1')).not.toBe(shadow.hashOf('run.2'))
    expect(shadow.hashOf('run.0')).toBeUndefined()
  })

  it('keeps what is changed by `edit` after it left memory and came back', () => {
    using scratch = new Scratch()
    const shadow = new Shadow(scratch)
    shadow.put('run.first', { n: 1 })
    for (let i = 0; i < 9000; i++) shadow.put(`run.${i}`, { i })
    shadow.settle()
    shadow.edit<{ n: number }>('run.first').n += 1
    for (let i = 0; i < 9000; i++) shadow.put(`run.${i}`, { i })
    shadow.settle()
    expect(shadow.get('run.first')).toEqual({ n: 2 })
  })
})
