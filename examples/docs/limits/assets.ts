import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const urls = ['https://a.example/1', 'https://a.example/2', 'https://b.example/1'].map((url) => ({
  url,
}))
// #region assets
const pages = asset('pages', {
  scatter: () => urls,
  scatterOptions: {
    // One bucket for each host: a slow host does not delay the others.
    rateLimit: {
      bucket: ({ url }) => `host:${new URL(url).host}`,
      limit: 5,
      per: 'second',
      shape: 'smooth',
    },
  },
  execute: ({ scatterKey }) => scatterKey.url,
})

const summaries = asset('summaries', {
  dependsOn: [pages],
  scatter: ({ pages }) => pages.map(({ value }) => value),
  scatterOptions: {
    rateLimit: { bucket: 'openai', limit: 60, per: 'minute' }, // shared with all who use this name
    slots: { bucket: 'gpu', max: 4, weight: 2 }, // held while an instance runs
  },
  execute: ({ scatterKey }) => scatterKey.length,
})

const model = asset('model', {
  dependsOn: [summaries],
  slots: { bucket: 'gpu', max: 4 },
  execute: () => 'trained',
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [pages, summaries, model]))
equal(await (await flow.materialize(model)).result(), 'trained')
await flow.close()
