import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline, subscription } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { Publisher } from './kit.ts'

const server = useServer()

const change = z.object({ of: z.string(), n: z.number() })
const changes = input('changes', z.array(change).max(4))
const one = input('one', change)

describe('a batch', () => {
  it('goes on after engine and worker were stopped, and its run has all of it', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('BATCHED', ['batched'])
    const sums = asset('sums', { dependsOn: [changes], execute: (_, deps) => deps.changes.map(({ n }) => n) })
    const batched = subscription('batched', {
      from: { stream: 'BATCHED' },
      run: sums,
      batch: { maxItems: 3, maxWait: '3s' },
    })
    const all = pipeline('batched', [changes, sums], { subscriptions: [batched] })
    const namespace = freshNamespace()
    for (let n = 1; n <= 5; n++) publisher.send('batched', { of: 'x', n })
    {
      await using stage = await openStage(server.url, all, { namespace })
      await until('the first batch has run', async () => (await stage.flow.runs()).length === 1)
      publisher.send('batched', 'no json')
      await until('one is refused', async () => (await stage.flow.events.refused()).length === 1)
    }
    await using stage = await openStage(server.url, all, { namespace })
    await until('the second batch has run', async () => (await stage.flow.runs()).length === 2)
    const values = await Promise.all((await stage.flow.runs()).map(({ id }) => stage.flow.run(id).result()))
    expect(values.toSorted()).toEqual([
      [1, 2, 3],
      [4, 5],
    ])
    expect((await stage.flow.events.test(batched, { fromSeq: 1, count: 1 }))[0]).toMatchObject({
      outcome: 'waits',
      input: { changes: [{ of: 'x', n: 1 }] },
    })
  })

  it('that does not fit as a whole is refused', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('LARGE', ['large'])
    const sums = asset('sums', { dependsOn: [changes], execute: (_, deps) => deps.changes.length })
    const large = subscription('large', { from: { stream: 'LARGE' }, run: sums, batch: { maxItems: 5, maxWait: '1m' } })
    await using stage = await openStage(server.url, pipeline('large', [changes, sums], { subscriptions: [large] }))
    for (let n = 1; n <= 5; n++) publisher.send('large', { of: 'x', n })
    await until('it is refused', async () => (await stage.flow.events.refused()).length === 1)
    expect((await stage.flow.events.refused())[0]).toMatchObject({
      seq: 1,
      reason: expect.stringMatching(/^input\.changes: /),
    })
    expect(await stage.flow.runs()).toEqual([])
  })
})

it('messages that are debounced start one run of the last one for each key, also over a restart', async () => {
  await using publisher = await Publisher.connect(server.url)
  await publisher.stream('EDITED', ['edited'])
  const page = asset('page', { dependsOn: [one], execute: (_, deps) => `${deps.one.of}${deps.one.n}` })
  const edited = subscription('edited', {
    from: { stream: 'EDITED' },
    run: page,
    debounce: { key: (message) => message.json().of, wait: '3s' },
  })
  const all = pipeline('edited', [one, page], { subscriptions: [edited] })
  const namespace = freshNamespace()
  const send = (n: number): void => {
    for (const of of ['a', 'b']) publisher.send('edited', { of, n })
  }
  const position = async (flow: {
    readonly events: { test(of: typeof edited): Promise<unknown[]> }
  }): Promise<boolean> => (await flow.events.test(edited)).length === 0
  {
    await using stage = await openStage(server.url, all, { namespace })
    send(1)
    send(2)
    await publisher.nc.flush()
    await until('they are taken', async () => await position(stage.flow))
  }
  send(3)
  await using stage = await openStage(server.url, all, { namespace })
  await until('both have run', async () => {
    const runs = await stage.flow.runs()
    return runs.filter(({ status }) => status === 'succeeded').length >= 2 && (await position(stage.flow))
  })
  const runs = await stage.flow.runs()
  const values = await Promise.all(runs.map(({ id }) => stage.flow.run(id).result()))
  // A machine that is slow to start again lets the first ones have a run of their own.
  expect(values.filter((value) => value === 'a3' || value === 'b3').toSorted()).toEqual(['a3', 'b3'])
  expect(values).not.toContain('a1')
})
