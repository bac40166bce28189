import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FLOOR, judge, type Recorded, recordOf } from '../bench/guard/judge.ts'

const recorded: Recorded = { date: '2026-11-28', machine: '2 cores', ratios: { scatter: 0.6 } }

describe('judge', () => {
  it('lets a ratio pass that is at the floor of two thirds', () => {
    expect(judge('scatter', [0.4], recorded, true)).toMatchObject({ status: 'holds', ratio: 0.4 })
  })

  it('asks for more repeats when the first are below the floor, and fails only after the last', () => {
    const low = [0.39, 0.2, 0.5]
    expect(judge('scatter', low, recorded, false).status).toBe('unsure')
    expect(judge('scatter', low, recorded, true).status).toBe('fell')
  })

  it('is not moved by repeats that met noise while more than half met none', () => {
    expect(judge('scatter', [0.1, 0.6, 0.05, 0.61, 0.59], recorded, false)).toMatchObject({
      status: 'holds',
      ratio: 0.59,
    })
  })

  it('takes the mean of the two in the middle of an even number of repeats', () => {
    expect(judge('scatter', [0.9, 0.3, 0.4, 0.2], recorded, true).ratio).toBeCloseTo(0.35)
  })

  it('says which ratio fell, how low it is, what was recorded, and what to do', () => {
    const { message } = judge('scatter', [0.3], recorded, true)
    expect(message).toBe(
      'scatter: 0.30 of raw, median of 1 repeats, is below 0.40: two thirds of the 0.60 recorded on 2026-11-28. ' +
        'Find the change that slowed it down: run npm run bench:guard on the commits before. ' +
        'If the cost is wanted, record anew with npm run bench:guard -- --record, and say why in the commit.',
    )
  })

  it('advises to record when the ratio is a third higher than recorded', () => {
    expect(judge('scatter', [0.81], recorded, false).message).toContain(
      'record it with npm run bench:guard -- --record',
    )
    expect(judge('scatter', [0.79], recorded, false).message).not.toContain('--record')
  })

  it('names a measurement that was never recorded', () => {
    expect(() => judge('gates', [1], recorded, true)).toThrow('recorded.json has no ratio of "gates"')
  })

  it('passes what it has just recorded, and nothing below two thirds of it', () => {
    const ratio = fc.double({ min: 0.01, max: 2, noNaN: true })
    fc.assert(
      fc.property(fc.array(ratio, { minLength: 1 }), fc.double({ min: 0.1, max: 1, noNaN: true }), (ratios, slower) => {
        const known = recordOf(new Map([['scatter', ratios]]), '2026-11-28', '2 cores')
        expect(judge('scatter', ratios, known, true).status).toBe('holds')
        const slowed = judge(
          'scatter',
          ratios.map((each) => each * slower),
          known,
          true,
        )
        // What is recorded has three digits.
        if (Math.abs(slower - FLOOR) > 0.01) expect(slowed.status).toBe(slower < FLOOR ? 'fell' : 'holds')
      }),
    )
  })
})
