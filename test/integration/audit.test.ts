import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, headers } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { serveGates } from '../../src/http/index.ts'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { type AuditEntry, asset, pipeline, schedule } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }
const report = asset('report', { execute: () => 'numbers' })
const asks = asset('asks', {
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: ctx.partition ?? 'none' }),
  onSignal: (_, payload) => ({ payload }),
})
const yearly = schedule('yearly', { every: '365d', run: report })

/** What can be said of an entry before its run is known. */
const shown = ({ kind, by, what, detail }: AuditEntry): string => [kind, by, what, detail].filter(Boolean).join(' | ')

it('the audit lists who did what, on the log and once it is sealed', { timeout: 180_000 }, async () => {
  await using stage = await openStage(server.url, pipeline('p', [report, asks], { schedules: [yearly] }), {
    gates: GATES,
    by: 'shop',
    sealAfter: '1s',
  })
  const { flow, namespace } = stage
  const ana = flow.as('user:ana')
  const beforeMs = Date.now() - 60_000

  const gated = await ana.materialize(asks, { partition: 'a' })
  await until('the gate is open', async () => (await flow.gates.list(gated.id)).length > 0)
  const gate = (await flow.gates.list(gated.id))[0]?.id ?? ''
  await ana.gates.extend(gate, '2h')
  await ana.gates.signal(await ana.gates.token(gate), 'yes', { source: 'github 10.0.0.1' })
  await gated.result()
  const cancelled = await flow.materialize(asks, { partition: 'b', key: 'once' })
  await flow.as('bob').run(cancelled.id).cancel('not needed')
  await rejection(cancelled.result())
  await (await flow.retry(cancelled.id)).cancel()
  await flow.schedules.pause('p/yearly', 'holidays')
  await ana.schedules.resume('p/yearly')
  await (await flow.schedules.trigger('p/yearly')).result()

  const key = newApiKey()
  await using http = await serveGates(flow, { port: 0, apiKeys: [{ id: 'ci', hash: key.hash, assets: ['p/*'] }] })
  const answer = await fetch(`${http.url}/runs/p/report`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key.key}`, 'idempotency-key': 'one' },
  })
  expect(answer.status).toBe(202)

  await using nc = Object.assign(await connectNats({ servers: server.url }), {
    async [Symbol.asyncDispose](this: { close(): Promise<void> }) {
      await this.close()
    },
  })
  const said = headers()
  said.set('Fs-By', 'billing 2')
  await jetstream(nc).publish(`${namespace}.trigger.p.report`, '', { headers: said })
  await jetstream(nc).publish(`${namespace}.trigger.p.nothing`, '', { headers: said })
  await jetstream(nc).publish(`${namespace}.trigger.p.report`)

  const expected = [
    'pipeline.registered | app:shop | p | version',
    'run.requested | user:ana | p/asks@a',
    'gate.extended | user:ana | gate | until',
    'gate.resolved | gate:github/10.0.0.1 user:ana | gate | signaled',
    'run.requested | app:shop | p/asks@b | key once',
    'run.cancel_requested | app:bob | run | not needed',
    'run.requested | app:shop | p/asks@b | retry',
    'run.cancel_requested | app:shop | run',
    'schedule.paused | app:shop | p/yearly | holidays',
    'schedule.resumed | user:ana | p/yearly',
    'schedule.triggered | app:shop | p/yearly',
    'run.requested | http:ci | p/report | key',
    'run.requested | trigger:billing_2 | p/report',
    'trigger.refused | trigger:billing_2 | p/nothing | pipeline p has no asset nothing; there are: report, asks',
    'run.requested | trigger | p/report',
  ]
  const plain = (entry: AuditEntry): string =>
    shown(entry)
      .replace(/version \S+/, 'version')
      .replace(/until \S+/, 'until')
      .replace(/retry of \S+/, 'retry')
      .replace(/key (?!once).*/, 'key')
      .replace(/0-\S+\.asks\.\S+/, 'gate')
      .replace(/\| 0-\S+/, '| run')
  const all = async (): Promise<string[]> => (await flow.audit()).map(plain)
  await until('all is listed', async () => (await all()).length >= expected.length)
  const onLog = await flow.audit()
  expect(onLog.map(plain).toSorted()).toEqual(expected.toSorted())
  expect(onLog.map(({ at }) => at.getTime())).toEqual(onLog.map(({ at }) => at.getTime()).toSorted((a, b) => b - a))

  // What the engine decided names nobody, and so do facts of code.
  const facts = await collect(flow.history(gated.id))
  expect(facts.filter(({ data }) => 'by' in data).map(({ kind }) => kind)).toEqual([
    'run.requested',
    'gate.extended',
    'gate.resolved',
  ])

  const count = async (options: Parameters<typeof flow.audit>[0]): Promise<number> => (await flow.audit(options)).length
  const byAna = expected.filter((line) => line.includes('user:ana')).length
  expect(await count({ by: 'ana' })).toBe(byAna)
  expect(await count({ by: 'trigger:*' })).toBe(2)
  expect(await count({ by: 'billing' })).toBe(0)
  expect(await count({ kind: 'schedule' })).toBe(3)
  expect(await count({ kind: ['schedule.paused', 'gate'] })).toBe(3)
  expect(await count({ since: new Date(beforeMs) })).toBe(expected.length)
  expect(await count({ since: new Date(Date.now() + 60_000) })).toBe(0)
  expect(await count({ until: new Date(beforeMs) })).toBe(0)
  expect((await flow.audit({ limit: 3 })).map(shown)).toEqual(onLog.slice(0, 3).map(shown))
  expect((await flow.audit({ until: onLog[4]?.at ?? new Date(), limit: 1 }))[0]?.seq).toBeLessThan(onLog[4]?.seq ?? 0)
  const inPages: AuditEntry[] = []
  for (let after: AuditEntry | undefined; ; after = inPages.at(-1)) {
    const page = await flow.audit({ limit: 1, ...(after ? { after } : {}) })
    if (page.length === 0) break
    inPages.push(...page)
  }
  expect(inPages).toEqual(onLog)

  const jsm = await jetstreamManager(nc)
  await until('the facts have left the log', async () => {
    const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: '>' })
    const left = Object.keys(info.state.subjects ?? {}).join(' ')
    return ![gated.id, cancelled.id, '.hold.', '.triggered.'].some((part) => left.includes(part))
  })
  expect((await flow.audit()).map(shown)).toEqual(onLog.map(shown))
  // A page of the logs says from when on it is whole.
  const page = await flow.inspect.facts({ run: gated.id })
  expect(page).toMatchObject({ facts: [], next: undefined })
  expect(page.sealedBefore?.getTime()).toBeGreaterThan(facts.at(-1)?.at.getTime() ?? Number.POSITIVE_INFINITY)
  expect(await count({ by: 'ana', since: new Date(beforeMs) })).toBe(byAna)

  expect((await rejection(flow.audit({ kind: 'run.request' }))).message).toContain('run.requested')
  expect((await rejection(flow.audit({ limit: 0 }))).message).toContain('limit must be')
  expect(() => flow.as('two words')).toThrow('without spaces')
})
