import { describe, expect, it } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { encodeJson, encodeMsgpack } from '../../streams/codec.ts'
import { encodeFact } from '../../streams/facts.ts'
import { runIdForKey } from '../../streams/ids.ts'
import { type DraftOf, registered, Sim, spec } from './harness.ts'

interface Message {
  subject?: string
  body?: unknown
  payload?: Uint8Array
  contentType?: string
  msgId?: string
}

function send(sim: Sim, { subject = 'shop.orders', body, payload, contentType, msgId }: Message = {}) {
  const bytes = payload ?? (body === undefined ? new Uint8Array() : encodeJson(body))
  return sim.trigger({ subject, payload: bytes, contentType, msgId })
}

function withPipelines(...drafts: DraftOf<'pipeline.registered'>[]): Sim {
  const sim = new Sim()
  for (const draft of drafts) sim.apply(draft)
  return sim
}

const shop = registered([spec('orders'), spec('bill', { dependsOn: ['orders'] })], 'shop')
const other = registered([spec('orders')], 'other')

describe('a trigger', () => {
  it('without a body asks for the asset and all that is upstream', () => {
    const sim = withPipelines(shop)
    send(sim)
    expect(sim.facts('run.requested')[0]?.data).toMatchObject({
      pipeline: 'shop',
      version: 'v1',
      target: 'orders',
      upstream: 'all',
    })
  })

  it('takes partition, upstream and key from its body, as JSON or as MessagePack', () => {
    const subject = 'other.orders'
    const body = { partition: 'a/b', upstream: 'all', key: 'once' }
    for (const message of [
      { subject, body },
      { subject, payload: encodeMsgpack(body), contentType: 'application/msgpack' },
    ]) {
      const sim = withPipelines(shop, other)
      send(sim, message)
      const fact = sim.facts('run.requested')[0]
      expect(fact?.data).toMatchObject({ ...body, pipeline: 'other', target: 'orders' })
      expect(fact?.ids.run).toBe(runIdForKey('once', 1))
    }
  })

  it('with the same message id leads to one run, however late it comes again', () => {
    const sim = withPipelines(shop)
    send(sim, { msgId: 'm1' })
    send(sim, { msgId: 'm1' })
    send(sim, { msgId: 'm2' })
    expect(sim.facts('run.requested')).toHaveLength(2)
    expect(sim.facts('run.requested')[0]?.data.trigger?.msgId).toBe('m1')
  })

  it('without one is a run each time', () => {
    const sim = withPipelines(shop)
    send(sim)
    send(sim)
    expect(new Set(sim.facts('run.requested').map(({ ids }) => ids.run)).size).toBe(2)
  })

  const refusals: [string, Message, RegExp][] = [
    [
      'an asset that its pipeline has not',
      { subject: 'shop.ordres' },
      /pipeline shop has no asset ordres; did you mean orders\?/,
    ],
    ['an asset of another pipeline', { subject: 'other.bill' }, /pipeline other has no asset bill/],
    ['a pipeline that nobody registered', { subject: 'shp.bill' }, /no pipeline shp is registered; start a worker/],
    [
      'a pipeline named like a method of objects',
      { subject: 'constructor.bill' },
      /no pipeline constructor is registered/,
    ],
    ['a subject without a pipeline', { subject: 'orders' }, /subject must end in trigger\.<pipeline>\.<asset>/],
    ['a subject with more in it', { subject: 'shop.orders.x' }, /subject must end in trigger\.<pipeline>\.<asset>/],
    ['a pipeline in its body', { body: { pipeline: 'other' } }, /pipeline.*allowed are partition, upstream, key/],
    ['what is no JSON', { payload: new TextEncoder().encode('{') }, /payload is not application\/json/],
    ['what is no object', { body: [1] }, /body: /],
    ['null', { body: null }, /body: /],
    ['an option there is not', { body: { shards: 'x' } }, /shards.*allowed are partition, upstream, key/],
    ['an upstream there is not', { body: { upstream: 'some' } }, /upstream: /],
    ['an empty key', { body: { key: '' } }, /key: /],
    ['a body too large', { body: { partition: 'x'.repeat(33_000) } }, /^body: it has 33016 bytes, of at most 32768$/],
    ['a partition too long', { body: { partition: 'x'.repeat(513) } }, /partition: /],
  ]
  it.each(refusals)('for %s is refused with the reason', (_, message, reason) => {
    const sim = withPipelines(shop, other)
    send(sim, { ...message, msgId: 'm9' })
    expect(sim.facts('run.requested')).toEqual([])
    const [refused] = sim.facts('trigger.refused')
    expect(refused?.data.reason).toMatch(reason)
    const subject = (message.subject ?? 'shop.orders').split('.')
    const of = subject.length === 2 ? { pipeline: subject[0], asset: subject[1] } : { asset: message.subject }
    expect(refused?.data).toMatchObject({ ...of, msgId: 'm9' })
  })

  const long = 'x'.repeat(10_000)
  it.each<[string, Message]>([
    ['subject', { subject: long }],
    ['subject of characters that take two', { subject: `x${'\u{1f600}'.repeat(5000)}` }],
    ['message id', { msgId: long }],
    ['content type', { contentType: long }],
    ['body', { payload: new Uint8Array(1_000_000) }],
  ])('with a %s without end is refused in few words, and copied in few', (_, message) => {
    const sim = withPipelines(shop)
    send(sim, message)
    expect(sim.facts('run.requested')).toEqual([])
    for (const fact of [...sim.facts('trigger.received'), ...sim.facts('trigger.refused')]) {
      expect(encodeFact(fact).payload.length).toBeLessThan(4096)
      expect(JSON.stringify(fact.data).isWellFormed()).toBe(true)
    }
    expect(sim.facts('trigger.refused')[0]?.data.reason).toMatch(/ of at most \d+$/)
  })
})

describe('a pipeline', () => {
  it('registered again in a newer version is run in that one, and running runs keep theirs', () => {
    const sim = withPipelines(shop)
    send(sim, { msgId: 'before' })
    sim.apply(registered([spec('orders', { queue: 'new' })], 'shop', 'v2'))
    send(sim, { msgId: 'after' })
    expect(sim.facts('run.requested').map(({ data }) => data.version)).toEqual(['v1', 'v2'])
    expect([...sim.work.values()].map(({ queue, task }) => [queue, task.version])).toEqual([
      ['default', 'v1'],
      ['new', 'v2'],
    ])
  })

  it('registered again in an earlier version is run in that one', () => {
    const sim = withPipelines(shop)
    sim.apply(registered([spec('orders', { queue: 'new' })], 'shop', 'v2'))
    expect(sim.docs.peek(stateKey.newest('shop'))?.version).toBe('v2')
    sim.apply(shop)
    expect(sim.docs.peek(stateKey.newest('shop'))?.version).toBe('v1')
    send(sim, { msgId: 'after' })
    expect(sim.facts('run.requested').map(({ data }) => data.version)).toEqual(['v1'])
  })
})
