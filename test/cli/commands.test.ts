import { rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { useServer } from '../kit/fixture.ts'
import { parseMetrics, seriesValue } from '../kit/prometheus.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { runCommand, startCommand, type Where, writeModule } from './kit.ts'

const scratch = scratchFolder()
const server = useServer()
let at: Where
let namespace: string

/** What the asset `slow` waits for. */
const go = join(scratch.path, 'go')

const PIPELINE = `
import { existsSync } from 'node:fs'
import { asset, pipeline } from 'flowstone'
export const greeting = asset('greeting', { execute: (ctx) => 'hello ' + (ctx.partition ?? 'world') })
export const broken = asset('broken', { execute: () => { throw new Error('no such luck') }, retry: { maxAttempts: 1 } })
export const words = asset('words', {
  scatter: () => ['a', 'bb', 'ccc'],
  scatterOptions: { retry: { maxAttempts: 1 }, failureMode: 'partial', failureThreshold: { count: 1 } },
  execute: (ctx) => { if (ctx.scatterKey === 'bb') throw new Error('not this one'); return ctx.scatterKey.length },
})
export const slow = asset('slow', {
  execute: async () => {
    while (!existsSync('go')) await new Promise((resolve) => setTimeout(resolve, 10))
    return 'slow and done'
  },
})
export default pipeline('greetings', [greeting, broken, words, slow])
`

beforeAll(async () => {
  namespace = freshNamespace()
  at = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: namespace } }
  writeModule(scratch.path, 'pipeline.ts', PIPELINE)
})

afterAll(async () => {
  scratch[Symbol.dispose]()
})

it('the command explains wrong arguments, with the exit code 2', async () => {
  const help = await runCommand(['--help'], at)
  expect(help).toMatchObject({ code: 0, stderr: '' })
  expect(help.stdout).toContain('dev [options] <file>')
  for (const [args, words] of [
    [['bogus'], "unknown command 'bogus'"],
    [['run'], "missing required argument 'asset'"],
    [['status', '--bogus'], "unknown option '--bogus'"],
    [['status', '--limit', 'many'], '--limit must be a whole number'],
    [['worker', 'none.ts'], 'there is no file none.ts'],
    [['proof', 'verify', '--key', 'cut'], '--key: cut is no public key (44 characters of base64), and no file'],
    [['run', 'greting', '--file', 'pipeline.ts'], 'there is no asset greting; did you mean greeting?'],
    [['run', 'greeting', '--file', 'pipeline.ts', '--pipeline', 'x'], 'there is no pipeline x'],
    [['run', 'greeting', '--file', 'pipeline.ts', '--upstream', 'x'], '--upstream must be all, stale, missing or none'],
    [['run', 'greeting', '--file', 'pipeline.ts', '--input', 'name=@none.json'], '--input name: ENOENT'],
    [['run', 'greetings/greeting/x'], 'name a pipeline and an asset'],
    [['run', 'greetings/greeting/x', '--file', 'pipeline.ts'], 'there is no asset greeting/x'],
    [['http', 'key', '--id', 'x', '--assets', 'a/*', '--expires', '2020-01-01'], '--expires must be in the future'],
    [['event', 'refused', '--limit', '0'], '--limit must be a whole number from 1'],
    [['export'], 'say which runs'],
    [['export', '--all', '--to', 'x', '--format', 'csv'], 'format must be jsonl or parquet'],
    [['import', 'none.jsonl'], 'there is no archive none.jsonl'],
    [['status', 'nonsense'], '"nonsense" is no run id'],
    [['status', '--at', 'whenever'], '--at must be a time'],
    [['http', '--trust-proxy', 'everybody'], 'FLOWSTONE_GATE_SECRETS'],
  ] as const) {
    const { code, stdout, stderr } = await runCommand(args, at)
    expect(stderr, args.join(' ')).toContain(words)
    expect(stderr).not.toMatch(/^\s+at /m)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  }
  const alone = await runCommand(['run', 'greeting'], { cwd: at.cwd })
  expect(alone).toMatchObject({ code: 2, stderr: expect.stringContaining('run: no flowstone dev runs in this folder') })
  const { code, stdout, stderr } = await runCommand(['status', '--bogus', '--json'], at)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(JSON.parse(stderr)).toEqual({
    error: { code: 'invalid', message: expect.stringContaining("unknown option '--bogus'") },
  })
})

it('a missing server, and a file that cannot be loaded, are reported in one line', async () => {
  const away = await runCommand(['status', '--server', 'nats://127.0.0.1:1'], at)
  expect(away.code).toBe(1)
  expect(away.stderr).toMatch(/^flowstone: no nats-server at nats:\/\/127.0.0.1:1.*\n$/)
  const json = await runCommand(['status', '--server', 'nats://127.0.0.1:1', '--json'], at)
  expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'unreachable' } })
  writeModule(scratch.path, 'syntax.ts', 'export const a = (\n')
  writeModule(scratch.path, 'throws.ts', "export const a = 1\nthrow new Error('from the file')\n")
  writeModule(
    scratch.path,
    'empty.ts',
    "import { asset } from 'flowstone'\nexport const a = asset('a', { execute: () => 1 })\n",
  )
  const load = async (file: string) => (await runCommand(['worker', file], at)).stderr
  expect(await load('syntax.ts')).toMatch(/^flowstone: syntax.ts cannot be loaded: .*syntax.ts:\d/)
  expect(await load('throws.ts')).toMatch(/^flowstone: throws.ts cannot be loaded: from the file \(.*throws.ts:2/)
  expect(await load('empty.ts')).toBe(
    "flowstone: empty.ts exports no pipeline; put its assets into one: export default pipeline('name', [a])\n",
  )
})

it('engine, worker and run are three processes that find each other', async () => {
  await using engine = startCommand(['engine', '--metrics-port', '0'], at)
  await engine.says('active')
  await using worker = startCommand(['worker', 'pipeline.ts', '--concurrency', '2', '--metrics-port', '0'], at)
  await worker.says('greetings (greeting, broken, words, slow)')
  const run = (...args: string[]) => runCommand(['run', ...args, '--file', 'pipeline.ts'], at)

  const plain = await run('greeting', '--partition', 'moon')
  expect(plain).toMatchObject({ code: 0, stdout: '"hello moon"\n' })
  expect(plain.stderr).toContain('succeeded: greeting materialized')

  const json = await run('greeting', '--json', '--key', 'k1')
  expect(json.stderr).toBe('')
  const first = JSON.parse(json.stdout)
  expect(first).toEqual({ run: expect.any(String), value: 'hello world' })
  const again = await run('greeting', '--no-wait', '--key', 'k1')
  expect(again).toMatchObject({ code: 0, stdout: `${first.run}\n` })
  const same = await run('greeting', '--no-wait', '--key', 'k1', '--on-failed', 'retry', '--json')
  expect(JSON.parse(same.stdout)).toEqual({ run: first.run, isNew: false })
  const odd = await run('greeting', '--key', 'k1', '--on-failed', 'again')
  expect(odd).toMatchObject({ code: 2 })
  expect(odd.stderr).toContain('--on-failed must be return or retry, got again')

  const failed = await run('broken')
  expect(failed).toMatchObject({ code: 1, stdout: '' })
  expect(failed.stderr).toContain('no such luck')
  expect(failed.stderr).not.toMatch(/^\s+at /m)

  const metricsOf = async (process: typeof engine) => {
    const url = /metrics {2}(\S+)/.exec(process.stderr() + process.stdout())?.[1] ?? 'none'
    return parseMetrics(await (await fetch(url)).text())
  }
  await until('the engine has counted it', async () => {
    const of = { flowstone_pipeline: 'greetings', flowstone_status: 'failed' }
    return seriesValue(await metricsOf(engine), 'flowstone_runs_finished_total', of) === 1
  })
  const ofEngine = await metricsOf(engine)
  expect(seriesValue(ofEngine, 'flowstone_engine_active', { flowstone_shard: '0' })).toBe(1)
  expect(seriesValue(ofEngine, 'flowstone_engine_claimed', { flowstone_shard: '0' })).toBe(1)
  expect(seriesValue(ofEngine, 'flowstone_workers', { flowstone_pipeline: 'greetings' })).toBe(1)
  expect(seriesValue(ofEngine, 'flowstone_queue_depth', { flowstone_pipeline: 'greetings' })).toBe(0)
  const ofWorker = await metricsOf(worker)
  const broken = { flowstone_asset: 'broken', flowstone_outcome: 'error' }
  expect(seriesValue(ofWorker, 'flowstone_attempt_duration_seconds_count', broken)).toBeGreaterThan(0)
  // The namespace is in those of the engine.
  expect(ofWorker.has('flowstone_engine_claimed')).toBe(false)

  const partial = JSON.parse((await run('words', '--json')).stdout)
  const ls = await runCommand(['scatter', 'ls', partial.run], at)
  expect(ls.stdout).toMatch(new RegExp(`${partial.run}\\.words +partial_failure +3 +2 +1 `))
  const show = JSON.parse((await runCommand(['scatter', 'show', `${partial.run}.words`, '--json'], at)).stdout)
  expect(show).toMatchObject({ total: 3, succeeded: 2, failed: 1 })
  const redriven = await runCommand(['scatter', 'redrive', `${partial.run}.words`], at)
  expect(redriven.stdout).toMatch(/^0-\S+\n$/)
  const none = await runCommand(['scatter', 'show', `${partial.run}.wordz`], at)
  expect(none.code).toBe(1)
  expect(none.stderr).toContain('has no scatter wordz')
  expect((await runCommand(['scatter', 'cancel', `${partial.run}.words`, '--json'], at)).code).toBe(0)

  expect((await runCommand(['scatter', 'pause', `${partial.run}.words`], at)).code).toBe(0)
  expect((await runCommand(['scatter', 'resume', `${partial.run}.words`], at)).code).toBe(0)

  let all: { readonly id: string; readonly target: string; readonly finishedAt?: string }[] = []
  await until('all have ended', async () => {
    all = JSON.parse((await runCommand(['status', '--all', '--json'], at)).stdout)
    const isListed = all.some(({ id }) => id === redriven.stdout.trim())
    return isListed && all.every(({ finishedAt }) => finishedAt !== undefined)
  })
  expect(all.map(({ target }) => target)).toContain('broken')
  const one = await runCommand(['status', partial.run], at)
  expect(one.stdout).toMatch(/words +materialized/)

  const log = (await runCommand(['log', 'show', partial.run], at)).stdout
  expect(log).toMatch(/^ +\d+ {2}\S+Z {2}run\.requested .*\n[\s\S]* scatter\.closed [\s\S]* run\.finished /)
  const [, sized = ''] = /^ *(\d+) .* scatter\.sized /m.exec(log) ?? []
  const then = async (...args: string[]) => JSON.parse((await runCommand([...args, '--json'], at)).stdout)
  expect(await then('scatter', 'show', `${partial.run}.words`, '--at', sized)).toMatchObject({
    status: 'open',
    succeeded: 0,
    stored: 3,
  })
  expect(await then('status', partial.run, '--at', `0:${sized}`)).toMatchObject({ status: 'running' })
  const changed = await runCommand(['diff', sized], at)
  expect(changed.stdout).toMatch(new RegExp(`run +${partial.run} +running +succeeded +greetings/words\n`))
  const unknown = await runCommand(['status', '0-nobody-knows-it'], at)
  expect(unknown.code).toBe(1)
  expect(unknown.stderr).toContain('there is no run 0-nobody-knows-it')

  const claimed = await runCommand(['rebuild'], at)
  expect(claimed.code).toBe(1)
  expect(claimed.stderr).toContain('engine')
  engine.child.kill('SIGTERM')
  expect((await engine.ended).code).toBe(0)
  const rebuilt = await runCommand(['rebuild', '--json'], at)
  expect(JSON.parse(rebuilt.stdout).facts).toBeGreaterThan(10)

  const lines = await runCommand(['export', partial.run], at)
  expect(lines.stdout).toContain('"kind":"scatter.closed"')
  expect(lines.stderr).toMatch(/^1 run, \d+ facts /)
  const exported = await runCommand(['export', '--since', '1h', '--to', 'all.jsonl.gz', '--json'], at)
  expect(JSON.parse(exported.stdout)).toMatchObject({ to: 'all.jsonl.gz', runs: all.length, left: 0 })
  const copy = `${namespace}-copy`
  const imported = await runCommand(['import', 'all.jsonl.gz', '--namespace', copy], at)
  expect(imported).toMatchObject({ code: 0, stderr: '' })
  expect(imported.stdout).toContain(`namespace ${copy}: ${all.length} run`)
  const copied = await runCommand(['status', '--all', '--json', '--namespace', copy], at)
  expect(JSON.parse(copied.stdout)).toEqual(all)
})

it.each(['SIGTERM', 'SIGINT'] as const)(
  'at %s a worker finishes what it holds, and ends with 0',
  async (signal) => {
    rmSync(go, { force: true })
    await using stage = await openStage(server.url, [], { namespace: freshNamespace(), worker: false })
    const where: Where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
    await using worker = startCommand(['worker', 'pipeline.ts', '--json'], where)
    await worker.says('"event":"worker"')
    const started = await runCommand(['run', 'slow', '--file', 'pipeline.ts', '--no-wait'], where)
    const run = stage.flow.run(started.stdout.trim())
    await until('the asset runs', async () => (await run.status())?.assets.slow?.status === 'running')
    worker.child.kill(signal)
    await worker.says('"event":"stopping","tasks":1')
    writeFileSync(go, '')
    expect(await worker.ended).toMatchObject({ code: 0, stderr: '' })
    expect(await run.result()).toBe('slow and done')
  },
  30_000,
)

it('following a run can be left, and the run goes on', async () => {
  await using stage = await openStage(server.url, [], { namespace: freshNamespace(), worker: false })
  const where: Where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  await using following = startCommand(['run', 'slow', '--file', 'pipeline.ts'], where)
  await following.says('running: slow')
  following.child.kill('SIGINT')
  const left = await following.ended
  expect(left.code).toBe(130)
  const [, id] = /flowstone status (\S+)/.exec(left.stderr) ?? []
  await using worker = startCommand(['worker', 'pipeline.ts'], where)
  await worker.says('active')
  writeFileSync(go, '')
  expect(await stage.flow.run(id ?? '').result()).toBe('slow and done')
})

it('shared limits are listed, shown and emptied', async () => {
  await using stage = await openStage(server.url, [], { namespace: freshNamespace(), engine: false, worker: false })
  const where: Where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  expect((await runCommand(['limit', 'ls'], where)).stdout).toBe('no limits in use\n')
  await stage.flow.limiter.check('an api', [10, 'hour'], { n: 4 })
  expect((await runCommand(['limit', 'ls'], where)).stdout).toMatch(
    /^LIMIT +KIND .*NEXT TURN +RESERVED UNTIL\nan api +rate +4 +10 +0 +\S+ +-\n$/,
  )
  expect(JSON.parse((await runCommand(['limit', 'show', 'an api', '--json'], where)).stdout)).toMatchObject({
    rate: { count: 4, remaining: 6 },
  })
  expect((await runCommand(['limit', 'reset', 'an api'], where)).code).toBe(0)
  expect((await stage.flow.limiter.status('an api')).rate).toBeUndefined()
})

it('a namespace that is not there is not made by looking, and is made by setup', async () => {
  const typo = `${namespace}-typo`
  for (const args of [['status'], ['status', '0-nobody'], ['gate', 'ls'], ['limit', 'ls'], ['rebuild']]) {
    const { code, stderr } = await runCommand([...args, '--namespace', typo], at)
    expect(stderr, args.join(' ')).toContain(`no namespace ${typo} here`)
    expect(code).toBe(1)
  }
  const made = await runCommand(['setup', '--namespace', typo, '--shards', '2', '--json'], at)
  expect(JSON.parse(made.stdout)).toEqual({ namespace: typo, shards: 2, replicas: 1 })
  expect(await runCommand(['status', '--namespace', typo], at)).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('no engine is active on shard 0, 1; nothing goes on until one is'),
  })
  const other = await runCommand(['setup', '--namespace', typo, '--shards', '3'], at)
  expect(other).toMatchObject({ code: 2, stdout: '' })
  expect(other.stderr).toContain('was made with 2, not 3')
})

it('event shows what messages would do, lists those that were refused, and takes them', async () => {
  const zod = pathToFileURL(createRequire(import.meta.url).resolve('zod')).href
  const code = (total: string): string => `
import { asset, input, pipeline, subscription } from 'flowstone'
import { z } from '${zod}'
const order = input('order', z.object({ total: ${total} }))
const bill = asset('bill', { dependsOn: [order], execute: (_, { order }) => order.total })
const ordered = subscription('ordered', { from: { stream: 'CLI_ORDERS' }, run: bill })
export const bills = pipeline('bills', [order, bill], { subscriptions: [ordered] })`
  writeModule(scratch.path, 'events.ts', code('z.number()'))
  const nc = await connectNats({ servers: server.url })
  await (await jetstreamManager(nc)).streams.add({ name: 'CLI_ORDERS', subjects: ['cli.orders'] })
  for (const body of ['{"total":1}', '{"total":"x"}']) nc.publish('cli.orders', body)
  await nc.drain()
  const { bills } = await import(join(scratch.path, 'events.ts'))
  await using stage = await openStage(server.url, bills, { namespace })
  await until('one is refused', async () => (await stage.flow.events.refused()).length === 1)
  const standing = await runCommand(['event', 'ls'], at)
  expect(standing.stdout).toMatch(/bills\/ordered +reading +CLI_ORDERS +2 +2 +0 +\d of 1000 .* 1\n/)
  const listed = await runCommand(['event', 'refused'], at)
  expect(listed.stdout).toMatch(/bills\/ordered +CLI_ORDERS +2 .*message: input\.order\.total/)
  writeModule(scratch.path, 'events-2.ts', code('z.any()'))
  const tried = await runCommand(['event', 'test', 'ordered', '--file', 'events-2.ts', '--from-seq', '1', '--json'], at)
  expect(tried).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(tried.stdout)).toMatchObject([
    { seq: 1, outcome: 'exists' },
    { seq: 2, outcome: 'run', input: { order: { total: 'x' } } },
  ])
  const again = await runCommand(['event', 'retry', '2'], at)
  expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining('message 2 is refused again') })
  expect((await runCommand(['event', 'retry', '9'], at)).stderr).toContain('no message 9 was refused')
})
