import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { runCommand, type Where } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()
let broken = true
const name = input('name', z.string())
const words = asset('words', {
  dependsOn: [name],
  scatter: () => ['a', 'bb', 'ccc'],
  scatterOptions: { retry: { maxAttempts: 2, backoff: '10ms..20ms' }, failureMode: 'partial' },
  execute: ({ scatterKey }) => {
    if (broken && scatterKey === 'bb') throw new Error('not this one')
    return scatterKey.length
  },
})
const hello = asset('hello', { dependsOn: [name, words], execute: (_ctx, { name }) => `hello ${name}` })
const slow = asset('slow', {
  execute: async ({ signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    signal.throwIfAborted()
  },
})
const all = pipeline('greetings', [name, words, hello, slow])

let stage: Stage
let at: Where
beforeAll(async () => {
  stage = await openStage(server.url, all)
  at = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

it('a run is started by name without its code, its failures are listed, and it is tried again', async () => {
  const first = await runCommand(['run', 'greetings/hello', '--input', 'name="moon"', '--tag', 'a=b'], at)
  expect(first).toMatchObject({ code: 1, stdout: '' })
  const [, id = ''] = /run (0-\S+)/.exec(first.stderr) ?? []

  const failures = await runCommand(['scatter', 'failures', `${id}.words`], at)
  expect(failures.stdout).toMatch(/^ +1 {2}"bb" {2}2 attempts {2}.*not this one\n$/)
  const json = await runCommand(['scatter', 'failures', `${id}.words`, '--json'], at)
  expect(JSON.parse(json.stdout)).toMatchObject({
    index: 1,
    key: 'bb',
    attempts: 2,
    error: { message: 'not this one' },
  })

  broken = false
  const second = await runCommand(['retry', id], at)
  expect(second).toMatchObject({ code: 0, stdout: '"hello moon"\n' })
  const [, again = ''] = /run (0-\S+)/.exec(second.stderr) ?? []
  const shown = await runCommand(['status', again], at)
  expect(shown.stdout).toMatch(new RegExp(`retryOf +${id}`))

  const refused = await runCommand(['retry', again], at)
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('name the asset from which: --from ASSET')
  const third = await runCommand(['retry', again, '--from', 'hello', '--input', '{"name":"sun"}', '--json'], at)
  expect(JSON.parse(third.stdout)).toMatchObject({ value: 'hello sun' })
})

it.each([
  [['value', 'greetings/helo'], 'pipeline greetings has no asset helo; did you mean hello?'],
  [['value', 'helo'], 'no pipeline has an asset helo; did you mean hello?'],
  [['value', 'slow', '--at', '1s'], 'asset greetings/slow has no value'],
  [['run', 'helo'], 'no pipeline has an asset helo; did you mean hello?'],
  [['status', '--target', 'helo', '--watch'], 'no pipeline has an asset helo; did you mean hello?'],
  [['event', 'refused', '--subscription', 'none'], 'no pipeline has a subscription none'],
  [['value', 'greetings/slow'], 'asset greetings/slow has no value'],
  [['value', 'greeting/hello', '--at', '1s'], 'there is no pipeline greeting; did you mean greetings?'],
  [['status', '--target', 'greetings/helo'], 'pipeline greetings has no asset helo; did you mean hello?'],
  [['status', '--target', 'greetings/helo', '--watch'], 'pipeline greetings has no asset helo'],
  [['why', 'greeting/hello'], 'there is no pipeline greeting; did you mean greetings?'],
  [['run', 'greeting/hello'], 'start a worker of it first; did you mean greetings?'],
  [['logs', 'RUN.helo'], 'has no asset helo; did you mean hello?'],
  [['log', 'show', '0-gone'], 'there is no run 0-gone'],
  [['gate', 'ls', '--run', '0-gone'], 'there is no run 0-gone'],
  [['event', 'refused', '--subscription', 'greetings/none'], 'pipeline greetings has no subscription none'],
  [['prune', '--pipeline', 'greeting', '--dry-run'], 'there is no pipeline greeting; did you mean greetings?'],
  [['export', '--pipeline', 'greeting'], 'there is no pipeline greeting; did you mean greetings?'],
] as const)('the command says that what was named is not there: %j', async (words, message) => {
  const run = await stage.flow.request('greetings/hello', { input: { name: 'x' }, key: 'one' })
  await run.result()
  const args = words.map((word) => word.replace('RUN', run.id))
  const { code, stderr } = await runCommand(args, at)
  expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(message) })
})

it('an asset that one pipeline has is found by its name alone', async () => {
  const made = await runCommand(['run', 'hello', '--input', '{"name":"sun"}', '--json'], at)
  const { run } = JSON.parse(made.stdout) as { run: string }
  expect(JSON.parse((await runCommand(['value', 'hello', '--run', run, '--json'], at)).stdout)).toMatchObject({
    value: 'hello sun',
  })
  expect((await runCommand(['status', '--all', '--target', 'hello'], at)).stdout).toContain(run)
})

it('a limit that is not in use is said beside those that are', async () => {
  await stage.flow.limiter.take('api', { limit: 5, per: 'hour' })
  expect((await runCommand(['limit', 'show', 'apo'], at)).stdout).toContain('not in use; did you mean api?')
  expect((await runCommand(['limit', 'reset', 'apo'], at)).stdout).toBe('limit apo was not in use; did you mean api?\n')
  expect((await runCommand(['limit', 'reset', 'api'], at)).stdout).toBe('limit api is free\n')
})

it('the facts of a run and what it logged say when by one name, as all JSON of the command does', async () => {
  const run = await stage.flow.request('greetings/hello', { input: { name: 'x' }, key: 'one' })
  await run.result()
  const facts = await runCommand(['log', 'show', run.id, '--json'], at)
  const audit = await runCommand(['audit', '--json'], at)
  const why = await runCommand(['why', run.id, '--json'], at)
  const all: Record<string, unknown>[] = [
    ...facts.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
    ...JSON.parse(audit.stdout),
    JSON.parse(why.stdout).verdict.fact,
  ]
  for (const one of all) expect(one).toMatchObject({ at: expect.stringMatching(/^\d{4}-/) })
  expect(all.filter((one) => 'time' in one)).toEqual([])
})

it('a run is cancelled, with a reason', async () => {
  const run = await stage.flow.request('greetings/slow')
  await until('it runs', async () => (await run.view())?.assets.slow?.status === 'running')
  const done = await runCommand(['cancel', run.id, '--reason', 'not needed'], at)
  expect(done).toMatchObject({ code: 0, stdout: `run ${run.id} is being cancelled\n` })
  await expect(run.result()).rejects.toMatchObject({ code: 'cancelled' })
  await until('the state shows it', async () => (await run.view())?.finishedAt !== undefined)
  const late = await runCommand(['cancel', run.id, '--json'], at)
  expect(JSON.parse(late.stdout)).toEqual({ run: run.id, ended: 'cancelled' })
  expect((await runCommand(['cancel', '0-gone'], at)).stderr).toContain('there is no run 0-gone')
})
