/**
 * One pipeline in which everything meets: readers, batches, limits of all kinds, gates of all
 * kinds, code that fails, code that kills its process.
 */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AssetContext, asset, type InstanceOptions, pipeline, TerminalError } from '../../../src/index.ts'
import { batch, type ItemReader, itemReader } from '../../../src/items/index.ts'
import { note, total } from './pipelines.ts'

export const READ = 200
export const BATCHED = 140
export const LIMITED = 30
export const MAX_CONCURRENT = 4
export const SLOTS = 3
export const PER_SECOND = 30
export const GATED = 32
export const HURRIED = 16
export const REDRIVEN = 16
export const POISONED = 16
export const POISON = 7
const BATCH = 7
/** How an instance of `gated` goes, by its index. */
export const WAYS = ['once', 'twice', 'never', 'cancel', 'extend', 'chain', 'before', 'after'] as const
export type Way = (typeof WAYS)[number]
export const wayOf = (index: number): Way => WAYS[index % WAYS.length] ?? 'once'

/**
 * As an outsider sees time: children and test are on one machine. (`timeOrigin` of a process can be
 * a tenth of a second off.)
 */
export const wallMs = (): number => Date.now()

/** Notes that code begins, and in which process. Read again by `checks.ts`. */
function begins(ctx: AssetContext & { readonly index?: number }): void {
  note(`x ${ctx.runId} ${ctx.asset} ${ctx.index ?? '-'} ${ctx.attempt} ${process.pid} ${wallMs()}`)
}

const patient = { backoff: '20ms..200ms', maxAttempts: 12 } as const

function numbers(count: number, pauseMs = 60): ItemReader<number> {
  return itemReader<number, number>({
    name: 'numbers',
    async *read(cursor = 0) {
      for (let from = cursor; from < count; from += 10) {
        await sleep(pauseMs)
        yield { items: Array.from({ length: 10 }, (_, i) => from + i), cursor: from + 10 }
      }
    },
  })
}

export const read = asset('read', {
  retry: patient,
  scatter: () => numbers(READ),
  execute: async (ctx) => {
    begins(ctx)
    const { index, attempt } = ctx
    await sleep(index % 5)
    if (index % 50 === 3 && attempt === 1) throw new Error('not yet')
    return index
  },
  gather: (results) => total(results),
})

/** Batches that end within the chunks they are read in. */
export const batched = asset('batched', {
  retry: patient,
  scatter: () => batch(numbers(BATCHED, 110), { maxItems: BATCH }),
  execute: async (ctx) => {
    begins(ctx)
    const {
      scatterKey: { items },
      index,
      attempt,
    } = ctx
    await sleep(index % 5)
    if (index % 7 === 2 && attempt === 1) throw new Error('not yet')
    return items.map((item) => item - index * BATCH)
  },
  gather: async (results) => {
    let next = 0
    for await (const { index, value } of results)
      for (const [n, item] of value.entries()) if (index * BATCH + n === next && item === n) next += 1
    return next
  },
})

export const limited = asset('limited', {
  retry: patient,
  scatterOptions: {
    maxConcurrent: MAX_CONCURRENT,
    rateLimit: { limit: PER_SECOND, per: 'second', bucket: 'starts' },
    slots: { bucket: 'places', max: SLOTS, lease: '1s' },
  },
  scatter: () => Array.from({ length: LIMITED }, (_, i) => i),
  execute: async (ctx) => {
    begins(ctx)
    const { index, attempt, signal } = ctx
    note(`+ ${process.pid} ${index} ${wallMs()}`)
    try {
      await sleep(60, undefined, { signal })
    } finally {
      note(`- ${process.pid} ${index} ${wallMs()}`)
    }
    if (index % 6 === 0 && attempt === 1) throw new Error('not yet')
    return index
  },
  gather: (results) => total(results),
})

/** What the gathers of scatters that may fail in part make of the results. */
async function listed(
  results: AsyncIterable<
    | { readonly status: 'ok'; readonly index: number; readonly value: unknown }
    | { readonly status: 'failed'; readonly index: number; readonly error: { readonly code: string } }
  >,
): Promise<[number, string][]> {
  const list: [number, string][] = []
  for await (const result of results)
    list.push([result.index, result.status === 'ok' ? String(result.value) : `failed ${result.error.code}`])
  return list
}

export const gated = asset('gated', {
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: patient },
  scatter: () => Array.from({ length: GATED }, (_, i) => i),
  execute: async (ctx) => {
    const { index, attempt } = ctx
    const way = wayOf(index)
    const metadata = { index, way }
    if (way === 'never') return ctx.signalGate({ metadata, timeout: '2s' })
    if (way === 'extend')
      return ctx.signalGate({
        metadata,
        timeout: '4s',
        timeoutAction: 'retry',
        retryDelays: ['1m'],
        maxTimeoutRetries: 2,
      })
    const gate = await ctx.openGate({ metadata, timeout: '10m' })
    await sleep(index % 20)
    if (way === 'before' && attempt === 1) throw new Error('the outside job could not be begun')
    return gate.wait()
  },
  onSignal: (ctx, payload: { value: string }) => {
    const { index, attempt } = ctx
    const way = wayOf(index)
    if (way === 'after' && attempt === 1) throw new Error('not yet')
    if (way === 'chain' && payload.value !== 'second')
      return ctx.signalGate({ metadata: { index, way: 'second' }, timeout: '10m' })
    return payload.value
  },
  gather: (results) => listed(results),
})

/** Each opens a gate; one of them then kills its process. */
export const poisoned = asset('poisoned', {
  scatterOptions: {
    failureMode: 'partial',
    failureThreshold: 1,
    retry: { backoff: '20ms..200ms', maxAttempts: 3 },
  },
  scatter: () => Array.from({ length: POISONED }, (_, i) => i),
  execute: async (ctx) => {
    const { index } = ctx
    const gate = await ctx.openGate({ metadata: { index, way: 'once' }, timeout: '10m' })
    if (index === POISON) {
      note(`poison ${process.pid}`)
      process.kill(process.pid, 'SIGKILL')
    }
    await sleep(30)
    return gate.wait()
  },
  onSignal: (_, payload: { value: string }) => payload.value,
  gather: (results) => listed(results),
})

export const last = asset('last', {
  dependsOn: [read, batched, limited, gated, poisoned],
  retry: patient,
  execute: (ctx) => ctx.signalGate({ metadata: { index: 0, way: 'last' }, timeout: '10m' }),
  onSignal: (_, payload: { value: string }, deps) => ({ ...deps, last: payload.value }),
})

/** Most of its instances wait for nothing, until the total timeout ends them. */
export const hurried = asset('hurried', {
  scatterOptions: { totalTimeout: '3s', failureMode: 'partial', failureThreshold: 1, retry: patient },
  scatter: () => Array.from({ length: HURRIED }, (_, i) => i),
  execute: (ctx) => (ctx.index % 4 === 0 ? ctx.index : ctx.signalGate({ timeout: ctx.index % 4 === 1 ? '1h' : '4s' })),
})

/** What fails is run once more, in a run that goes on with this one. */
export const redriven = asset('redriven', {
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: patient },
  scatter: () => Array.from({ length: REDRIVEN }, (_, i) => i),
  execute: (ctx) => ctx.signalGate({ metadata: { index: ctx.scatterKey, way: 'redriven' }, timeout: '10m' }),
  onSignal: (_, payload: { value: string }) => payload.value,
  gather: (results) => listed(results),
})

export const MIXED = 48

/** Where a test says that the code of a data partition is healed. */
export const healedFile = (notes: string, partition: string): string => `${notes}.healed.${partition}`

/** Some fail at once, some three times, some once; until they are healed. */
function mixed(name: string, options: InstanceOptions) {
  return asset(name, {
    scatterOptions: { failureMode: 'partial', retry: { backoff: '20ms..200ms', maxAttempts: 3 }, ...options },
    scatter: async function* () {
      for (let n = 0; n < MIXED; n++) {
        if (n % 6 === 0) await sleep(60)
        yield n
      }
    },
    execute: async (ctx) => {
      begins(ctx)
      const { scatterKey: n, attempt, partition = '' } = ctx
      await sleep((n % 5) * 25)
      if (existsSync(healedFile(process.env.KILL_NOTES ?? '', partition))) return `ok ${n}`
      if (n % 6 === 0) throw new TerminalError(`terminal ${n}`)
      if (n % 6 === 1) throw new Error(`failed ${n}, attempt ${attempt}`)
      if (n % 6 === 2 && attempt === 1) throw new Error(`not yet ${n}`)
      return `ok ${n}`
    },
    gather: async (results) => {
      const list: [number, number, string][] = []
      for await (const result of results)
        list.push([
          result.index,
          result.key,
          result.status === 'ok' ? result.value : `${result.error.code}: ${result.error.message}`,
        ])
      return list
    },
  })
}

export const mixedWhole = mixed('mixed_whole', { failureThreshold: 1 })
export const mixedCancelled = mixed('mixed_cancelled', { failureThreshold: 1 })
export const mixedHurried = mixed('mixed_hurried', { failureThreshold: 1, totalTimeout: '1500ms' })
export const mixedStrict = mixed('mixed_strict', { failureThreshold: { count: 5 } })

export const plain = asset('plain', {
  retry: patient,
  execute: (ctx) => {
    begins(ctx)
    return ctx.runId
  },
})

export const plainNext = asset('plain_next', {
  dependsOn: [plain],
  retry: patient,
  execute: (ctx, deps) => {
    begins(ctx)
    return deps.plain
  },
})

/** `last` without the one that kills its process. */
export const gentleLast = asset('gentle_last', {
  dependsOn: [read, batched, limited, gated],
  retry: patient,
  execute: (ctx) => ctx.signalGate({ metadata: { index: 0, way: 'last' }, timeout: '10m' }),
  onSignal: (_, payload: { value: string }, deps) => ({ ...deps, last: payload.value }),
})

export const chaos = pipeline('chaos', [
  read,
  batched,
  limited,
  gated,
  poisoned,
  last,
  gentleLast,
  hurried,
  redriven,
  mixedWhole,
  mixedCancelled,
  mixedHurried,
  mixedStrict,
  plain,
  plainNext,
])
