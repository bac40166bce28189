import { equal } from 'node:assert/strict'
import { asset, connect, type Decision, pipeline } from '../../../src/index.ts'

const sent: string[] = []
const mail = async (message: { to: string; text: string; key: string }): Promise<void> => {
  sent.push(message.text)
}

// #region open
const published = asset('published', {
  execute: async (ctx) => {
    const gate = await ctx.openApproval({ message: 'Publish the report?', timeout: '24h' })
    await mail({ to: 'editor@example.com', text: gate.callbackUrl, key: gate.id })
    return gate.wait()
  },
  onSignal: (ctx, { approved }: Decision) => (approved ? 'published' : ctx.fail('rejected')),
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('news', [published]))
const run = await flow.materialize(published)
while (sent.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
await flow.gates.signal(sent[0]?.split('/').at(-1) ?? '', { approved: true })
equal(await run.result(), 'published')
await flow.close()
