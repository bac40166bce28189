import { deepEqual } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const urls = Array.from({ length: 20 }, (_, i) => `/page/${i}`)
const check = (url: string): number => {
  if (url.endsWith('/7')) throw new Error('404')
  return 200
}

// #region partial
const checked = asset('checked', {
  scatter: () => urls,
  scatterOptions: {
    failureMode: 'partial', // go on when an instance fails
    failureThreshold: 0.1, // the scatter fails when more than 10 % of its instances fail
    retry: { maxAttempts: 2, backoff: '50ms' },
  },
  execute: ({ scatterKey }) => check(scatterKey),
  gather: async (results) => {
    const broken: { url: string; why: string }[] = []
    for await (const result of results)
      if (result.status === 'failed') broken.push({ url: result.key, why: result.error.message })
    return broken
  },
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [checked]))
deepEqual(await (await flow.materialize(checked)).result(), [{ url: '/page/7', why: '404' }])
await flow.close()
