import { createHmac } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { connect, type Flow, type GateView } from '../../src/index.ts'
import { post, request } from '../http/kit.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { type Ended, type Running, runCommand, startCommand, writeModule } from './kit.ts'

const PIPELINE = `
import { asset, pipeline } from 'flowstone'
export const published = asset('published', {
  execute: (ctx) => ctx.approval({ message: 'Publish ' + ctx.partition + '?', timeout: '1h' }),
  onSignal: (_, decision) => (decision.approved ? 'published' : 'rejected'),
})
export const job = asset('job', { execute: (ctx) => ctx.signalGate({ timeout: '1h', metadata: { job: ctx.partition } }) })
export const hooked = asset('hooked', { execute: (ctx) => ctx.signalGate({ correlationKey: 'check/' + ctx.partition }) })
export const plain = asset('plain', { execute: () => 'made' })
export default pipeline('gated', [published, job, hooked, plain])
`
/** What only a module can say: how senders sign, and what their messages are about. */
const SENDERS = `
export default {
  verified: {
    ci: { scheme: 'github', secret: process.env.HOOK_SECRET, correlationKey: (payload) => 'check/' + payload.check },
  },
  rateLimit: { address: [1000, 'second'] },
  maxBodyBytes: 40,
  apiKeys: [{ id: 'cli', hash: process.env.KEY_HASH, assets: ['gated/plain'] }],
  webhooks: { '/hooks/plain': { sender: { scheme: 'github', secret: process.env.HOOK_SECRET }, run: 'gated/plain' } },
}
`
const API = newApiKey()
const HOOK_SECRET = 'known to the sender and to us'
const LONGER = 'one that takes more than the module lets through'

const scratch = scratchFolder()
const at = { cwd: scratch.path }
let dev: Running
let http: string
/** Waits for what the commands bring about; a process for each look would take its time. */
let flow: Flow

beforeAll(async () => {
  writeModule(scratch.path, 'pipeline.ts', PIPELINE)
  writeFileSync(join(scratch.path, 'senders.ts'), SENDERS)
  dev = startCommand(['dev', 'pipeline.ts', '--http-port', '0', '--http-config', 'senders.ts'], {
    ...at,
    env: { HOOK_SECRET, KEY_HASH: API.hash },
  })
  await dev.says('active: gated')
  const state = JSON.parse(readFileSync(join(scratch.path, '.flowstone', 'dev.json'), 'utf8'))
  http = state.http
  flow = await connect({ servers: state.server, namespace: state.namespace })
})

afterAll(async () => {
  await flow?.close()
  await dev?.[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

async function json(...args: string[]): Promise<Record<string, unknown> & Record<string, unknown>[]> {
  const { code, stdout, stderr } = await runCommand([...args, '--json'], at)
  if (code !== 0) throw new Error(stderr)
  return JSON.parse(stdout)
}

/** A run that waits at a gate. */
async function waiting(asset: string, partition: string): Promise<{ run: string; gate: string }> {
  const { run } = await json('run', asset, '--partition', partition, '--no-wait')
  let gate: GateView | undefined
  await until('it waits at a gate', async () => {
    gate = (await flow.gates.list(String(run)))[0]
    return gate !== undefined
  })
  // The list of all that wait is of the state, which may lag.
  await until('it is listed', async () => (await flow.gates.waiting()).some(({ id }) => id === gate?.id))
  return { run: String(run), gate: gate?.id ?? '' }
}

async function ended(run: string): Promise<Ended> {
  await until('the run has ended', async () => (await flow.run(run).status())?.finishedAt !== undefined)
  return await runCommand(['status', run], at)
}

it('gates are listed, shown, answered by id and by token, and each is answered once', async () => {
  const { run, gate } = await waiting('job', 'j1')
  expect((await runCommand(['gate', 'ls'], at)).stdout).toMatch(
    new RegExp(`${gate} +waiting +signal .*\\{"job":"j1"\\}`),
  )
  expect((await runCommand(['gate', 'ls', '--after', gate], at)).stdout).toBe('no gate is waiting\n')
  const shown = await json('gate', 'show', gate)
  expect(shown).toMatchObject({ id: gate, run, status: 'waiting', metadata: { job: 'j1' } })
  const { url } = await json('gate', 'url', gate)
  expect(url).toContain(`${http}/hooks/flowstone/signal/v1.dev.`)
  const token = String(url).split('/').at(-1) ?? ''
  expect(await json('gate', 'show', token)).toEqual(shown)

  const signaled = await json('gate', 'signal', token, '--payload', '{"rows":3}', '--by', 'ada', '--key', 'k')
  expect(signaled).toEqual({ status: 'accepted', gate, repeated: false })
  expect(await json('gate', 'signal', gate, '--payload', '{"rows":3}', '--by', 'ada', '--key', 'k')).toMatchObject({
    repeated: true,
  })
  const late = await runCommand(['gate', 'signal', gate, '--payload', '1', '--json'], at)
  expect(late.code).toBe(1)
  expect(JSON.parse(late.stderr)).toMatchObject({ error: { code: 'signal_rejected', reason: 'already_signaled' } })
  expect((await ended(run)).stdout).toMatch(/status +succeeded/)
  expect(await json('gate', 'show', gate)).toMatchObject({
    status: 'signaled',
    signal: { payload: { rows: 3 }, source: 'ada' },
  })
})

it('dev serves the page of its gates', async () => {
  const { run, gate } = await waiting('published', 'the report')
  const { url } = await json('gate', 'url', gate)
  const page = await request(String(url), { headers: { Accept: 'text/html' } })
  expect(page.text).toContain('Publish the report?')
  expect(await post(String(url), { approved: true })).toMatchObject({ status: 200 })
  expect((await ended(run)).stdout).toMatch(/status +succeeded/)
})

it('an approval is given by command', async () => {
  const { run, gate } = await waiting('published', 'the other report')
  expect(await json('gate', 'reject', gate, '--comment', 'not yet', '--by', 'ada')).toMatchObject({
    status: 'accepted',
    gate,
  })
  await ended(run)
  expect(await flow.run(run).result()).toBe('rejected')
  const late = await runCommand(['gate', 'approve', gate], at)
  expect(late).toMatchObject({ code: 1, stdout: '' })
  expect((await flow.gates.get(gate))?.signal?.payload).toEqual({ approved: false, comment: 'not yet', by: 'ada' })
})

it('gates are cancelled with a reason, and put off', async () => {
  const { run, gate } = await waiting('job', 'j2')
  const before = await json('gate', 'show', gate)
  const { deadline } = await json('gate', 'extend', gate, '3h')
  expect(Date.parse(String(deadline)) - Date.parse(String(before.deadline))).toBeGreaterThan(3_600_000)
  expect(await json('gate', 'cancel', gate, '--reason', 'not needed')).toEqual({ gate, cancelled: true })
  expect((await ended(run)).stdout).toMatch(/status +cancelled/)
  expect(await json('gate', 'show', gate)).toMatchObject({ status: 'cancelled', reason: 'not needed' })
})

it('a payload comes out of a file too, and what is no JSON is refused before anybody is asked', async () => {
  const { run, gate } = await waiting('job', 'j3')
  writeFileSync(join(scratch.path, 'payload.json'), '["from a file"]')
  const wrong = await runCommand(['gate', 'signal', gate, '--payload', 'yes'], at)
  expect(wrong).toMatchObject({ code: 2 })
  expect(wrong.stderr).toContain('--payload must be JSON')
  const noFile = await runCommand(['gate', 'signal', gate, '--payload-file', 'none.json'], at)
  expect(noFile.code).toBe(2)
  expect(noFile.stderr).toMatch(/^flowstone: --payload-file: ENOENT.*none.json'\n$/)
  const none = await runCommand(['gate', 'signal', `${gate.slice(0, -1)}9`], at)
  expect(none.code).toBe(1)
  expect(none.stderr).toMatch(/^flowstone: .*\n$/)
  await json('gate', 'signal', gate, '--payload-file', 'payload.json')
  await ended(run)
  expect(await json('gate', 'show', gate)).toMatchObject({
    signal: { payload: ['from a file'], source: 'flowstone cli' },
  })
})

it('http is a process of its own, and needs the secret', async () => {
  const { gate } = await waiting('job', 'j4')
  const { url } = await json('gate', 'url', gate)
  const none = await runCommand(['http', '--port', '0'], at)
  expect(none.code).toBe(2)
  expect(none.stderr).toContain('set FLOWSTONE_GATE_SECRETS')
  const env = { FLOWSTONE_GATE_SECRETS: readFileSync(join(scratch.path, '.flowstone', 'gate-secret'), 'utf8').trim() }
  await using server = startCommand(['http', '--port', '0', '--json'], { ...at, env })
  await server.says('"event":"http"')
  const own = String(JSON.parse(server.stdout()).url)
  // As its page for people sends it: it is not the address of dev that counts here.
  const answer = await post(`${own}${new URL(String(url)).pathname}`, 1, { Origin: own })
  expect(answer).toMatchObject({ status: 200 })
  server.child.kill('SIGTERM')
  expect(await server.ended).toMatchObject({ code: 0, stderr: '' })
})

it('http takes from a module what no option can say: senders with a signature of their own', async () => {
  const env = {
    FLOWSTONE_GATE_SECRETS: readFileSync(join(scratch.path, '.flowstone', 'gate-secret'), 'utf8').trim(),
    HOOK_SECRET,
    KEY_HASH: API.hash,
  }
  const message = async (to: string, check: string): Promise<number> => {
    const body = JSON.stringify({ check })
    const signature = `sha256=${createHmac('sha256', HOOK_SECRET).update(body).digest('hex')}`
    const headers = { 'Content-Type': 'application/json', 'X-Hub-Signature-256': signature }
    return (await request(`${to}/hooks/flowstone/verified/ci`, { method: 'POST', headers, body })).status
  }
  await using server = startCommand(['http', '--port', '0', '--config', 'senders.ts', '--max-body', '1000', '--json'], {
    ...at,
    env,
  })
  await server.says('"event":"http"')
  // The server of `dev` has the same module, and what it says of bodies; an option counts before
  // that.
  for (const [to, check, status] of [
    [String(JSON.parse(server.stdout()).url), 'a', 200],
    [String(JSON.parse(server.stdout()).url), LONGER, 404],
    [http, LONGER, 413],
  ] as const) {
    const { run } = status === 200 ? await waiting('hooked', check) : { run: undefined }
    expect(await message(to, check)).toBe(status)
    if (run) await ended(run)
  }
  for (const [file, source, says] of [
    ['none.ts', undefined, 'there is no file none.ts'],
    ['empty.ts', 'export const verified = {}', 'empty.ts must export by default what serveGates takes'],
    ['typo.ts', 'export default { verfied: {} }', 'did you mean verified?'],
  ] as const) {
    if (source !== undefined) writeFileSync(join(scratch.path, file), source)
    const { code, stderr } = await runCommand(['http', '--port', '0', '--config', file], { ...at, env })
    expect(code).toBe(2)
    expect(stderr).toContain(says)
  }
})

it('http key makes a key, with which runs start at dev and at http, and webhooks start them too', async () => {
  const made = await runCommand(
    ['http', 'key', '--id', 'cli', '--assets', 'gated/plain,gated/job', '--may', 'start,read'],
    at,
  )
  const [key = ''] = made.stdout.split('\n')
  const [, hash = ''] =
    /^\{ id: 'cli', hash: '([0-9a-f]{64})', assets: \['gated\/plain', 'gated\/job'\], may: /m.exec(made.stderr) ?? []
  expect(made.stderr).not.toContain(key)
  const wrong = await runCommand(['http', 'key', '--id', 'cli', '--assets', 'gated'], at)
  expect(wrong).toMatchObject({
    code: 2,
    stdout: '',
    stderr: expect.stringContaining('assets must be a list of names'),
  })

  // Without a gate secret: whoever starts runs needs none.
  const env = { HOOK_SECRET, KEY_HASH: hash }
  await using server = startCommand(['http', '--port', '0', '--config', 'senders.ts'], { ...at, env })
  await server.says('runs at http')
  await server.says('webhook at http')
  const [, own = ''] = /runs at (http:\S+?)\/runs/.exec(server.stdout()) ?? []
  for (const [to, good, bad] of [
    [own, key, API.key],
    [http, API.key, key],
  ] as const) {
    const start = (by: string) =>
      post(`${to}/runs/gated/plain`, {}, { Authorization: `Bearer ${by}`, Prefer: 'wait=30' })
    expect(await start(good)).toMatchObject({
      status: 200,
      body: {
        status: 'succeeded',
        value: 'made',
        url: expect.stringMatching(/^\/runs\//),
      },
    })
    expect(await start(bad)).toMatchObject({ status: 401 })
    const signature = `sha256=${createHmac('sha256', HOOK_SECRET).update('{}').digest('hex')}`
    const hook = await post(`${to}/hooks/plain`, {}, { 'X-Hub-Signature-256': signature })
    expect(hook).toMatchObject({ status: 200, body: { status: 'accepted', repeated: to === http } })
  }
  const signal = await post(`${own}/hooks/flowstone/signal/${'v1.x.'.repeat(20)}`, {})
  expect(signal.status).toBeLessThan(500)
})
