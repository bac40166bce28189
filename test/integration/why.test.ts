/** Explanations on a real server: what is read for them, and what the command prints. */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { program } from '../../src/cli/program.ts'
import { asset, type Flow, input, pipeline, schedule, type Why } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const amount = input('amount', z.number().default(1))
const first = asset('first', { dependsOn: [amount], execute: async (_ctx, deps) => ({ amount: deps.amount }) })
const second = asset('second', { dependsOn: [first], execute: async (_ctx, deps) => deps.first.amount + 1 })
const flaky = asset('flaky', {
  retry: { maxAttempts: 2, backoff: '10ms' },
  execute: async () => {
    throw new Error('it is broken')
  },
})
const after = asset('after', { dependsOn: [flaky], execute: async () => 1 })
const asks = asset('asks', {
  execute: async (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `asks-${ctx.runId}` }),
  onSignal: async (_ctx, payload) => ({ heard: payload }),
})
const parent = asset('parent', {
  execute: async (ctx) => ctx.run(flaky),
})
const many = asset('many', {
  scatter: () => ['a', 'b', 'c', 'd'],
  scatterOptions: { retry: { maxAttempts: 1 }, failureMode: 'partial', failureThreshold: { count: 0 } },
  execute: ({ scatterKey }) => {
    if (scatterKey === 'b' || scatterKey === 'd') throw new Error('not this one')
    return scatterKey
  },
})
const held = asset('held', {
  scatter: () => ['a', 'b'],
  execute: (ctx) => ctx.signalGate({ timeout: '1h' }),
  onSignal: () => 1,
})
const all = pipeline('why', [amount, first, second, flaky, after, asks, parent, many, held], {
  schedules: [schedule('rare', { every: '365d', run: asks })],
})

const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }

let stage: Stage
let flow: Flow
beforeAll(async () => {
  stage = await openStage(server.url, all, { sealAfter: '1s', gates: GATES })
  flow = stage.flow
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
})

const texts = ({ verdict, chain }: Why): string[] => [verdict, ...chain].map(({ text }) => text)

/** Each sentence names a fact that is in the history of the run that it is about. */
async function expectProven(found: Why): Promise<void> {
  for (const { fact, text } of [found.verdict, ...found.chain]) {
    const run = fact.ids.run
    if (run === undefined) continue
    const facts = await factsOf(flow, run)
    const proof = facts.find(({ seq }) => seq === fact.seq)
    expect(proof, text).toMatchObject({ kind: fact.kind, at: fact.at })
  }
}

/** What a command prints, as the only lines of this process. */
async function printed(...args: string[]): Promise<string> {
  const lines: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line))
  try {
    const where = ['--server', server.url, '--namespace', stage.namespace]
    await program().parseAsync(['node', 'flowstone', 'why', ...args, ...where])
  } finally {
    log.mockRestore()
  }
  return lines.join('\n')
}

it('explains a run that failed, on the log and sealed, and what was skipped for it', async () => {
  const run = await flow.materialize(after, { key: 'k1' })
  await rejection(run.result())
  const found = await flow.why(run.id)
  expect(found.status).toBe('failed')
  expect(found.verdict.text).toBe(`Run ${run.id} failed, because flaky failed: it is broken.`)
  expect(texts(found).join('\n')).toMatch(/under key "k1".*Attempt 1 of flaky failed.*attempt 2 may start/s)
  await expectProven(found)
  const skipped = await flow.why({ run: run.id, asset: 'after' })
  expect(skipped.verdict.text).toBe('after was skipped, because flaky, which it depends on, failed.')
  await expectProven(skipped)
  expect(await rejection(flow.why(`${run.id}.aftr`))).toMatchObject({ code: 'not_found' })
  expect(await rejection(flow.why('0-nobody'))).toMatchObject({ code: 'not_found' })

  const lines = (await printed(run.id)).split('\n')
  expect(lines[0]).toBe(found.verdict.text)
  expect(lines.at(-1)).toContain('run.finished')
  expect(JSON.parse(await printed(`${run.id}.after`, '--json'))).toMatchObject({
    status: 'skipped',
    verdict: { fact: { kind: 'asset.skipped', shard: 0 } },
  })

  await (await flow.materialize(first)).result()
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const left = async (): Promise<object> =>
    (await jsm.streams.info(`${stage.namespace}_LOG_0`, { subjects_filter: `${stage.namespace}.log.0.*.${run.id}.>` }))
      .state.subjects ?? {}
  await until('the run has left the log', async () => Object.keys(await left()).length === 0)
  await nc.close()
  const reader = await stage.connect()
  expect(await reader.why(run.id)).toEqual(found)
  expect(await reader.why(`${run.id}.after`)).toEqual(skipped)
})

it('explains who waits: at a gate, for a turn, for another run', async () => {
  const concurrency = { key: 'one', limit: 1 }
  const holder = await flow.materialize(asks, { concurrency })
  await until('it waits at its gate', async () => (await holder.view())?.assets.asks?.status === 'suspended')
  const waits = await flow.why(holder.id)
  expect(waits.verdict.text).toMatch(`Run ${holder.id} waits. asks waits for a signal at gate ${holder.id}.asks.`)
  expect(waits.verdict.fact.kind).toBe('asset.suspended')
  expect(waits.state).toEqual([{ text: expect.stringContaining('asks waits for a signal'), about: expect.anything() }])
  const queued = await flow.materialize(first, { concurrency })
  await until('it is queued', async () => (await queued.view())?.status === 'queued')
  const turn = await flow.why(queued.id)
  expect(turn.status).toBe('queued')
  expect(turn.verdict.text).toContain(`Run ${holder.id} of asks has a place under concurrency key "one"`)
  expect(turn.runs).toEqual([holder.id])
  await expectProven(turn)
  await flow.gates.signalByCorrelationKey(`asks-${holder.id}`, 'yes', { source: 'test' })
  await Promise.all([holder.result(), queued.result()])
  expect(texts(await flow.why(holder.id)).join('\n')).toContain('A signal from test answered gate')
  await until('the state shows the end', async () => (await queued.view())?.finishedAt !== undefined)
  const started = await flow.why(queued.id)
  expect(texts(started).join('\n')).toContain(`came when run ${holder.id} ended`)
  await expectProven(started)

  const calling = await flow.materialize(parent)
  await rejection(calling.result())
  const called = await flow.why(calling.id)
  expect(called.runs).toHaveLength(1)
  expect(texts(called).join('\n')).toMatch(/parent waits for run .*ended as failed at flaky: it is broken/s)
  await expectProven(called)
  expect((await flow.why(called.runs[0] ?? '')).chain.map(({ fact }) => fact.kind).slice(0, 2)).toEqual([
    'child.requested',
    'run.requested',
  ])
})

it('explains failed instances, values that were taken, and the newest value', async () => {
  const scattered = await flow.materialize(many)
  await rejection(scattered.result())
  await until('the state shows the end', async () => (await scattered.view())?.finishedAt !== undefined)
  const failed = await flow.why(scattered.id)
  expect(texts(failed).join('\n')).toMatch(
    /(2 instances of many failed, the first of them instance 1|Instance [13] of many failed): not this one/,
  )
  await expectProven(failed)

  const slow = await flow.materialize(held)
  const scatter = `${slow.id}.held`
  await until('its instances wait', async () => (await flow.scatter.status(scatter)).suspended === 2)
  await flow.scatter.pause(scatter, 'lunch')
  await until('it is paused', async () => (await flow.scatter.status(scatter)).paused !== undefined)
  const open = await flow.why(slow.id)
  expect(open.verdict.text).toMatch(/^Run \S+ waits\. The scatter of held is paused.*: lunch\.$/)
  expect(open.state.map(({ text }) => text)).toContain('0 of 2 instances of held have succeeded, 0 have failed.')
  await slow.cancel('enough')

  const one = await flow.materialize(second, { partition: 'p', input: { amount: 1 } })
  expect(await one.result()).toBe(2)
  const two = await flow.materialize(second, { partition: 'p', input: { amount: 1 }, upstream: 'stale' })
  const other = await flow.materialize(second, { partition: 'p', input: { amount: 5 }, upstream: 'stale' })
  await Promise.all([two.result(), other.result()])
  const taken = await flow.why(`${two.id}.first`)
  expect(taken.status).toBe('reused')
  expect(texts(taken).join('\n')).toContain(
    `Run ${one.id} made first.\nThe run takes the value of first of run ${one.id}: it was made of the same values`,
  )
  await expectProven(taken)
  const made = await flow.why(`${other.id}.first`)
  expect(texts(made).join('\n')).toContain('was made of another value of amount')

  const value = await flow.why('why/second@p')
  expect(value.verdict.text).toMatch(/^Run .* made the newest value of why\/second@p\.$/)
  expect([two.id, other.id]).toContain(value.of.run)
  expect((await flow.why({ asset: second, partition: 'p' })).verdict).toEqual(value.verdict)
  expect((await flow.why('after')).verdict.text).toMatch(/^why\/after has no value\. Run .* failed/)
  for (const [asset, message] of [
    ['why/parent@no', 'asset why/parent@no has no value'],
    ['why/secnd', 'pipeline why has no asset secnd; did you mean second?'],
    ['whi/second', 'there is no pipeline whi; did you mean why?'],
  ] as const)
    expect(await rejection(flow.why(asset))).toMatchObject({ code: 'not_found', message })
})

it('explains a run of a schedule and one of a trigger by what asked for them', async () => {
  const trigger = await connectNats({ servers: server.url })
  await trigger.request(`${stage.namespace}.trigger.why.first`, '{"partition":"t"}', { timeout: 5000 })
  await trigger.close()
  await until('its run is there', async () => (await flow.runs({ partition: 't' })).length > 0)
  const runs = await flow.runs({ partition: 't' })
  const explained = await Promise.all(runs.map(({ id }) => flow.why(id)))
  const asked = explained.find(({ chain }) => chain[0]?.fact.kind === 'trigger.received')
  expect(asked?.chain.slice(0, 2).map(({ text }) => text)).toEqual([
    'A message came on trigger.why.first.',
    expect.stringMatching(/^A trigger asked for why\/first: message \d+ of the stream of triggers/),
  ])
  const scheduled = await flow.schedules.trigger('why/rare')
  await until('its run is there', async () => (await flow.runs({ target: asks, open: true })).length > 0)
  const [run] = await flow.runs({ target: asks, open: true })
  const found = await flow.why(run?.id ?? '')
  expect(found.chain.slice(0, 2).map(({ fact }) => fact.kind)).toEqual(['schedule.fired', 'run.requested'])
  expect(scheduled).toBeDefined()
})
