/** Runs that messages start: one for each order, and one for each list of changes. */
import { z } from 'zod'
import { asset, input, pipeline, subscription } from '../../../src/index.ts'

const order = input('order', z.object({ id: z.string() }))
const billed = asset('billed', { dependsOn: [order], execute: (_, deps) => deps.order.id })
const changes = input('changes', z.array(z.object({ of: z.string(), n: z.number() })))
const report = asset('report', { dependsOn: [changes], execute: (_, deps) => deps.changes.map(({ n }) => n) })

const ordered = subscription('ordered', {
  from: { stream: 'ORDERS' },
  run: billed,
  key: (message) => message.json().id,
  partition: (message) => message.json().id,
})
const changed = subscription('changed', {
  from: { stream: 'CHANGES' },
  run: report,
  debounce: { key: (message) => message.json().of, wait: '4s', take: 'all' },
})
export const events = pipeline('events', [order, billed, changes, report], { subscriptions: [ordered, changed] })
