import { describe, expect, it } from 'vitest'
import { fencesOutOfOrder, worstOverlap, worstStretch } from './history.ts'

describe('the judge of histories', () => {
  it('the judge of histories counts what lies within a stretch whichever moments are true, and nothing else', () => {
    const at = (fromMs: number, toMs = fromMs) => ({ fromMs, toMs, n: 1 })
    expect(worstStretch([at(0), at(50), at(99)], 100)).toBe(3)
    expect(worstStretch([at(0), at(50), at(100)], 100)).toBe(2)
    expect(worstStretch([at(0), at(50, 101), at(60)], 100)).toBe(2)
    expect(worstStretch([at(0), at(50), at(100), { fromMs: 149, toMs: 149, n: 5 }], 100)).toBe(7)
    expect(worstStretch([], 100)).toBe(0)
  })

  it('finds the moment at which most is used', () => {
    const use = (fromMs: number, toMs: number, weight = 1) => ({ fromMs, toMs, weight })
    expect(worstOverlap([use(0, 10), use(10, 20)])).toBe(1)
    expect(worstOverlap([use(0, 10), use(9, 20), use(9.5, 9.6, 3)])).toBe(5)
  })

  it('finds fences that do not grow', () => {
    const taken = (askedMs: number, toldMs: number, fence: number) => ({ askedMs, toldMs, fence })
    expect(fencesOutOfOrder([taken(0, 1, 5), taken(2, 3, 6), taken(0, 4, 7)])).toEqual([])
    expect(fencesOutOfOrder([taken(0, 1, 6), taken(2, 3, 6)])).toEqual([[6, 6]])
  })
})
