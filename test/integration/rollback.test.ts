import { expect, it } from 'vitest'
import { asset, pipeline, schedule, sensor } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

const report = asset('report', { execute: () => 'done' })
const before = pipeline('p', [report], {
  schedules: [schedule('each', { every: '1s', run: report, overlap: 'allow' })],
  sensors: [sensor('files', { every: '1h', run: report, evaluate: () => ({ cursor: undefined, runs: [] }) })],
})
const after = pipeline('p', [report])

it('a worker of an earlier version brings its schedules and sensors back, once no worker of the later one is there', async () => {
  await using stage = await openStage(server.url, before, { shards: 2 })
  const { flow } = stage
  await until('it has fired', async () => (await flow.schedules.get('each')).fired >= 1)
  await stage.worker?.stop()
  const newer = await (await stage.connect()).worker(after)
  await until('it has stopped', async () => (await flow.schedules.list()).length === 0)
  const stoppedMs = Date.now()
  const { fired } = (await flow.schedules.list({ removed: true }))[0] ?? {}

  // As one that restarts in a rolling deploy: nothing changes while workers of the later one run.
  await (await stage.connect()).worker(before)
  await until('it has seen them', () => stage.lines.some((line) => line.includes('is not the current one')))
  expect(await flow.schedules.list()).toEqual([])

  await newer.stop()
  const backMs = Date.now()
  await until('both are back', async () => {
    return (await flow.schedules.list()).length === 1 && (await flow.sensors.list()).length === 1
  })
  await until('it fires again', async () => (await flow.schedules.get('each')).fired > (fired ?? 0))
  // What was due in between never fires.
  const all = await flow.schedules.occurrences('each')
  const between = all.filter(({ what, at }) => what !== 'skipped' && at.getTime() > stoppedMs && at.getTime() < backMs)
  expect(between).toEqual([])
  const run = await flow.request('p/report')
  const [requested] = await factsOf(flow, run.id)
  expect(requested).toMatchObject({ kind: 'run.requested', data: { version: before.spec.version } })
})
