import { describe, expect, it } from 'vitest'
import { itemReader } from '../../src/items/index.ts'
import type { ScatterTarget } from '../../src/worker/scatter/key-chunks.ts'
import { storeKeys } from '../../src/worker/scatter/scatter.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

/** A scatter on a log that takes all there is to store. */
function target(signal: AbortSignal, duplicates: ScatterTarget['duplicates'] = 'allow'): ScatterTarget {
  return {
    connection: { share: (most: number) => most, read: async () => undefined },
    names: namesOf('ns'),
    log: { appendOnce: async () => 'stored' },
    ...{ shard: 0, run: runId(0, 'keys'), asset: assetName('many'), attempt: 1, worker: 'worker' },
    ...{ signal, duplicates, values: { rememberKeyChunk: () => undefined } },
  } as unknown as ScatterTarget
}

const never = new AbortController().signal

/** Longer than the limit after which the source is to be left. */
const LONG_MS = 1500

const sources: [string, () => unknown][] = [
  [
    'a generator',
    function* () {
      for (const began = performance.now(); performance.now() - began < LONG_MS; ) yield 'same'
    },
  ],
  [
    'an async generator',
    async function* () {
      for (const began = performance.now(); performance.now() - began < LONG_MS; ) yield 'same'
    },
  ],
  [
    'an item reader',
    () =>
      itemReader({
        name: 'same',
        async *read() {
          const began = performance.now()
          for (let n = 0; performance.now() - began < LONG_MS; n++) yield { items: ['same'], cursor: n }
        },
      }),
  ],
]

describe('keys of a scatter', () => {
  it.each(sources)(
    'keys of a scatter that %s gives again and again keep no time limit from its turn',
    async (_, source) => {
      const limit = new AbortController()
      setTimeout(() => limit.abort(new Error('too long')), 50)
      await expect(storeKeys(target(limit.signal, 'drop'), source())).rejects.toThrow('too long')
    },
  )

  it('keys of a scatter may come by promises of another make', async () => {
    let n = 0
    const source = {
      [Symbol.asyncIterator]: () => ({
        next: () => ({
          // biome-ignore lint/suspicious/noThenProperty: as the promises of another realm have it
          then: (resolve: (result: IteratorResult<number>) => void) =>
            resolve(n < 3 ? { done: false, value: n++ } : { done: true, value: undefined }),
        }),
      }),
    }
    expect(await storeKeys(target(never), source)).toBe(3)
  })

  it.each(['a list', 'an iterator', 'a reader'])(
    'keys of a scatter that come after its limit as %s are not stored, and their source is closed',
    async (kind) => {
      let stored = 0
      let closed = 0
      const late = new AbortController()
      late.abort(new Error('too late'))
      const log = {
        appendOnce: async (...entries: { subject: string }[]) => {
          if (entries.some(({ subject }) => subject.includes('.items.'))) stored += 1
          return 'stored'
        },
      } as unknown as ScatterTarget['log']
      const end = { done: true as const, value: undefined }
      const iterator = {
        next: async () => ({ done: false, value: 1 }),
        return: async () => {
          closed += 1
          return end
        },
      }
      const source = { [Symbol.asyncIterator]: () => iterator }
      const reader = itemReader({
        name: 'late',
        read: async function* () {
          yield { items: [1], cursor: 1 }
        },
      })
      const given = kind === 'a list' ? [1, 2] : kind === 'a reader' ? reader : source
      await expect(storeKeys({ ...target(late.signal), log }, given)).rejects.toThrow('too late')
      expect([stored, closed]).toEqual([0, kind === 'an iterator' ? 1 : 0])
    },
  )

  it('keys of a scatter that are not read to their end fail as why says, and not as their end throws', async () => {
    const limit = new AbortController()
    const source = {
      [Symbol.iterator]: () => ({
        next: () => {
          limit.abort(new Error('too long'))
          return { done: false, value: 1 }
        },
        return: () => {
          throw new Error('not closed')
        },
      }),
    }
    await expect(storeKeys(target(limit.signal), source)).rejects.toThrow('too long')
  })
})
