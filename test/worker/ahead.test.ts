import { expect, it } from 'vitest'
import { asset } from '../../src/index.ts'
import { Ahead, aheadOf, askersOf, quickTurnMs } from '../../src/worker/lease/ahead.ts'
import { Slots } from '../../src/worker/pull/slots.ts'

it('as many ask ahead as the slots run in a moment, and none while that is not known', () => {
  const ahead = new Ahead()
  expect(ahead.most(10)).toBe(0)
  expect(askersOf(ahead, new Slots(10))).toBe(10)
  ahead.took(0)
  expect(ahead.most(10)).toBe(256)
  const slow = new Ahead()
  slow.took(100)
  expect(slow.most(10)).toBe(2)
  for (let i = 0; i < 40; i++) slow.took(1)
  expect(slow.most(10)).toBeGreaterThan(190)
})

it('only a quick rate that all instances share is asked ahead', () => {
  const of = (options: object) =>
    quickTurnMs(asset('a', { scatter: () => [1], execute: () => 1, scatterOptions: options }).definition.limits)
  expect(of({ rateLimit: [1000, 'second'] })).toBe(1)
  expect(of({ rateLimit: { bucket: 'b', limit: 60_000, per: 'minute' } })).toBe(1)
  expect(of({ rateLimit: [100, 'second'] })).toBeUndefined()
  expect(of({ rateLimit: { bucket: () => 'b', limit: 1000, per: 'second' } })).toBeUndefined()
  expect(of({ rateLimit: [1000, 'second'], slots: { bucket: 's', max: 3 } })).toBeUndefined()
  expect(of({})).toBeUndefined()
})

it('what is known of an asset is kept for its next lease', () => {
  const one = asset('one', { execute: () => 1 })
  expect(aheadOf(one)).toBe(aheadOf(one))
  expect(aheadOf(one)).not.toBe(aheadOf(asset('one', { execute: () => 1 })))
})
