import fc from 'fast-check'
import { expect, it } from 'vitest'
import { FixedLimiter } from '../../src/http/shared/rate.ts'
import { runs } from '../kit/runs.ts'

it('lets the limit through at once, then one for each step, and says how long to wait', () => {
  let now = 0
  const limiter = new FixedLimiter('rate', [10, 'second'], () => now)
  for (let i = 0; i < 10; i++) expect(limiter.take('a')).toBe(0)
  expect(limiter.take('a')).toBeCloseTo(100)
  now = 99
  expect(limiter.take('a')).toBeCloseTo(1)
  now = 100
  expect(limiter.take('a')).toBe(0)
  expect(limiter.take('a')).toBeCloseTo(100)
})

it('one sender that uses up its allowance takes nothing from another', () => {
  const limiter = new FixedLimiter('rate', [1, 'hour'], () => 0)
  expect(limiter.take('a')).toBe(0)
  expect(limiter.take('a')).toBeGreaterThan(0)
  expect(limiter.take('b')).toBe(0)
})

it('nobody gets more than the limit in what its bound allows, whatever others do', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.record({ name: fc.constantFrom('a', 'b', 'c'), afterMs: fc.integer({ min: 0, max: 700 }) }), {
        maxLength: 300,
      }),
      (limit, requests) => {
        let now = 0
        const limiter = new FixedLimiter('rate', [limit, 'second'], () => now)
        const taken = new Map<string, number>()
        for (const { name, afterMs } of requests) {
          now += afterMs
          if (limiter.take(name) === 0) taken.set(name, (taken.get(name) ?? 0) + 1)
        }
        for (const count of taken.values()) expect(count).toBeLessThanOrEqual(limit + (now / 1000) * limit + 1e-6)
      },
    ),
    runs(60),
  )
})

it('a hundred thousand addresses cost no memory, and the one that was over its limit stays over it', () => {
  const limiter = new FixedLimiter('rate', [2, 'hour'], () => 0)
  limiter.take('attacker')
  limiter.take('attacker')
  let refused = 0
  for (let i = 0; i < 100_000; i++) if (limiter.take(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`) > 0) refused++
  expect(limiter.take('attacker')).toBeGreaterThan(0)
  // Two cells of a name collide with others' only when the table is full of those who used their
  // allowance up.
  expect(refused).toBeLessThan(30_000)
})

it('a limit that is none is refused when it is made', () => {
  for (const rate of ['[0,"second"]', '[null,"second"]', '[1,"day"]', '[1]'])
    expect(() => new FixedLimiter('rateLimit.address', JSON.parse(rate))).toThrow(/^rateLimit.address must be/)
})
