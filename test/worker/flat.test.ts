import { describe, expect, it } from 'vitest'
import { flat } from '../../src/worker/scatter/flat.ts'

let closed = false

async function* lists(...given: readonly (readonly number[])[]): AsyncGenerator<number[]> {
  closed = false
  try {
    for (const list of given) yield [...list]
  } finally {
    closed = true
  }
}

describe('a list of lists, one by one', () => {
  it('gives all of them in order, whatever lists are empty', async () => {
    const all: number[] = []
    for await (const n of flat(lists([], [1, 2], [], [], [3], []))) all.push(n)
    expect(all).toEqual([1, 2, 3])
  })

  it('gives what is there at once, also after it has waited for a list', async () => {
    const one = flat(lists([1, 2, 3], [4, 5]))
    for (const [first, ...rest] of [
      [1, 2, 3],
      [4, 5],
    ]) {
      expect(await one.next()).toEqual({ done: false, value: first })
      for (const value of rest) {
        const next = await Promise.race([one.next(), Promise.resolve('later')])
        expect(next).toEqual({ done: false, value })
      }
    }
  })

  it('gives those who ask at the same time one after the other, and nothing behind the last', async () => {
    const one = flat(lists([1, 2], [3]))
    const asked = await Promise.all(Array.from({ length: 5 }, () => one.next()))
    expect(asked.map(({ value }) => value)).toEqual([1, 2, 3, undefined, undefined])
    expect(asked.map(({ done }) => done)).toEqual([false, false, false, true, true])
  })

  it('says what a list could not be read for, and goes on for those who ask again', async () => {
    async function* failing(): AsyncGenerator<number[]> {
      yield [1]
      throw new Error('away')
    }
    const one = flat(failing())
    const asked = await Promise.allSettled([one.next(), one.next(), one.next()])
    expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await one.next()).toEqual({ done: true, value: undefined })
  })

  it('closes its source when its reader stops', async () => {
    for await (const n of flat(lists([1, 2], [3]))) {
      expect(closed).toBe(false)
      if (n === 2) break
    }
    expect(closed).toBe(true)
  })
})
