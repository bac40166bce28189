/**
 * The quickstart: a server, an engine and two workers in one process, and one run of the mail
 * triage from end to end.
 *
 *     npm run quickstart                 from the root of the repository
 *     npm run quickstart -- --slow       the same in about 20 seconds: time for Ctrl-C, or for kill -9
 *     npm run quickstart -- --keep       leaves the server up afterwards, for a look around
 *     npm run quickstart -- --fresh      starts a new run even if an earlier one was left unfinished
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { connect, type HistoryEntry } from '../../src/index.ts'
import { startServer } from '../../src/server/index.ts'
import { isInstalled } from './corpus.ts'
import { report, slowDown, triage } from './pipeline.ts'
import { liveLine, progressLine } from './progress.ts'
import { columns, int, type Report, render } from './report.ts'

const DIR = fileURLToPath(new URL('../../.flowstone/quickstart', import.meta.url))
const NAMESPACE = 'quickstart'
const WORKERS = 2
const CONCURRENCY = 8
/** With 16 mails in work at a time, 3,000 mails then take about 20 s. */
const SLOW_MS = 100

/** What the facts of this run mean. Others are listed too, without an explanation. */
const MEANING: Readonly<Record<string, string>> = {
  'pipeline.registered': 'the graph of assets and their options, without code',
  'run.requested': 'a request for `report`',
  'run.planned': 'which assets that takes',
  'asset.started': 'a worker started an asset, its scatter or its gather',
  'attempt.ended': 'an attempt failed or was returned; another one follows',
  'asset.materialized': 'an asset has its value',
  'scatter.started': 'one asset became many instances',
  'scatter.items': 'their keys: one fact for many',
  'scatter.sized': 'how many there are: no more keys will come',
  'scatter.outcomes': 'verdicts: one fact for many mails',
  'lease.returned': 'mails that waited behind slow ones, or with a worker that stopped, are leased again',
  'lease.lost': 'a worker died; its mails are leased again',
  'scatter.closed': 'all are judged: written once, then they are gathered',
  'run.finished': 'the end',
} satisfies Partial<Record<HistoryEntry['kind'], string>>

const { values: args } = parseArgs({
  options: {
    slow: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    fresh: { type: 'boolean', default: false },
  },
})

class Interrupted extends Error {}

const interrupt = Promise.withResolvers<never>()
// Nobody may be waiting when it comes, and that is no error.
interrupt.promise.catch(() => {})
process.once('SIGINT', () => interrupt.reject(new Interrupted()))

try {
  await main()
} catch (error) {
  if (!(error instanceof Interrupted)) throw error
  process.exitCode = 130
}

async function main(): Promise<void> {
  if (!isInstalled()) {
    console.error('The mails are not installed. Run: npm ci --prefix examples/mail-triage')
    process.exitCode = 1
    return
  }
  const startedAt = performance.now()
  if (args.slow) slowDown(SLOW_MS)

  const server = await startServer({ dir: DIR })
  try {
    say(`nats-server at ${server.url}, its data in ${DIR}`)
    const flow = await connect({ servers: server.url, namespace: NAMESPACE })
    try {
      await flow.engine()
      for (let i = 0; i < WORKERS; i++) await flow.worker(triage, { concurrency: CONCURRENCY, ackWait: '3s' })
      say(`one engine and ${WORKERS} workers run in this process; they could as well be on other machines`)

      const run = await startOrContinue(flow)
      await follow(run)
      const value = await beforeInterrupt(run.result())
      say(`\n${render(value)}\n`)
      await showLog(flow, run.id)
      say(`\nDone in ${((performance.now() - startedAt) / 1000).toFixed(1)} s.\n`)
      await showNext(server.url)
    } catch (error) {
      if (error instanceof Interrupted) sayStopped()
      throw error
    } finally {
      // Before the server stops: workers finish what they hold or hand it back, and say so on the
      // log.
      await flow.close()
    }
  } finally {
    await server.stop()
  }
}

type Flow = Awaited<ReturnType<typeof connect>>

/**
 * A run that an earlier quickstart left unfinished is continued, else there is a new one. The list
 * of runs is what the engine has folded so far, so it may lag behind the log. The key makes that
 * harmless: the n-th run has one key, and asking for it twice brings the same run.
 */
async function startOrContinue(flow: Flow) {
  let runs = 0
  for (const { id, status, target } of await flow.runs({ limit: 10_000 })) {
    if (target !== report.name) continue
    if (!args.fresh && !['succeeded', 'failed', 'cancelled'].includes(status)) {
      say(
        `run ${id} was left unfinished and continues where it was (what is judged stays judged; --fresh starts anew)\n`,
      )
      return flow.run<Report>(id)
    }
    runs++
  }
  const run = await flow.materialize(report, { key: `quickstart-${runs + 1}`, upstream: 'all' })
  say(`run ${run.id} asked for \`${report.name}\`: its dependencies come first\n`)
  return run
}

async function follow(run: Awaited<ReturnType<typeof startOrContinue>>): Promise<void> {
  const line = liveLine(process.stdout)
  const watching = async () => {
    for await (const update of run.watch()) line.show(progressLine(update))
  }
  try {
    await beforeInterrupt(watching())
  } finally {
    line.end()
  }
}

async function showLog(flow: Flow, run: string): Promise<void> {
  const counts = new Map<string, number>()
  let facts = 0
  for await (const { kind } of flow.history(run)) {
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
    facts++
  }
  say(
    `All of this is ${int(facts)} facts on a log, each on disk before its next step. Everything else was computed from them:`,
  )
  const rows = [...counts].map(([kind, n]) => [`  ${kind}`, int(n), `   ${MEANING[kind] ?? ''}`])
  for (const row of columns(rows)) say(row)
}

async function showNext(url: string): Promise<void> {
  say('What to try next')
  say('  npm run quickstart                a fresh run; the log keeps the old one')
  say(
    '  npm run quickstart -- --slow      press Ctrl-C half way (or kill -9 it), then run it again: it continues where it was',
  )
  say('  npm run quickstart -- --keep      leaves the server up, for a look with the nats command line')
  say('  examples/mail-triage/pipeline.ts  the five assets, to change and run again')
  if (!args.keep) return
  say('\nThe server stays up. In another terminal:')
  say(`  nats --server ${url} stream ls`)
  say(`  nats --server ${url} stream view ${NAMESPACE}_LOG_0`)
  say(`  nats --server ${url} kv ls ${NAMESPACE}_state_0`)
  say('Ctrl-C stops it.')
  // A pending promise alone does not keep Node running.
  const keepAlive = setInterval(() => {}, 60_000)
  await interrupt.promise.catch(() => {}).finally(() => clearInterval(keepAlive))
}

function sayStopped(): void {
  say('\nStopping: what is in work is finished or handed back. The run stays open on the log.')
  say('Run it again and it continues from there. (Ctrl-C once more ends it at once; that costs nothing but time.)')
}

/** The first of the two: `work`, or Ctrl-C. */
function beforeInterrupt<T>(work: Promise<T>): Promise<T> {
  // When Ctrl-C wins, `work` fails later because the connection closes; that was asked for.
  work.catch(() => {})
  return Promise.race([work, interrupt.promise])
}

function say(line: string): void {
  console.log(line)
}
