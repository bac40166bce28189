/**
 * Signal gates: a scatter hands 200 jobs to a service that knows nothing of FlowStone, and each
 * instance waits at a gate until the service calls back. It does so in any order, for some jobs
 * twice, for some with a wrong address, for some never. Waiting takes no worker: two slots are
 * enough for 200 jobs.
 *
 *     npm run example:gates
 *
 * The service is this file, started again as a process of its own; it speaks plain HTTP.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { serveGates } from '../src/http/index.ts'
import { asset, connect, type Flow, pipeline } from '../src/index.ts'
import { startServer } from '../src/server/index.ts'

const FILE = fileURLToPath(import.meta.url)
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dir: { type: 'string', default: `${ROOT}.flowstone/gates` },
    jobs: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
})
const JOBS = Number(args.jobs)
const SLOTS = 2

if (positionals[0] === 'service') await playService()
else await main()

// ---- the service: takes jobs, and calls back when it is done with one ----

interface Job {
  readonly job: number
  readonly callback: string
}

/** What it does wrong, by the number of the job. */
function faultOf(job: number): 'none' | 'twice' | 'wrong address' | 'never' {
  if (job % 20 === 7) return 'wrong address'
  if (job % 20 === 13) return 'never'
  return job % 10 === 1 ? 'twice' : 'none'
}

/** On its way a character got lost, or became another. */
function garbled(job: number, address: string): string {
  if (job % 40 === 7) return address.slice(0, -1)
  const at = address.length - 9
  return `${address.slice(0, at)}${address[at] === 'A' ? 'B' : 'A'}${address.slice(at + 1)}`
}

async function playService(): Promise<void> {
  const answers: Record<string, number> = {}
  const callBack = async (callback: string, body: object): Promise<void> => {
    const response = await fetch(callback, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    })
    answers[response.status] = (answers[response.status] ?? 0) + 1
  }
  const work = async ({ job, callback }: Job): Promise<void> => {
    await sleep(200 + Math.random() * 1000)
    const fault = faultOf(job)
    if (fault === 'never') return
    await callBack(fault === 'wrong address' ? garbled(job, callback) : callback, { job, words: job * 3 })
    if (fault === 'twice') await callBack(callback, { job, words: job * 3 })
  }
  const server = createServer(async (request, response) => {
    if (request.method === 'GET') {
      response.end(JSON.stringify(answers))
      return
    }
    let text = ''
    for await (const part of request) text += part
    void work(JSON.parse(text) as Job)
    response.writeHead(202).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  process.send?.((server.address() as AddressInfo).port)
  // Nobody is left to work for.
  process.on('disconnect', () => process.exit(0))
}

// ---- the pipeline ----

interface Tally {
  readonly done: number
  readonly words: number
  readonly failed: number
}

function counting(service: string, seen: { submitted: number; reminders: number }) {
  return asset('counted', {
    scatter: () => Array.from({ length: JOBS }, (_, job) => ({ job })),
    scatterOptions: { failureMode: 'partial', failureThreshold: 0.5 },
    execute: async (ctx) => {
      // First the gate, then the job: however quick the service is, its answer finds the gate.
      const gate = await ctx.openGate({
        timeout: '2s',
        timeoutAction: 'retry',
        maxTimeoutRetries: 1,
        retryDelays: ['1s'],
        metadata: ctx.scatterKey,
      })
      // This instance was run before, by a worker that died: the service has the job.
      if (gate.isNew) {
        seen.submitted += 1
        await fetch(service, {
          method: 'POST',
          body: JSON.stringify({ job: ctx.scatterKey.job, callback: gate.callbackUrl }),
          signal: ctx.signal,
        })
      }
      return gate.wait()
    },
    onSignal: (_, answer: { words: number }) => answer.words,
    onTimeout: (ctx) => {
      if (ctx.retriesLeft === 0) return ctx.fail(`the service never answered for job ${ctx.scatterKey.job}`)
      // A reminder: the gate waits on, its address stays good. Here one could ask the service how
      // it stands.
      seen.reminders += 1
      return 0
    },
    gather: async (results): Promise<Tally> => {
      const tally = { done: 0, words: 0, failed: 0 }
      for await (const result of results) {
        if (result.status === 'failed') tally.failed += 1
        else {
          tally.done += 1
          tally.words += result.value
        }
      }
      return tally
    },
  })
}

async function main(): Promise<void> {
  const say = (line = ''): void => (args.json ? console.error(line) : console.log(line))
  const service = spawn(process.execPath, [FILE, 'service'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const server = await startServer({ dir: args.dir })
  try {
    const [port] = await once(service, 'message')
    // Where callers from outside get in. In earnest: one address for all, and a secret that lasts.
    const gates = { secrets: [{ id: 'example', secret: randomBytes(32).toString('base64') }] }
    await using front = await connect({ servers: server.url, gates })
    await using http = await serveGates(front, { port: 0 })
    await using flow = await connect({ servers: server.url, gates: { ...gates, baseUrl: http.url } })
    await report(flow, `http://127.0.0.1:${port}/`, say)
  } finally {
    await stop(service)
    await server.stop()
  }
}

async function report(flow: Flow, service: string, say: (line?: string) => void): Promise<void> {
  const seen = { submitted: 0, reminders: 0 }
  const counted = counting(service, seen)
  await flow.engine()
  const worker = await flow.worker(pipeline('gates', [counted]), { concurrency: SLOTS })
  const startedMs = performance.now()
  const run = await flow.materialize(counted)
  const id = `${run.id}.counted`
  let most = 0
  const watching = (async () => {
    for await (const { scatters } of run.watch()) {
      const status = scatters.length > 0 ? await flow.scatter.status(id) : undefined
      if (!status || status.suspended <= most) continue
      most = status.suspended
      say(
        `${status.suspended} jobs wait at their gates; the worker has ${worker.busy} tasks, ${SLOTS} at work at the most`,
      )
    }
  })()
  const tally = await run.result()
  await watching
  const ends: Record<string, number> = {}
  let timeouts = 0
  for (const gate of await flow.gates.list(run.id)) {
    ends[gate.status] = (ends[gate.status] ?? 0) + 1
    timeouts += gate.timeouts
  }
  const answers = (await (await fetch(service)).json()) as Record<string, number>
  const seconds = (performance.now() - startedMs) / 1000
  say()
  say(`${JOBS} jobs in ${seconds.toFixed(1)} s, with a worker of 2 slots, of which at most ${most} waited at a time:`)
  say(`  submitted             ${seen.submitted}`)
  say(
    `  gates                 ${Object.entries(ends)
      .map(([status, count]) => `${status} ${count}`)
      .join(', ')}`,
  )
  say(
    `  what callers got      ${Object.entries(answers)
      .map(([status, count]) => `${status}: ${count}`)
      .join(', ')}`,
  )
  say('                        (200 accepted; 400 or 401 a wrong address; 409 answered before; 410 too late)')
  say(`  timeouts              ${timeouts}, of which ${seen.reminders} were reminders and the gate waited on`)
  say(`  result                ${tally.done} done, ${tally.words} words; ${tally.failed} failed`)
  for await (const { key, error } of flow.scatter.failures(id)) {
    say(`  failed, for example   ${JSON.stringify(key)}: ${error.message}`)
    break
  }
  if (args.json) console.log(JSON.stringify({ ...tally, ...seen, ends, answers, timeouts }))
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  await gone
}
