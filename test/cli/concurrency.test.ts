import { afterAll, beforeAll, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { type Ended, runCommand, type Where } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()
const held = asset('held', {
  execute: async ({ signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    signal.throwIfAborted()
  },
})

let stage: Stage
let at: Where
beforeAll(async () => {
  stage = await openStage(server.url, pipeline('jobs', [held]))
  at = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

async function ask(...options: string[]): Promise<Ended> {
  return await runCommand(['run', 'jobs/held', ...options], at)
}

async function start(...options: string[]): Promise<string> {
  const { code, stdout } = await ask('--no-wait', ...options)
  expect(code).toBe(0)
  return /0-\S+/.exec(stdout)?.[0] ?? ''
}

async function becomes(run: string, status: string): Promise<void> {
  await until(`${run} is ${status}`, async () => (await stage.flow.run(run).view())?.status === status)
}

it('flowstone run takes the concurrency of a run: it waits, is skipped, or takes the place of another one', async () => {
  const limited = ['--concurrency-key', 'acme', '--concurrency-limit', '1']
  const first = await start(...limited)
  await becomes(first, 'running')
  const second = await start(...limited)
  await becomes(second, 'queued')
  expect(await stage.flow.run(second).view()).toMatchObject({
    concurrency: { key: 'acme', limit: 1, onConflict: 'queue' },
  })
  const other = await start('--concurrency-key', 'other', '--concurrency-limit', '1')
  await becomes(other, 'running')

  const skipped = await ask(...limited, '--on-conflict', 'skip')
  expect(skipped.code).toBe(1)
  expect(skipped.stderr).toContain(first)
  expect(skipped.stdout).toBe('')

  const third = await start(...limited, '--on-conflict', 'cancel_running')
  await becomes(first, 'cancelled')
  await becomes(third, 'running')
  expect((await stage.flow.run(second).view())?.status).toBe('queued')
  for (const run of [third, second, other]) await stage.flow.run(run).cancel()
})

it('flowstone run names the concurrency option that is wrong, and starts nothing', async () => {
  const before = (await stage.flow.runs()).length
  for (const [options, message] of [
    [['--concurrency-key', 'acme'], '--concurrency-key and --on-conflict need --concurrency-limit'],
    [['--concurrency-limit', '0'], 'must be a whole number'],
    [
      ['--concurrency-limit', '1', '--on-conflict', 'wait'],
      '--on-conflict must be queue, skip or cancel_running, got "wait"',
    ],
  ] as const) {
    const { code, stdout, stderr } = await ask(...options)
    expect({ options, code, stdout }).toEqual({ options, code: 2, stdout: '' })
    expect(stderr).toContain(message)
  }
  expect(await stage.flow.runs()).toHaveLength(before)
})
