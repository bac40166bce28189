/** A worker in a process of its own. */
import { begin, tell } from './child.ts'
import { kills } from './pipelines.ts'

const { flow, settings } = await begin()
const worker = await flow.worker(kills, {
  concurrency: settings.concurrency ?? 10,
  ackWait: settings.ackWaitMs ?? 1000,
  drainTimeout: '2s',
})
tell('ready', { worker: worker.id })
