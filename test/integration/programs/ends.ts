/**
 * A worker whose code ends its process, or holds up its event loop. Run as a program it is that
 * worker.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, connect, pipeline, type WorkerOptions } from '../../../src/index.ts'

const retry = { maxAttempts: 2, backoff: '1ms' } as const
const BLOCK_MS = 6000

const deadly: Readonly<Record<string, () => Promise<string>>> = {
  exit: () => process.exit(3),
  reject: async () => {
    void sleep(20).then(() => {
      throw new Error('floating')
    })
    return await sleep(60_000, '')
  },
  throw: async () => {
    setTimeout(() => {
      throw new Error('in a timer')
    }, 20)
    return await sleep(60_000, '')
  },
  block: async () => {
    const end = performance.now() + BLOCK_MS
    while (performance.now() < end);
    return 'blocked'
  },
}

export function ends(how: string) {
  const isFine = how === 'fine'
  const end = async (): Promise<string> => (await deadly[how]?.()) ?? 'fine'
  const work = asset('work', { retry, execute: end })
  const beside = asset('beside', { retry, execute: async () => (isFine ? 'fine' : await sleep(60_000, '')) })
  const spread = asset('spread', {
    scatter: () => [1, 2, 3, 4],
    scatterOptions: { retry },
    execute: async ({ scatterKey, attempt }) => {
      if (!isFine && scatterKey === 3) await end()
      if (!isFine) await sleep(60_000)
      return attempt
    },
  })
  // Of another worker, whose code holds up nothing.
  const aside = asset('aside', { retry, execute: () => sleep(BLOCK_MS, 'aside') })
  return {
    pipeline: pipeline('ends', [work, beside, spread]),
    other: pipeline('other', [aside]),
    work,
    beside,
    spread,
    aside,
  }
}

const { ENDS_HOW, ENDS_SERVER, ENDS_NAMESPACE } = process.env
if (ENDS_HOW && ENDS_SERVER && ENDS_NAMESPACE) {
  const flow = await connect({ servers: ENDS_SERVER, namespace: ENDS_NAMESPACE })
  const { pipeline: first, other } = ends(ENDS_HOW)
  const options: WorkerOptions = ENDS_HOW === 'block' ? { ackWait: '1s' } : {}
  // One that has stopped leaves the others the thread that they share.
  const early = await flow.worker(other, options)
  await flow.worker(first, options)
  await early.stop()
  await flow.worker(other, options)
  console.log('ready')
}
