/**
 * Limits that hold over processes. Three processes share an API with 60 calls a minute. A crawl has
 * a limit for each host. A GPU has 4 slots, and one of their holders is killed.
 *
 *     npm run example:limits
 *
 * The processes are this file, started again with a part to play.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { asset, connect, type Flow, pipeline } from '../src/index.ts'
import { startServer } from '../src/server/index.ts'

const FILE = fileURLToPath(import.meta.url)
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const NAMESPACE = 'limits'
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: { dir: { type: 'string', default: `${ROOT}.flowstone/limits` } },
})
const say = (line = ''): void => console.log(line)

/** A process that plays a part, and what it says. */
class Player {
  readonly process: ChildProcess
  readonly lines: string[] = []

  constructor(part: string, ...more: string[]) {
    this.process = spawn(process.execPath, [FILE, part, ...more], { stdio: ['pipe', 'pipe', 'inherit'] })
    if (!this.process.stdout) throw new Error('no pipe')
    createInterface({ input: this.process.stdout }).on('line', (line) => this.lines.push(line))
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const gone = once(this.process, 'exit')
    this.process.kill(signal)
    await gone
  }
}

switch (positionals[0]) {
  case 'caller':
    await playCaller(positionals[1] ?? '', positionals[2] ?? '')
    break
  case 'trainer':
    await playTrainer(positionals[1] ?? '')
    break
  default:
    await main()
}

async function main(): Promise<void> {
  const server = await startServer({ dir: args.dir })
  try {
    await using flow = await connect({ servers: server.url, namespace: NAMESPACE })
    await flow.setup()
    for (const { bucket } of await flow.limiter.list()) await flow.limiter.reset(bucket)
    await sharedApi(flow, server.url)
    await politeCrawl(flow)
    await gpu(flow, server.url)
  } finally {
    await server.stop()
  }
}

/** 60 a minute, whoever calls. */
async function sharedApi(flow: Flow, url: string): Promise<void> {
  say('1. An API with 60 calls a minute, and three processes that want 40 each')
  let calls = 0
  const api = createServer((_, response) => {
    calls += 1
    response.end('ok')
  })
  api.listen(0, '127.0.0.1')
  await once(api, 'listening')
  const { port } = api.address() as AddressInfo
  const callers = Array.from({ length: 3 }, () => new Player('caller', url, `http://127.0.0.1:${port}`))
  await Promise.all(callers.map(({ process }) => once(process, 'exit')))
  for (const { lines } of callers) say(`   ${lines.join('')}`)
  const { rate } = await flow.limiter.status('api')
  say(`   the API saw ${calls} calls; the bucket: ${rate?.count} of ${rate?.limit}, ${rate?.remaining} left\n`)
  api.close()
  api.closeAllConnections()
}

async function playCaller(servers: string, api: string): Promise<void> {
  await using flow = await connect({ servers, namespace: NAMESPACE })
  let allowed = 0
  let waitMs = 0
  for (let i = 0; i < 40; i++) {
    const answer = await flow.limiter.check('api', [60, 'minute'])
    if (answer.allowed) {
      await fetch(api)
      allowed += 1
    } else waitMs = answer.waitMs
  }
  const rest = allowed < 40 ? `, and is told to come back in ${(waitMs / 1000).toFixed(3)} s` : ''
  say(`process ${process.pid} made ${allowed} calls${rest}`)
}

/** One limit for each host: the slow one does not hold up the others. */
async function politeCrawl(flow: Flow): Promise<void> {
  say('2. A crawl of four hosts, each asked at most 5 times a second')
  const hosts = ['docs.example', 'blog.example', 'shop.example', 'wiki.example']
  const pages = hosts.flatMap((host, i) =>
    Array.from({ length: i === 0 ? 15 : 6 }, (_, page) => ({ host, path: `/${page}` })),
  )
  const starts = new Map<string, number[]>()
  const crawl = asset('crawl', {
    scatter: () => pages,
    scatterOptions: {
      rateLimit: { bucket: ({ host }) => `host:${host}`, limit: 5, per: 'second', shape: 'smooth' },
    },
    execute: ({ scatterKey }) => {
      starts.set(scatterKey.host, [...(starts.get(scatterKey.host) ?? []), performance.now()])
      return scatterKey.path
    },
  })
  const engine = await flow.engine()
  const worker = await flow.worker(pipeline('crawl', [crawl]))
  const startedMs = performance.now()
  await (await flow.materialize(crawl, { upstream: 'all' })).result()
  for (const [host, times] of starts) {
    const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0))
    const seconds = (((times.at(-1) ?? startedMs) - startedMs) / 1000).toFixed(1)
    say(`   ${host}: ${times.length} pages in ${seconds} s, at least ${Math.round(Math.min(...gaps))} ms apart`)
  }
  say()
  await worker.stop()
  await engine.stop()
}

/** Slots come back by themselves. */
async function gpu(flow: Flow, url: string): Promise<void> {
  say('3. A GPU with 4 slots, six processes that want one, and a holder that is killed')
  const trainers = Array.from({ length: 6 }, () => new Player('trainer', url))
  const status = async (): Promise<string> => {
    const { slots } = await flow.limiter.status('gpu')
    return `${slots?.count} of ${slots?.limit} held, ${slots?.waiting} waiting`
  }
  await until(async () => (await flow.limiter.status('gpu')).slots?.waiting === 2)
  say(`   ${await status()}`)
  const holder = trainers.find(({ lines }) => lines.length > 0)
  const before = (await flow.limiter.status('gpu')).slots?.holders ?? []
  const killedMs = performance.now()
  await holder?.stop('SIGKILL')
  say(`   kill -9 ${holder?.process.pid}: its lease of 1 s runs out`)
  await until(async () => (await flow.limiter.status('gpu')).slots?.waiting === 1)
  const after = (await flow.limiter.status('gpu')).slots?.holders ?? []
  const heir = after.find(({ slot }) => !before.some((other) => other.slot === slot))
  say(
    `   ${((performance.now() - killedMs) / 1000).toFixed(2)} s later its slot is another's, with fence ${heir?.fence}`,
  )
  say(`   (the highest before: ${Math.max(...before.map(({ fence }) => fence))}); ${await status()}`)
  await Promise.all(trainers.map((trainer) => trainer.stop('SIGTERM')))
}

async function playTrainer(servers: string): Promise<void> {
  const flow = await connect({ servers, namespace: NAMESPACE })
  // A clean stop gives the slot back.
  process.once('SIGTERM', () => void flow.close().then(() => process.exit(0)))
  process.stdin.resume().once('end', () => process.exit(1))
  const train = (): Promise<never> => {
    say('training')
    return new Promise(() => undefined)
  }
  await flow.limiter.withSlot('gpu', 4, train, { lease: '1s', maxWait: '1m' })
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error('that took too long')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
