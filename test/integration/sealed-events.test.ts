import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline, schedule, sensor, subscription } from '../../src/index.ts'
import { Publisher } from '../events/kit.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** The time of which schedules are backfilled. */
function past(ms: number): { from: Date; to: Date } {
  return { from: new Date(Date.now() - ms), to: new Date(Date.now() - 500) }
}

it('facts of triggers, subscriptions, schedules and sensors leave the log, and all goes on as before', {
  timeout: 180_000,
}, async () => {
  const namespace = freshNamespace()
  await using publisher = await Publisher.connect(server.url)
  const { nc } = publisher
  await publisher.stream(`IN-${namespace}`, [`${namespace}-in.>`])
  const made: string[] = []
  const cursors: unknown[] = []
  let isFixed = false
  const word = input('word', z.string())
  const words = input('words', z.array(z.string()))
  const say = asset('say', { dependsOn: [word], execute: (_, deps) => made.push(deps.word) })
  const count = asset('count', { dependsOn: [words], execute: (_, deps) => made.push(deps.words.join('+')) })
  const plain = asset('plain', { execute: () => made.push('plain') })
  const from = (name: string) => ({ stream: `IN-${namespace}`, subject: `${namespace}-in.${name}` })
  const heard = subscription('heard', {
    from: from('one'),
    run: say,
    input: (message) => {
      const { text } = message.json<{ text: string }>()
      if (text === 'bad' && !isFixed) throw new Error('bad')
      return { word: text }
    },
  })
  const grouped = subscription('grouped', {
    from: from('many'),
    run: count,
    input: (message) => ({ words: message.json<{ text: string }>().text }),
    batch: { maxItems: 2, maxWait: '1h' },
  })
  const nightly = schedule('nightly', { every: '1s', run: plain })
  const watched = sensor('watched', {
    every: '1s',
    run: say,
    evaluate: (_ctx, cursor: number | undefined) => {
      cursors.push(cursor)
      return { cursor: (cursor ?? 0) + 1, runs: [{ key: 'always', input: { word: 'sensed' } }] }
    },
  })
  const all = pipeline('p', [word, words, say, count, plain], {
    subscriptions: [heard, grouped],
    schedules: [nightly],
    sensors: [watched],
  })
  await using stage = await openStage(server.url, all, { namespace, sealAfter: '1s' })
  const { flow } = stage
  const jsm = await jetstreamManager(nc)
  const onLog = async (filter: string): Promise<number> => {
    const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${namespace}.log.0.${filter}` })
    return Object.values(info.state.subjects ?? {}).reduce((sum, n) => sum + n, 0)
  }
  const trigger = async (name: string, msgID: string): Promise<void> => {
    await jetstream(nc).publish(`${namespace}.trigger.p.${name}`, '', { msgID })
  }

  const open = async (): Promise<number> => (await flow.runs({ status: ['requested', 'running'], limit: 1000 })).length

  for (const text of ['a', 'b', 'bad']) publisher.send(`${namespace}-in.one`, { text })
  for (const text of ['c', 'd', 'e']) publisher.send(`${namespace}-in.many`, { text })
  await trigger('plain', 'first')
  await trigger('nothing', 'wrong')
  const asked = await flow.schedules.trigger('nightly', { key: 'by hand' })
  await asked.result()
  await until('all was heard', () => ['a', 'b', 'c+d', 'sensed'].every((one) => made.includes(one)))
  await until('it was refused', async () => (await flow.events.refused()).length === 1)
  isFixed = true
  await flow.events.retry('p/heard', 3)
  await flow.schedules.backfill('nightly', { ...past(3000), key: 'again' })
  await until('occurrences were fired', async () => (await flow.schedules.get('nightly')).fired >= 3)
  await flow.schedules.pause('nightly')
  await flow.sensors.pause('watched')
  await until('the rest has ended', async () => made.includes('bad') && (await open()) === 0)
  const [schedules, events] = [await flow.schedules.list(), await flow.events.list()]
  const sensed = await flow.sensors.get('watched')

  await until('their facts have left the log', async () => {
    // What is newest stays, so something newer is made.
    await (await flow.materialize(plain, { upstream: 'all' })).result()
    const of = ['trigger.*.received', 'schedule.*.*.due.*', 'schedule.*.*.hold.*', 'schedule.*.*.triggered.*']
    const more = ['schedule.*.*.backfill_requested.*', 'sensor.>', 'subscription.*.*.retried.*.*', 'run.*.planned']
    const left = await Promise.all([...of, ...more].map(onLog))
    return left.every((n) => n === 0) && (await onLog('subscription.*.*.taken.*.*')) === 2
  })
  expect(await onLog('subscription.*.*.refused.*.*')).toBe(0)
  expect(await flow.schedules.list()).toEqual(schedules)
  expect(await flow.events.list()).toEqual(events)
  expect(await flow.events.refused()).toEqual([])
  expect(await flow.triggers.refused()).toMatchObject([{ asset: 'nothing', msgId: 'wrong' }])
  expect((await flow.schedules.occurrences('nightly')).length).toBeGreaterThanOrEqual(3)

  // A state that is made again knows as much.
  await stage.engine?.stop()
  await flow.rebuild()
  const next = await flow.engine({ sealAfter: '1s' })
  await next.active
  expect(await flow.schedules.list()).toEqual(schedules)
  expect(await flow.events.list()).toEqual(events)
  expect(await flow.sensors.get('watched')).toEqual(sensed)

  // What was asked for once is not done again.
  const before = made.length
  const again = await flow.schedules.trigger('nightly', { key: 'by hand' })
  expect([again.id, again.isNew]).toEqual([asked.id, false])
  await flow.schedules.backfill('nightly', { ...past(60_000), key: 'again' })
  await trigger('plain', 'first')
  await flow.sensors.trigger('watched')
  await until('the sensor was evaluated', () => cursors.at(-1) === sensed.cursor)
  publisher.send(`${namespace}-in.many`, { text: 'f' })
  publisher.send(`${namespace}-in.one`, { text: 'g' })
  await until('the new ones were heard', () => made.includes('e+f') && made.includes('g'))
  await until('nothing is open', async () => (await open()) === 0)
  expect(made.slice(before).toSorted()).toEqual(['e+f', 'g'])
})
