/** What the curves run. Partitions carry the sizes, so that all processes declare the same. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../src/index.ts'
import { instanceKey, instanceValue } from '../payload.ts'

export const WAIT_MS = 5
const LARGEST = 256 * 1024

async function counted(results: AsyncIterable<unknown>): Promise<number> {
  let count = 0
  for await (const _ of results) count += 1
  return count
}

function* keysOf(partition: string | undefined) {
  // Runs side by side have a number each behind the size.
  const count = Number.parseInt(partition ?? '', 10)
  for (let i = 0; i < count; i++) yield instanceKey(i)
}

export const noop = asset('noop', {
  scatter: (_, { partition }) => keysOf(partition),
  execute: ({ index }) => instanceValue(index),
  gather: counted,
})

export const waiting = asset('waiting', {
  scatter: (_, { partition }) => keysOf(partition),
  execute: async ({ index }) => {
    await sleep(WAIT_MS)
    return instanceValue(index)
  },
  gather: counted,
})

/** Random, so that nothing can make it smaller. */
const TEXT = randomBytes(LARGEST).toString('base64')

export const heavy = asset('heavy', {
  scatter: (_, { partition }) => keysOf(partition),
  execute: ({ index, partition }) => {
    const bytes = Number(partition?.split('x')[1])
    const from = (index * 97) % (TEXT.length - bytes)
    return TEXT.slice(from, from + bytes)
  },
  gather: counted,
})

/** How many instances of `held` have failed: each leaves a barrier open for an hour. */
export const failures = { count: 0, onOne: (): void => undefined }

export const held = asset('held', {
  scatter: () => [1],
  retry: { maxAttempts: 2, backoff: '1h..1h' },
  execute: (): number => {
    failures.count += 1
    failures.onOne()
    throw new Error('another attempt will do, in an hour')
  },
  gather: counted,
})

export const curvesPipeline = pipeline('curves', [noop, waiting, heavy, held])
