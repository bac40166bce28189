/** A worker in a process of its own. */
import type { Pipeline } from '../../../src/index.ts'
import { begin, tell } from './child.ts'
import { kills } from './pipelines.ts'

const { flow, settings } = await begin()

/** Clients of S3 and Postgres take a while to load, and few tests need them. */
async function wanted(): Promise<Pipeline | Pipeline[]> {
  if (process.env.KILL_CHAOS) return (await import('./chaos.ts')).chaos
  if (process.env.KILL_GATES) return (await import('./gated.ts')).gatedKills
  if (process.env.KILL_CHILDREN) return (await import('./parents.ts')).childKills
  if (process.env.KILL_HOOKS) return (await import('./hooked.ts')).hookedKills
  if (process.env.KILL_EVENTS) return (await import('./events.ts')).events
  if (process.env.KILL_ROWS) return (await import('./rows.ts')).rows
  if (process.env.KILL_RETRIED) return (await import('./retried.ts')).retriedKills
  if (process.env.KILL_TIMED)
    return (await import('./timed.ts'))[process.env.KILL_TIMED === 'sensed' ? 'sensed' : 'scheduled']
  if (process.env.KILL_READS) return [kills, (await import('./readers.ts')).reads]
  return kills
}

const worker = await flow.worker(await wanted(), {
  concurrency: settings.concurrency ?? 10,
  ackWait: settings.ackWaitMs ?? 1000,
  drainTimeout: '2s',
})
tell('ready', { worker: worker.id })
