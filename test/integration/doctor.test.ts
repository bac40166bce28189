import { AckPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, headers } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, connect, type Finding, pipeline } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { freePort, login, rawServer } from '../kit/guarded.ts'
import { permissionsOf } from '../kit/permissions.ts'
import { freshNamespace, listeningLogger, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const GATES = { secrets: [{ id: 'old', secret: 'a secret of thirty-two bytes or more' }] }
const OTHER = { secrets: [{ id: 'new', secret: 'another secret of thirty-two bytes or more' }] }
const report = asset('report', { execute: () => 'numbers' })
const asks = asset('asks', { execute: (ctx) => ctx.signalGate({ timeout: '1h' }), onSignal: () => 'heard' })
const ANY = { publish: ['>'], subscribe: ['>'] }

it('the doctor finds what is broken on a real server, says what to do, and says what it may not see', {
  timeout: 180_000,
}, async () => {
  const [namespace, monitorPort] = [freshNamespace(), await freePort()]
  const all = { ns: namespace, shards: 1, pipeline: 'p', queue: 'default' }
  const users = { root: ANY, operator: permissionsOf('operator', all), client: permissionsOf('client', all) }
  const listed = Object.entries(users).map(
    ([name, { publish, subscribe }]) =>
      `{ user: ${name}, password: ${name}, permissions: { publish: ${JSON.stringify(publish)}, subscribe: ${JSON.stringify(subscribe)} } }`,
  )
  await using server = await rawServer(`
host: 127.0.0.1
port: {port}
http: "127.0.0.1:${monitorPort}"
jetstream { store_dir: "{dir}", max_file_store: 1G }
authorization { users: [
${listed.join('\n')}
] }
`)
  const monitor = `http://127.0.0.1:${monitorPort}`
  const shown = (findings: readonly Finding[], level: Finding['level']): string[] =>
    findings.filter((one) => one.level === level).map(({ check, about }) => (about ? `${check} (${about})` : check))

  await using root = await connect({ servers: server.url, namespace, nats: login('root'), logger: listeningLogger() })
  await root.setup()
  expect(shown(await root.doctor(), 'error')).toEqual(['engine.active (shard 0)'])

  await using stage = await openStage(server.url, pipeline('p', [report, asks]), {
    namespace,
    nats: login('root'),
    gates: GATES,
    reconcileMs: 86_400_000,
  })
  await (await stage.flow.materialize(report)).result()
  const gated = await stage.flow.materialize(asks)
  await until('the gate is open', async () => (await stage.flow.gates.waiting()).length === 1)
  await using operator = await connect({
    servers: server.url,
    namespace,
    nats: login('operator'),
    gates: GATES,
    logger: listeningLogger(),
  })
  const fine = await operator.doctor({ monitor, apiKeys: [{ id: 'ci', expires: '2999-01-01' }] })
  expect(shown(fine, 'error')).toEqual([])
  expect(shown(fine, 'unseen')).toEqual([])
  expect(shown(fine, 'warn')).toEqual(['server.fsync', 'engine.standby'])
  expect(fine.find(({ check }) => check === 'user')?.says).toContain('operator in account $G')

  await stage.worker?.stop()
  const second = await root.engine()
  await root.materialize(report, { pipeline: pipeline('p', [report, asks]) })
  const raw = await connectNats({ servers: server.url, ...login('root') })
  const jsm = await jetstreamManager(raw)
  await jsm.streams.delete(`OBJ_${namespace}_blobs`)
  const gone = '0-mx0aaaaa-4b8fc6c92886e169'
  await jsm.consumers.add(`${namespace}_WORK_0`, {
    durable_name: `limited__${gone}__many`,
    ack_policy: AckPolicy.Explicit,
    filter_subject: `${namespace}.work.0.p.default.0.own.${gone}.many`,
  })
  const timer = headers()
  timer.set('Nats-Schedule', `@at ${new Date(Date.now() + 3_600_000).toISOString()}`)
  timer.set('Nats-Schedule-Target', `${namespace}.log.0.run.${gone}.timer_fired`)
  await jetstream(raw).publish(`${namespace}.log.0.run.${gone}.timer`, '{}', { headers: timer })
  await until('the task waits', async () => {
    const queues = await collect(jsm.consumers.list(`${namespace}_WORK_0`))
    return queues.some(({ num_pending }) => num_pending > 0)
  })
  await raw.close()

  await using doctor = await connect({
    servers: server.url,
    namespace,
    nats: login('operator'),
    gates: OTHER,
    logger: listeningLogger(),
  })
  const broken = await doctor.doctor({ apiKeys: [{ id: 'ci', expires: '2020-01-01' }] })
  expect(shown(broken, 'error').toSorted()).toEqual(['secrets.waiting (secret old)', `stream (OBJ_${namespace}_blobs)`])
  expect(shown(broken, 'warn').toSorted()).toEqual([
    'orphans.consumers',
    'orphans.timers',
    'secrets.api_key (API key ci)',
    expect.stringMatching(/^work.no_worker \(p=default=\d of shard 0\)$/),
  ])
  expect(shown(broken, 'unseen')).toEqual(['server.fsync'])
  expect(broken.filter(({ level, advice }) => level !== 'ok' && !advice)).toEqual([])
  expect(broken.find(({ check }) => check === 'engine.standby')?.says).toContain('standby')
  await second.stop()

  await using client = await connect({
    servers: server.url,
    namespace,
    nats: login('client'),
    logger: listeningLogger(),
  })
  const narrow = await client.doctor({ monitor: 'http://127.0.0.1:1' })
  expect(shown(narrow, 'unseen')).toEqual(
    expect.arrayContaining(['server.fsync', 'user', `stream (${namespace}_WORK_0)`, 'work.queues', 'engine.standby']),
  )
  expect(shown(narrow, 'error')).toEqual([])
  expect(shown(narrow, 'warn')).toContain('user.denied')
  await gated.cancel()
})
