import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline, sensor } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

it('a sensor gets its cursor, starts the runs that it asks for, and is evaluated again when it has failed', async () => {
  const file = input('file', z.object({ name: z.string() }))
  const load = asset('load', { dependsOn: [file], execute: (_, deps) => deps.file.name })
  const seen: (number | undefined)[] = []
  let broken = false
  const files = sensor('files', {
    every: '1s',
    run: load,
    evaluate: (_ctx, cursor: number | undefined) => {
      seen.push(cursor)
      if (broken) throw new TypeError('the folder is gone')
      const n = (cursor ?? 0) + 1
      const own = { input: { file: { name: `f${n}` } }, partition: `p${n}`, tags: { from: 'files' } }
      return { cursor: n, runs: [own, { input: { file: { name: 'always' } }, key: 'always' }] }
    },
  })
  await using stage = await openStage(server.url, pipeline('p', [file, load], { sensors: [files] }), { shards: 2 })
  const { flow } = stage
  await until('three files are loaded', async () => (await flow.runs()).filter((run) => run.finishedAt).length >= 4)
  const runs = (await flow.runs()).filter(({ status }) => status === 'succeeded')
  const names = await Promise.all(runs.map((run) => flow.run(run.id).result()))
  expect(names.filter((name) => name === 'always')).toHaveLength(1)
  expect(names).toEqual(expect.arrayContaining(['f1', 'f2', 'f3', 'always']))
  expect(runs.every(({ sensor }) => sensor === 'files')).toBe(true)
  expect(seen.slice(0, 3)).toEqual([undefined, 1, 2])

  broken = true
  await until('two evaluations have failed', async () => ((await flow.sensors.list())[0]?.failures ?? 0) >= 2)
  const [view] = await flow.sensors.list()
  expect(view).toMatchObject({ name: 'p/files', target: 'load', error: { message: 'the folder is gone' } })
  const { cursor } = view ?? {}
  broken = false
  await until('it goes on', async () => (await flow.sensors.list())[0]?.failures === 0)
  // Each cursor that was stored was given once; failures gave the same one again.
  const tried = seen.filter((one) => one === cursor)
  expect(tried.length).toBeGreaterThanOrEqual(3)
  const cursors = seen.map((one) => one ?? 0)
  expect(cursors).toEqual(cursors.toSorted((a, b) => a - b))
})

it('large input that a sensor asks for is kept in the object store', async () => {
  const text = input('text', z.string())
  const length = asset('length', { dependsOn: [text], execute: (_, deps) => deps.text.length })
  const large = sensor('large', {
    every: '1h',
    run: length,
    evaluate: () => ({ cursor: 1, runs: [{ input: { text: 'x'.repeat(2_000_000) } }] }),
  })
  await using stage = await openStage(server.url, pipeline('p', [text, length], { sensors: [large] }))
  const { flow } = stage
  await until('its run is there', async () => (await flow.runs()).length === 1)
  expect(await flow.run((await flow.runs())[0]?.id ?? '').result()).toBe(2_000_000)
})

it('a sensor that asks for what cannot be has failed, and starts nothing', async () => {
  const file = input('file', z.object({ name: z.string() }))
  const load = asset('load', { dependsOn: [file], execute: (_, deps) => deps.file.name })
  const runs: unknown = [{ input: { file: { name: 'fine' } } }, { input: { file: { name: 5 } } }]
  const files = sensor('files', { every: '1s', run: load, evaluate: () => ({ cursor: 1, runs: runs as never[] }) })
  await using stage = await openStage(server.url, pipeline('p', [file, load], { sensors: [files] }))
  const { flow } = stage
  await until('it has failed', async () => ((await flow.sensors.list())[0]?.failures ?? 0) >= 1)
  expect((await flow.sensors.list())[0]).toMatchObject({
    cursor: undefined,
    error: { message: expect.stringMatching(/sensor files: runs\[1\]: input\.file\.name: /) },
  })
  expect(await flow.runs()).toEqual([])
})

it('a sensor is paused, triggered and resumed by hand, also over a change of engines', async () => {
  let count = 0
  const load = asset('load', { execute: () => 'made' })
  const files = sensor('files', { every: '1s', run: load, evaluate: () => ({ cursor: ++count, runs: [] }) })
  await using stage = await openStage(server.url, pipeline('p', [load], { sensors: [files] }))
  const { flow } = stage
  await until('it was evaluated', async () => (await flow.sensors.get('files')).evaluations >= 1)
  await flow.sensors.pause('p/files', 'the disk is full')
  await until('none goes on', async () => (await flow.sensors.get('files')).run === undefined)
  const paused = await flow.sensors.get('files')
  expect(paused).toMatchObject({ state: 'paused', pausedBecause: 'the disk is full', next: undefined })
  await stage.engine?.stop()
  const other = await (await stage.connect()).engine()
  await other.active
  await flow.sensors.trigger('files')
  await until('it was evaluated once', async () => (await flow.sensors.get('files')).cursor === count)
  expect(await flow.sensors.get('files')).toMatchObject({ state: 'paused', evaluations: paused.evaluations + 1 })
  await flow.sensors.resume('files')
  await until('it goes on', async () => (await flow.sensors.get('files')).evaluations > paused.evaluations + 1)
  // Its evaluations bring values, of an asset that nobody has written.
  expect((await flow.diff(1)).assets).toEqual([])
  expect((await rejection(flow.sensors.pause('fils'))).message).toBe('there is no sensor fils; there are: p/files')
})
