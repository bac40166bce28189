import { deepEqual } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'
import { batch, itemResults, settleItems } from '../../../src/items/index.ts'

const urls = Array.from({ length: 25 }, (_, i) => `/page/${i}`)
const check = async (url: string, signal: AbortSignal): Promise<number> => {
  signal.throwIfAborted()
  if (url === '/page/7') throw new Error('404')
  return 200
}

// #region batches
const checked = asset('checked', {
  scatter: () => batch(urls, { maxItems: 10 }),
  execute: ({ scatterKey, signal }) =>
    settleItems(scatterKey.items, (url) => check(url, signal), {
      concurrency: 5,
      failureThreshold: 0.5,
      signal,
    }),
  gather: async (results) => {
    const broken: string[] = []
    for await (const { item, status } of itemResults(results))
      if (status === 'failed') broken.push(item)
    return broken
  },
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [checked]))
deepEqual(await (await flow.materialize(checked)).result(), ['/page/7'])
await flow.close()
