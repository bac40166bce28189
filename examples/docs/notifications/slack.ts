import { equal } from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { asset, connect, pipeline } from '../../../src/index.ts'

// Stands for the service: it keeps what is posted.
const posted: string[] = []
const service = createServer(async (request, response) => {
  posted.push(await text(request))
  response.end('ok')
}).listen(0, '127.0.0.1')
await once(service, 'listening')
process.env.SLACK_WEBHOOK_URL = `http://127.0.0.1:${(service.address() as AddressInfo).port}`
const load = async (): Promise<string> => {
  throw new Error('the source is empty')
}

// #region slack
async function slack(text: string, ctx: { signal: AbortSignal }): Promise<void> {
  const response = await fetch(process.env.SLACK_WEBHOOK_URL ?? '', {
    method: 'POST',
    body: JSON.stringify({ text }),
    signal: ctx.signal,
  })
  if (!response.ok) throw new Error(`Slack answered ${response.status}`) // it is tried again
}

const report = asset('report', { retry: { maxAttempts: 1 }, execute: () => load() })

const sales = pipeline('sales', [report], {
  hooks: {
    onRunFailed: (ctx, { target, partition, error, run }) =>
      slack(`${target} of ${partition} has failed: ${error.message} (run ${run})`, ctx),
    onLate: (ctx, { target, open }) => slack(`${target} is late: ${open.join(', ')}`, ctx),
    lateAfter: '30m',
  },
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(sales)
const run = await flow.materialize(report, { partition: '2026-11-29' })
await run.result().catch(() => undefined)
while (posted.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
equal(
  posted[0],
  JSON.stringify({ text: `report of 2026-11-29 has failed: the source is empty (run ${run.id})` }),
)
await flow.close()
service.closeAllConnections()
service.close()
delete process.env.SLACK_WEBHOOK_URL
