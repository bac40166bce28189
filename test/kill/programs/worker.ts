/** A worker in a process of its own. */
import { begin, tell } from './child.ts'
import { kills } from './pipelines.ts'

const { flow, settings } = await begin()
// Clients of S3 and Postgres take a while to load, and few tests need them.
const pipelines = process.env.KILL_GATES
  ? (await import('./gated.ts')).gatedKills
  : process.env.KILL_READS
    ? [kills, (await import('./readers.ts')).reads]
    : kills
const worker = await flow.worker(pipelines, {
  concurrency: settings.concurrency ?? 10,
  ackWait: settings.ackWaitMs ?? 1000,
  drainTimeout: '2s',
})
tell('ready', { worker: worker.id })
