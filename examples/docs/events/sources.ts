import { z } from 'zod'
import { asset, input, subscription } from '../../../src/index.ts'

const price = input('price', z.object({ product: z.string(), euros: z.number() }))
const label = asset('label', {
  dependsOn: [price],
  execute: (_ctx, { price }) => `${price.product}: ${price.euros} €`,
})

// A stream that is there. Messages of other subjects are left to others.
export const fromStream = subscription('from-stream', {
  from: { stream: 'PRICES', subject: 'prices.changed', start: 'new' },
  run: label,
})

// A subject: FlowStone makes a stream for it.
export const fromSubject = subscription('from-subject', {
  from: { subject: 'prices.announced' },
  run: label,
})

// Changes of a key-value bucket.
export const fromBucket = subscription('from-bucket', {
  from: { bucket: 'prices', key: 'fruit.*' },
  run: label,
  filter: (message) => message.operation === 'PUT',
  input: (message) => ({ price: { product: message.key ?? '', euros: Number(message.text()) } }),
  partition: (message) => message.key,
  tags: (message) => ({ bucket: message.bucket ?? '' }),
})
