import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, connect, pipeline } from '../../src/index.ts'
import { consequenceOf, deniedBy, remedyOf } from '../../src/log/permissions.ts'
import { runCommand } from '../cli/kit.ts'
import { collect } from '../kit/collect.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'

const admin = { user: 'admin', pass: 'x' }
const app = { user: 'app', pass: 'x' }

/** A user `admin` who may do all, and a user `app` who may do all but this. */
function without(publish: string[], subscribe: string[] = []): Record<string, unknown> {
  const permissions = { publish: { allow: '>', deny: publish }, subscribe: { allow: '>', deny: subscribe } }
  return {
    authorization: {
      users: [
        { user: 'admin', password: 'x' },
        { user: 'app', password: 'x', permissions },
      ],
    },
  }
}

const one = asset('one', { execute: () => 1 })
const pipe = pipeline('p', [one])

async function makeNamespace(url: string, namespace: string): Promise<void> {
  await using flow = await connect({ servers: url, namespace, nats: admin })
  await flow.setup()
}

async function namespaceOn(url: string): Promise<string> {
  const namespace = freshNamespace()
  await makeNamespace(url, namespace)
  return namespace
}

it('connect says at once which permission it lacks to hear answers', async () => {
  await using server = await rawNats(without([], ['_INBOX.>']))
  const namespace = await namespaceOn(server.url)
  const logger = listeningLogger()
  const began = performance.now()
  const error = await rejection(connect({ servers: server.url, namespace, nats: app, logger }))
  const message = expect.stringMatching(/subscribe _INBOX\.>; .* or NATS_INBOX_PREFIX$/)
  expect(error).toMatchObject({ code: 'denied', message })
  expect(performance.now() - began).toBeLessThan(3000 * busy())
  expect(logger.lines.filter((line) => /subscribe _INBOX\.>/.test(line))).toHaveLength(1)
})

it('what may not be published is refused at once by name', async () => {
  await using server = await rawNats(without(['*.log.>']))
  const namespace = await namespaceOn(server.url)
  const logger = listeningLogger()
  await using flow = await connect({ servers: server.url, namespace, nats: app, logger })
  const began = performance.now()
  const error = await rejection(flow.materialize(one, { pipeline: pipe }))
  expect(error).toMatchObject({ code: 'denied', message: expect.stringContaining(`publish ${namespace}.log.0.>`) })
  expect(performance.now() - began).toBeLessThan(3000 * busy())
  expect(flow.connection.denied).toMatchObject([{ operation: 'publish', permission: `${namespace}.log.0.>` }])
})

it('a limit that may not be read or written is refused at once by name', async () => {
  const namespace = freshNamespace()
  const subjects = [`$KV.${namespace}_limits.>`, `$JS.API.STREAM.MSG.GET.KV_${namespace}_limits`]
  for (const denied of subjects) {
    await using server = await rawNats(without([denied]))
    await makeNamespace(server.url, namespace)
    await using flow = await connect({ servers: server.url, namespace, nats: app, logger: listeningLogger() })
    const missing = { code: 'denied', message: expect.stringContaining(`publish ${denied}`) }
    expect(await rejection(flow.limiter.take('b', { limit: 5, per: 'minute' }))).toMatchObject(missing)
    expect(await rejection(flow.limiter.takeSlot('s', 1, { lease: '5s' }))).toMatchObject(missing)
  }
})

it('a history whose messages may not be asked for is refused at once by name', async () => {
  const namespace = freshNamespace()
  const permission = `$JS.API.CONSUMER.MSG.NEXT.${namespace}_LOG_0.>`
  await using server = await rawNats(without([permission]))
  await makeNamespace(server.url, namespace)
  await using flow = await connect({ servers: server.url, namespace, nats: admin, logger: listeningLogger() })
  await flow.engine()
  await flow.worker(pipe)
  const run = await flow.materialize(one, { pipeline: pipe })
  await run.result()
  await using denied = await connect({ servers: server.url, namespace, nats: app, logger: listeningLogger() })
  const missing = { code: 'denied', message: expect.stringContaining(`publish ${permission}`) }
  const began = performance.now()
  expect(await rejection(collect(denied.history(run.id)))).toMatchObject(missing)
  expect(await rejection(denied.verify())).toMatchObject(missing)
  expect(performance.now() - began).toBeLessThan(6000 * busy())
})

it('a gather whose messages may not be asked for waits for the permission, and costs no attempt', async () => {
  const namespace = freshNamespace()
  await using server = await rawNats(without([`$JS.API.CONSUMER.MSG.NEXT.${namespace}_LOG_0.>`]))
  await makeNamespace(server.url, namespace)
  const logger = listeningLogger()
  await using flow = await connect({ servers: server.url, namespace, nats: admin, logger: listeningLogger() })
  await flow.engine()
  await using other = await connect({ servers: server.url, namespace, nats: app, logger })
  const gather = async (results: AsyncIterable<unknown>): Promise<number> => (await collect(results)).length
  const many = asset('many', { scatter: () => [1, 2, 3], execute: () => 1, gather })
  const spread = pipeline('spread', [many])
  await other.worker(spread)
  const run = await flow.materialize(many, { pipeline: spread })
  await until('it lacks a permission', () => logger.lines.some((line) => line.includes('CONSUMER.MSG.NEXT')))
  server.reload(without([]))
  expect(await run.result({ signal: within(30_000) })).toBe(3)
  expect((await collect(flow.history(run.id))).map(({ kind }) => kind)).not.toContain('attempt.ended')
})

it('an engine that may not read the proof says so once and goes on, and seals where the proof is off', async () => {
  const [off, on] = [freshNamespace(), freshNamespace()]
  await using server = await rawNats(without([off, on].map((ns) => `$JS.API.STREAM.MSG.GET.${ns}_PROOF`)))
  const [offLogger, onLogger] = [listeningLogger(), listeningLogger()]
  for (const namespace of [off, on]) await makeNamespace(server.url, namespace)
  await using flow = await connect({ servers: server.url, namespace: off, nats: app, logger: offLogger })
  await using other = await connect({ servers: server.url, namespace: on, nats: app, logger: onLogger })
  await flow.engine({ proof: false, sealAfter: '1s' })
  await other.engine({ sealAfter: '1s' })
  const nc = await connectNats({ servers: server.url, ...admin })
  const jsm = await jetstreamManager(nc)
  const onLog = async (ns: string, filter: string): Promise<number> => {
    const info = await jsm.streams.info(`${ns}_LOG_0`, { subjects_filter: `${ns}.log.0.${filter}` })
    return Object.keys(info.state.subjects ?? {}).length
  }
  for (const one of [flow, other]) {
    await one.worker(pipe)
    nc.publish(`${one.namespace}.trigger.p.one`, '{}')
  }
  await until('all of it has left the log', async () => {
    // But for the last fact.
    return (await onLog(off, 'run.>')) <= 1 && (await onLog(off, 'trigger.*.received')) === 0
  })
  await until('the run has ended', async () => (await onLog(on, 'run.*.finished')) === 1)
  await nc.close()
  const said = ({ lines }: { readonly lines: string[] }): string[] => lines.filter((line) => /^\S+_PROOF /.test(line))
  expect(said(offLogger)).toEqual([expect.stringContaining('nothing says what leaves the log of shard 0: not allowed')])
  expect(said(onLogger)).toEqual([expect.stringContaining('takes no blocks of shard 0, and nothing leaves its log')])
})

it('an engine that may not claim a shard says so to the doctor, to status and to its readiness probe', async () => {
  const namespace = freshNamespace()
  const permission = `$KV.${namespace}_control.>`
  await using server = await rawNats(without([permission]))
  await makeNamespace(server.url, namespace)
  const logger = listeningLogger()
  await using flow = await connect({ servers: server.url, namespace, nats: app, logger })
  await using other = await connect({ servers: server.url, namespace, nats: admin, logger })
  await flow.ready()
  const engine = await flow.engine()
  await until('it lacks a permission', () => engine.refused?.code === 'denied')
  const missing = expect.stringContaining(`publish ${permission}`)
  expect(await rejection(flow.ready())).toMatchObject({ code: 'unavailable', message: missing })
  expect(await other.inspect.engines()).toEqual([{ id: engine.id, active: [], denied: missing }])
  const doctor = (await other.doctor()).filter(({ check }) => check === 'engine.denied')
  expect(doctor).toMatchObject([{ level: 'error', about: engine.id, says: missing }])
  using scratch = scratchFolder()
  const env = { NATS_URL: server.url, NATS_USER: 'admin', NATS_PASSWORD: 'x', FLOWSTONE_NAMESPACE: namespace }
  const status = await runCommand(['status'], { cwd: scratch.path, env })
  expect(status.stderr).toContain(`${engine.id} cannot work: not allowed to publish`)
  // Another one is as good as ever.
  await (await other.engine()).active
  await other.ready()
})

it('acknowledgements that are denied are said once, with what follows from it', async () => {
  await using server = await rawNats(without(['$JS.ACK.>']))
  const namespace = await namespaceOn(server.url)
  const logger = listeningLogger()
  await using flow = await connect({ servers: server.url, namespace, nats: app, logger })
  await flow.engine()
  await flow.worker(pipe)
  for (let i = 0; i < 5; i++) expect(await (await flow.materialize(one, { upstream: 'all' })).result()).toBe(1)
  await until('the server denied some', () => server.log().split('$JS.ACK.').length > 4)
  const said = logger.lines.filter((line) => /\$JS\.ACK/.test(line))
  expect(said).toEqual([
    expect.stringMatching(/lacks the permission publish \$JS\.ACK\.>; tasks cannot be acknowledged/),
  ])
})

it('hints that may not be heard are said once for all of them', async () => {
  await using server = await rawNats(without([], ['*.notify.>', '*.workers.>']))
  const namespace = await namespaceOn(server.url)
  const logger = listeningLogger()
  await using flow = await connect({ servers: server.url, namespace, nats: app, logger })
  await flow.engine()
  await flow.worker(pipe)
  expect(await (await flow.materialize(one)).result()).toBe(1)
  const said = logger.lines.filter((line) => /lacks the permission/.test(line))
  expect(said.filter((line) => line.includes(`subscribe ${namespace}.notify.>`))).toHaveLength(1)
  expect(said.filter((line) => line.includes(`subscribe ${namespace}.workers.>`))).toHaveLength(1)
})

it('a worker that may not pull fails to start by name', async () => {
  await using server = await rawNats(without(['$JS.API.CONSUMER.>']))
  const namespace = await namespaceOn(server.url)
  await using flow = await connect({ servers: server.url, namespace, nats: app, logger: listeningLogger() })
  expect(await rejection(flow.worker(pipe))).toMatchObject({
    code: 'denied',
    message: expect.stringContaining(`publish $JS.API.CONSUMER`),
  })
})

it.each([
  ['$JS.ACK.S.C.1.2.3.4.5', '$JS.ACK.>'],
  ['$JS.API.CONSUMER.MSG.NEXT.ns_WORK_0.p__q__0', '$JS.API.CONSUMER.MSG.NEXT.ns_WORK_0.>'],
  ['$JS.API.CONSUMER.CREATE.ns_LOG_0.abc', '$JS.API.CONSUMER.CREATE.ns_LOG_0.>'],
  ['$JS.API.STREAM.MSG.GET.ns_LOG_0', '$JS.API.STREAM.MSG.GET.ns_LOG_0'],
  ['$JS.API.DIRECT.GET.ns_LOG_0', '$JS.API.DIRECT.GET.ns_LOG_0'],
  ['$KV.ns_limits.rate.b', '$KV.ns_limits.>'],
  ['$O.ns_blobs.C.abc', '$O.ns_blobs.>'],
  ['ns.log.3.asset.a.x.end.failed', 'ns.log.3.>'],
  ['ns.work.0.p.q.0.shared', 'ns.work.0.>'],
  ['ns.notify.run.x', 'ns.notify.>'],
  ['ns.trigger.orders', 'ns.trigger.orders'],
  ['_INBOX.abc.*', '_INBOX.>'],
])('the permission for %s is %s', (subject, permission) => {
  expect(deniedBy('publish', subject).permission).toBe(permission)
})

it.each(['_INBOX', '_INBOX_worker', 'answers.of.worker'])('the inbox %s is known as one', (prefix) => {
  const denied = deniedBy('subscription', `${prefix}.abc.*`, prefix)
  expect(denied.permission).toBe(`${prefix}.>`)
  expect(consequenceOf(denied)).toContain('no answer')
  expect(remedyOf(denied)).toContain('inboxPrefix')
  for (const subject of ['ns.notify.run.*', 'ns.feed.>', '$KV.ns_control.claim.0'])
    expect(remedyOf(deniedBy('subscription', subject, prefix))).toBe('')
})
