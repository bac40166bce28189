import { createHmac } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { gateHandler } from '../../../src/http/index.ts'
import { asset, connect, pipeline } from '../../../src/index.ts'

const hookSecret = 'what you gave GitHub for this webhook'
const oldHookSecret = 'what you gave GitHub before'

// #region asset
const checked = asset('checked', {
  execute: async (ctx) => {
    const gate = await ctx.openGate({ correlationKey: 'check/17', timeout: '1h' })
    return gate.wait()
  },
})
// #endregion

const flow = await connect()

// #region handler
const checkRun = z.object({
  action: z.literal('completed'),
  check_run: z.object({ external_id: z.string() }),
})

const handler = gateHandler(flow, {
  verified: {
    ci: {
      scheme: 'github',
      secret: [hookSecret, oldHookSecret], // any of them may have signed
      correlationKey: (payload) => {
        const { data } = checkRun.safeParse(payload)
        return data && `check/${data.check_run.external_id}` // undefined: for no gate
      },
    },
  },
})
// #endregion

await flow.engine()
await flow.worker(pipeline('ci', [checked]))
const run = await flow.materialize(checked)
while ((await flow.gates.list(run.id))[0]?.status !== 'waiting') await sleep(20)

const send = async (payload: unknown): Promise<void> => {
  const body = JSON.stringify(payload)
  const signature = `sha256=${createHmac('sha256', hookSecret).update(body).digest('hex')}`
  const request = new Request('http://localhost/hooks/flowstone/verified/ci', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Hub-Signature-256': signature },
    body,
  })
  const answer = await handler(request)
  console.log(answer.status, (await answer.text()).trim())
}
await send({ zen: 'a ping' })
await send({ action: 'completed', check_run: { external_id: '17' } })
await run.result()
await flow.close()
// prints: 200 {"status":"ignored"}
// prints: 200 {"status":"accepted","gate":"….checked.a1n1","repeated":false}
