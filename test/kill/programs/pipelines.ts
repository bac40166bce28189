/**
 * The pipelines of the kill tests. Their code is the same in every process; what differs from test
 * to test comes from the environment.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../../src/index.ts'
import { hostMs } from '../../kit/host-clock.ts'

export const INSTANCES = 5000
/** Sum of what `gather` gets when each of the instances counts once. */
export const SUM = (INSTANCES * (INSTANCES - 1)) / 2

/** What the gather functions make of the results. */
export interface Total {
  count: number
  sum: number
  /** Whether keys and indices came in order, each once. */
  inOrder: boolean
}

export const quick = { backoff: '20ms..100ms', maxAttempts: 5 } as const
const pauseMs = Number(process.env.KILL_INSTANCE_MS ?? 1)

/**
 * One line for each start of user code that a test wants to count, whatever becomes of its process.
 */
export function note(what: string): void {
  const file = process.env.KILL_NOTES
  if (file) appendFileSync(file, `${what}\n`)
}

/** What was noted so far, by all processes. */
function noted(): string[] {
  const file = process.env.KILL_NOTES
  return file && existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
}

export async function total(results: AsyncIterable<{ key: unknown; index: number; value: number }>): Promise<Total> {
  const found: Total = { count: 0, sum: 0, inOrder: true }
  for await (const { key, index, value } of results) {
    if (index !== found.count || key !== index) found.inOrder = false
    found.count += 1
    found.sum += value
  }
  return found
}

export async function work(index: number): Promise<number> {
  if (index % 3 === 0) await sleep(pauseMs)
  return index
}

/** A list as keys. */
export const list = asset('list', {
  retry: quick,
  scatter: () => Array.from({ length: INSTANCES }, (_, i) => i),
  execute: ({ index }) => work(index),
  gather: (results) => total(results),
})

/** Keys that come bit by bit: many key chunks, and time to die between them. */
export const stream = asset('stream', {
  retry: quick,
  scatter: async function* () {
    note('scatter')
    for (let i = 0; i < INSTANCES; i++) {
      if (i % 250 === 0) await sleep(60)
      yield i
    }
  },
  execute: ({ index }) => work(index),
  gather: (results) => total(results),
})

/** A gather that takes its time. */
export const slowGather = asset('slow_gather', {
  retry: quick,
  scatter: () => Array.from({ length: INSTANCES }, (_, i) => i),
  execute: ({ index }) => work(index),
  gather: async (results) => {
    note('gather')
    await sleep(600)
    return await total(results)
  },
})

/** Few instances that take long, so that a lease is surely in somebody's hands. */
export const slow = asset('slow', {
  retry: quick,
  scatter: () => Array.from({ length: 60 }, (_, i) => i),
  execute: async ({ index, attempt }) => {
    note(`${process.pid} ${index} ${attempt}`)
    await sleep(100)
    return index
  },
  gather: (results) => total(results),
})

/** Instance 40 takes its process down, on every attempt, or on the first KILL_POISON_TIMES. */
export const poison = asset('poison', {
  retry: { backoff: '20ms..100ms', maxAttempts: 3 },
  scatter: () => Array.from({ length: 100 }, (_, i) => i),
  execute: async ({ index, attempt }) => {
    if (index === 40) {
      note(`poison ${attempt}`)
      if (attempt <= Number(process.env.KILL_POISON_TIMES ?? 99)) process.kill(process.pid, 'SIGKILL')
    }
    await sleep(1)
    return index
  },
  gather: (results) => total(results),
})

export const POISONOUS = [37, 141]

/**
 * Two of 200 take their process down, on every attempt. One more that fails would fail the scatter.
 */
const poisonous = (maxAttempts: number) =>
  asset(`poisonous_${maxAttempts}`, {
    scatterOptions: {
      failureMode: 'partial',
      failureThreshold: { count: POISONOUS.length },
      retry: { backoff: '20ms..100ms', maxAttempts },
    },
    scatter: () => Array.from({ length: 200 }, (_, i) => i),
    execute: async ({ index }) => {
      await sleep(index % 3)
      if (POISONOUS.includes(index)) process.kill(process.pid, 'SIGKILL')
      await sleep(5)
      return index
    },
    gather: async (results) => {
      const failed: (number | string)[][] = []
      let succeeded = 0
      for await (const result of results) {
        if (result.status === 'ok') succeeded += 1
        else failed.push([result.index, result.error.code])
      }
      return { succeeded, failed }
    },
  })
export const poisonous3 = poisonous(3)

/** What stands beside: it bears no loss but one. */
export const beside = asset('beside', {
  retry: { backoff: '20ms', maxAttempts: 2 },
  scatter: () => Array.from({ length: 60 }, (_, i) => i),
  execute: async ({ index }) => {
    await sleep(50)
    return index
  },
  gather: (results) => total(results),
})
export const besidePlain = asset('beside_plain', {
  retry: { backoff: '20ms', maxAttempts: 2 },
  execute: async () => {
    await sleep(1500)
    return 'well'
  },
})

/** A plain asset that takes its process down on every attempt. */
export const deadly = asset('deadly', {
  retry: { backoff: '20ms..100ms', maxAttempts: 3 },
  execute: async ({ attempt }) => {
    note(`deadly ${attempt}`)
    process.kill(process.pid, 'SIGKILL')
    await sleep(1000)
    return 0
  },
})

/** Every fourth instance fails at first; all of those come again together. */
export const batch = asset('batch', {
  scatterOptions: { retry: { strategy: 'batch', maxAttempts: 5, backoff: '20ms..100ms' } },
  scatter: () => Array.from({ length: 1000 }, (_, i) => i),
  execute: async ({ index, attempt }) => {
    if (index % 4 !== 0) return index
    if (attempt === 1) throw new Error('not yet')
    note(`again ${index}`)
    await sleep(5)
    return index
  },
  gather: (results) => total(results),
})

/** A gather that stops to think when it has read half of the results. */
export const halfGather = asset('half_gather', {
  retry: quick,
  scatter: () => Array.from({ length: INSTANCES }, (_, i) => i),
  execute: ({ index }) => index,
  gather: async (results) => {
    async function* slowly(): AsyncGenerator<{ key: unknown; index: number; value: number }> {
      for await (const result of results) {
        if (result.index === INSTANCES / 2) {
          note('half')
          await sleep(500)
        }
        yield result
      }
    }
    return await total(slowly())
  },
})

/**
 * Every tenth instance fails for good in a process with KILL_BROKEN. What is run again takes its
 * time.
 */
export const broken = asset('broken', {
  scatterOptions: { failureMode: 'partial', failureThreshold: 0.5, retry: { maxAttempts: 1 } },
  scatter: () => Array.from({ length: 3000 }, (_, i) => i),
  execute: async ({ scatterKey }) => {
    if (scatterKey % 10 !== 0) return scatterKey
    if (process.env.KILL_BROKEN) throw new Error('broken')
    await sleep(20)
    return scatterKey
  },
  gather: async (results) => {
    const found = { ok: 0, sum: 0, failed: 0 }
    for await (const { status, value } of results) {
      if (status === 'failed') found.failed += 1
      else {
        found.ok += 1
        found.sum += value
      }
    }
    return found
  },
})
export const afterBroken = asset('after_broken', { dependsOn: [broken], execute: (_, deps) => deps.broken })

/**
 * The first instances wait for one another until as many run as may, so that this is seen however
 * slow the machine is.
 */
const limitedMs = Number(process.env.KILL_LIMITED_MS ?? 20)
const limited = (maxConcurrent: number, count: number) => {
  let isReached = false
  return asset(`limited_${maxConcurrent}`, {
    retry: quick,
    scatterOptions: { maxConcurrent },
    scatter: () => Array.from({ length: count }, (_, i) => i),
    execute: async ({ index }) => {
      note('+')
      while (!isReached) {
        await sleep(5)
        isReached ||= noted().filter((line) => line === '+').length >= maxConcurrent
      }
      await sleep(limitedMs)
      note('-')
      return index
    },
    gather: (results) => total(results),
  })
}
export const limitedTo = [limited(1, 60), limited(7, 300), limited(50, 1500)] as const

/** When something begins and ends, by a clock that all processes of this host share. */
function noteTime(what: 'begin' | 'end', index: number): void {
  note(`${what} ${process.pid}.${index} ${hostMs()}`)
}

/** Instances that hold one of three slots, and start at most a hundred times a second. */
export const sharing = asset('sharing', {
  retry: quick,
  scatterOptions: { rateLimit: [100, 'second'], slots: { bucket: 'sharing', max: 3, lease: '1s' } },
  scatter: () => Array.from({ length: 300 }, (_, i) => i),
  execute: async ({ index }) => {
    noteTime('begin', index)
    await sleep(10)
    noteTime('end', index)
    return index
  },
  gather: (results) => total(results),
})

/** Does not end by itself in the time that it has. */
export const outOfTime = asset('out_of_time', {
  retry: quick,
  scatterOptions: { totalTimeout: '4s' },
  scatter: () => Array.from({ length: 100 }, (_, i) => i),
  execute: async ({ index, signal }) => {
    if (index < 10) return index
    await sleep(60_000, undefined, { signal })
    return index
  },
})

export const kills = pipeline('kills', [
  outOfTime,
  sharing,
  batch,
  halfGather,
  broken,
  afterBroken,
  ...limitedTo,
  list,
  stream,
  slowGather,
  slow,
  poison,
  poisonous3,
  beside,
  besidePlain,
  deadly,
])
