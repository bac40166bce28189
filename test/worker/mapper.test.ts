import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline, subscription } from '../../src/index.ts'
import type { Io } from '../../src/io/manager.ts'
import { Mapper } from '../../src/worker/events/mapper.ts'

it('a filter that is waited for refuses the message, also where its promise is of another make', async () => {
  const order = input('order', z.object({ id: z.string() }))
  const invoice = asset('invoice', { dependsOn: [order], execute: () => 1 })
  // biome-ignore lint/suspicious/noThenProperty: as the promises of another realm have it
  const later = { then: (resolve: (kept: boolean) => void) => resolve(true) }
  const filter = (): boolean => later as unknown as boolean
  const on = subscription('on', { from: { subject: 'orders' }, run: invoice, filter })
  const { spec } = pipeline('p', [order, invoice], { subscriptions: [on] })
  const payload = Buffer.from('{"id":"a"}')
  const message = { subject: 'orders', payload, headers: new Map<string, string>(), seq: 1, timeMs: 0 }
  const event = await new Mapper(spec, on, {} as Io).map(message)
  expect(event?.refused).toBe('filter: the function returned a promise, and messages are not waited for')
})
