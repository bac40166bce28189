import { expect, it } from 'vitest'
import { asset, pipeline, schedule, sensor } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { runCommand } from './kit.ts'

const server = useServer()

const report = asset('report', { execute: () => 'made' })
const yearly = schedule('yearly', { cron: '0 0 1 1 *', timeZone: 'Europe/Zurich', run: report })
const watch = sensor('watch', { every: '1h', run: report, evaluate: () => ({ cursor: 7, runs: [] }) })
const books = pipeline('books', [report], { schedules: [yearly], sensors: [watch] })

it('flowstone schedule and sensor list, preview, pause, trigger and backfill', async () => {
  using scratch = scratchFolder()
  await using stage = await openStage(server.url, books)
  const { flow, namespace } = stage
  const run = async (...args: string[]): Promise<string> => {
    const where = ['--server', server.url, '--namespace', namespace]
    const { code, stdout, stderr } = await runCommand([...args, ...where], { cwd: scratch.path })
    expect(stderr).toBe('')
    expect(code).toBe(0)
    return stdout
  }
  await until('the sensor was evaluated', async () => (await flow.sensors.list())[0]?.cursor === 7)
  expect(await run('schedule', 'preview', 'yearly', '--count', '2')).toMatch(
    /^\d{4}-12-31T23:00:00\.000Z\n\d{4}-12-31T23:/,
  )
  expect(await run('schedule', 'pause', 'yearly', '--reason', 'closed')).toBe('schedule yearly is paused\n')
  expect(await run('schedule', 'ls')).toMatch(/books\/yearly +paused +0 0 1 1 \* Europe\/Zurich/)
  expect(JSON.parse(await run('schedule', 'trigger', 'books/yearly', '--json'))).toMatchObject({
    run: expect.stringMatching(/^0-k/),
  })
  await run('schedule', 'backfill', 'yearly', '--from', '2023-01-01', '--to', '2025-01-01')
  await until('all have fired', async () => (await flow.schedules.get('yearly')).fired === 3)
  expect(await run('schedule', 'log', 'yearly')).toMatch(/2023-12-31T23:00:00\.000Z +fired +1 +backfill/)
  expect(await run('sensor', 'ls')).toMatch(/books\/watch +waiting/)
  expect(await run('sensor', 'pause', 'watch', '--reason', 'closed')).toBe('sensor watch is paused\n')
  expect(await run('sensor', 'ls')).toMatch(/books\/watch +paused/)
  expect(await run('sensor', 'trigger', 'books/watch')).toBe('sensor books/watch is evaluated\n')
  await until('it was evaluated', async () => (await flow.sensors.get('watch')).evaluations === 2)
  expect(await run('sensor', 'resume', 'watch')).toBe('sensor watch goes on\n')
  expect(await flow.sensors.get('watch')).toMatchObject({ state: expect.stringMatching(/waiting|evaluating/) })
})
