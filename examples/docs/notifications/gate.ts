import { equal } from 'node:assert/strict'
import { asset, connect, type Decision, pipeline } from '../../../src/index.ts'

const sent: { to: string; text: string; key: string }[] = []
const mail = async (to: string, text: string, options: { key: string }): Promise<void> => {
  sent.push({ to, text, key: options.key })
}

// #region hook
const published = asset('published', {
  execute: (ctx) => ctx.approval({ message: 'Publish the report?', timeout: '24h' }),
  onSignal: (ctx, { approved }: Decision) => (approved ? 'published' : ctx.fail('rejected')),
})

const news = pipeline('news', [published], {
  hooks: {
    onGateOpened: (ctx, { kind, asset, callbackUrl }) =>
      kind === 'approval'
        ? mail('editor@example.com', `${asset} waits: ${callbackUrl}`, { key: ctx.idempotencyKey })
        : undefined,
  },
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(news)
const run = await flow.materialize(published)
while (sent.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
const [, token = ''] = /signal\/(.+)$/.exec(sent[0]?.text ?? '') ?? []
await flow.gates.signal(token, { approved: true })
equal(await run.result(), 'published')
await flow.close()
