import { z } from 'zod'
import { asset, input, pipeline, subscription } from '../../../src/index.ts'

const change = z.object({ product: z.string(), pieces: z.number() })
const changes = input('changes', z.array(change))
const stock = asset('stock', {
  dependsOn: [changes],
  execute: (_ctx, { changes }) => changes.reduce((sum, { pieces }) => sum + pieces, 0),
})

// One run for up to 100 messages, at the latest 5 seconds after the first of them.
const booked = subscription('booked', {
  from: { subject: 'stock.booked' },
  run: stock,
  batch: { maxItems: 100, maxWait: '5s' },
})

const page = input('page', z.object({ product: z.string() }))
const rendered = asset('rendered', {
  dependsOn: [page],
  execute: (_ctx, { page }) => `<h1>${page.product}</h1>`,
})

// One run when nobody has edited the page for 10 seconds, at the latest after a minute.
const edited = subscription('edited', {
  from: { subject: 'pages.edited' },
  run: rendered,
  debounce: { key: (message) => message.json().product, wait: '10s', maxWait: '1m' },
})

export const shop = pipeline('shop', [changes, stock, page, rendered], {
  subscriptions: [booked, edited],
})
