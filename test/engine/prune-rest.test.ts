import { expect, it } from 'vitest'
import { Rest } from '../../src/engine/history/prune/rest.ts'

it('pruning rests long while facts come, and shortly while none do', () => {
  let seq = 5
  const rest = new Rest(() => seq)
  expect(rest.after(100)).toBe(400)
  seq = 6
  expect(rest.after(100)).toBe(3200)
  expect(rest.after(100)).toBe(400)
})

it('a rest is at least 5 ms and at most 20 s, or what is asked for', () => {
  let seq = 5
  const rest = new Rest(() => seq++)
  expect(rest.after(0)).toBe(5)
  expect(rest.after(60_000)).toBe(20_000)
  expect(rest.after(60_000, 30_000)).toBe(30_000)
})

it('pruning rests shortly, too, while more packs are sealed than it prunes', () => {
  let seq = 5
  const rest = new Rest(() => seq++)
  rest.begin()
  rest.done(16)
  for (let i = 0; i < 10; i++) rest.sealed()
  expect(rest.after(100)).toBe(3200)
  rest.sealed()
  expect(rest.after(100)).toBe(400)
  rest.done(1)
  expect(rest.after(100)).toBe(3200)
  rest.sealed()
  rest.begin()
  expect(rest.after(100)).toBe(3200)
})
