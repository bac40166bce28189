import { expect, it } from 'vitest'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { type Running, runCommand, startCommand, writeModule } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const SLOW = `
import { writeFileSync } from 'node:fs'
import { asset, pipeline } from 'flowstone'
const slow = asset('slow', {
  execute: async () => {
    writeFileSync('runs', '')
    await new Promise((resolve) => setTimeout(resolve, 60_000))
  },
})
export default pipeline('slow', [slow])
`
const EMPTY = ['--health-port', '0']

async function addressOf(process: Running): Promise<string> {
  await process.says('/readyz')
  return /health {3}(http:\/\/127\.0\.0\.1:\d+)\/healthz/.exec(process.stdout())?.[1] ?? ''
}

async function get(url: string): Promise<[number, string]> {
  const response = await fetch(url)
  return [response.status, (await response.text()).trim()]
}

it('engine and worker say whether they are ready, also while they finish what runs', async () => {
  await using stage = await openStage(server.url, [], { engine: false, worker: false })
  using scratch = scratchFolder()
  const where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  writeModule(scratch.path, 'pipeline.ts', SLOW)
  await using engine = startCommand(['engine', ...EMPTY], where)
  await using worker = startCommand(['worker', 'pipeline.ts', '--drain', '60s', ...EMPTY], where)
  for (const process of [engine, worker]) {
    const at = await addressOf(process)
    await until('it is ready', async () => (await get(`${at}/readyz`))[0] === 200)
    expect(await get(`${at}/healthz`)).toEqual([200, 'ok'])
    expect((await get(`${at}/`))[0]).toBe(404)
  }
  const run = await stage.flow.request('slow/slow')
  await until('its code runs', async () => (await run.status())?.assets.slow?.status === 'running')
  worker.child.kill('SIGTERM')
  await worker.says('finishing 1 task')
  const at = await addressOf(worker)
  expect(await get(`${at}/readyz`)).toEqual([503, 'it stops'])
  expect(await get(`${at}/healthz`)).toEqual([200, 'ok'])
  worker.child.kill('SIGTERM')
  await worker.ended
})

it('an engine refuses a port of health or metrics that is none, and a host without one', async () => {
  using scratch = scratchFolder()
  writeModule(scratch.path, 'pipeline.ts', SLOW)
  const said = async (...args: string[]) => (await runCommand(['engine', ...args], { cwd: scratch.path })).stderr
  for (const port of ['http', '70000', '-1'])
    expect(await said(`--health-port=${port}`)).toContain(
      `--health-port must be 0 (any free one) to 65535, got ${port}`,
    )
  expect(await said('--health-host', '0.0.0.0')).toContain('--health-host needs --health-port')
  const worker = await runCommand(['worker', 'pipeline.ts', '--metrics-port', '70000'], { cwd: scratch.path })
  expect(worker.stderr).toContain('--metrics-port must be 0 (any free one) to 65535, got 70000')
})
