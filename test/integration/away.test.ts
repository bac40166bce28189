import { setTimeout as sleep } from 'node:timers/promises'
import { errors } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, connect, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { leaderGet } from '../../src/log/nats.ts'
import { ensureStream } from '../../streams/ensure-stream.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { patiently } from '../../streams/patiently.ts'
import { runCommand, startCommand, writeModule } from '../cli/kit.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { collect } from '../kit/collect.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const slow = asset('slow', {
  execute: ({ signal }) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
})

/** Enough to ask for what the server does not answer. */
const ASKED_MS = 200

async function ended(wait: Promise<unknown>): Promise<number> {
  await wait.catch(() => undefined)
  return performance.now()
}

it('whoever waits for a run leaves at once by a signal while the server is away, and a close ends too', async () => {
  await using server = await rawNats()
  await using host = await openStage(server.url, pipeline('p', [slow]), { worker: { drainTimeout: '100ms' } })
  const logger = listeningLogger()
  const flow = await connect({ servers: server.url, namespace: host.namespace, logger })
  const run = await flow.materialize(slow)
  const leave = new AbortController()
  const { signal } = leave
  let updates = 0
  const watching = (async () => {
    for await (const _ of run.watch({ signal })) updates += 1
  })()
  const waits = [
    watching,
    run.result({ signal }),
    flow.limiter
      .take('b', { limit: 1, per: 'hour' }, { signal })
      .then(() => flow.limiter.take('b', { limit: 1, per: 'hour' }, { signal, maxWait: Number.POSITIVE_INFINITY })),
    flow.limiter.takeSlot('s', 1, { signal }).then(() => flow.limiter.takeSlot('s', 1, { signal })),
  ].map(ended)
  await until('it is watched', () => updates > 0)
  await server.stop()
  await until('it is said', () => logger.lines.some((line) => /server away since \d{4}-/.test(line)))
  // It has looked for the run before; these look for the first time.
  const other = flow.run(run.id)
  const late = [
    other.result({ signal }),
    collect(other.watch({ signal })),
    collect(flow.logs(run.id, { follow: true, signal })),
  ]
  waits.push(...late.map(ended))
  await sleep(ASKED_MS)
  const abortedMs = performance.now()
  leave.abort()
  for (const atMs of await Promise.all(waits)) expect(atMs - abortedMs).toBeLessThan(5000 * busy())
  const closing = performance.now()
  await flow.close()
  expect(performance.now() - closing).toBeLessThan(3000 * busy())
  await server.start()
})

it('flowstone run says since when the server is away, and goes on when it is back', async () => {
  using scratch = scratchFolder()
  await using server = await rawNats()
  const release = Promise.withResolvers<string>()
  const held = asset('held', { execute: () => release.promise })
  await using host = await openStage(server.url, pipeline('p', [held]))
  writeModule(
    scratch.path,
    'pipeline.ts',
    `import { asset, pipeline } from 'flowstone'
export default pipeline('p', [asset('held', { execute: () => '' })])`,
  )
  const where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: host.namespace } }
  await using command = startCommand(['run', 'held', '--file', 'pipeline.ts'], where)
  await command.says('held running')
  await server.stop()
  await command.says('server away since')
  await server.start()
  await command.says('server is back')
  release.resolve('done')
  expect(await command.ended).toMatchObject({ code: 0, stdout: '"done"\n' })
})

it('commands take the user and its password from the environment or an option, and do not show them', async () => {
  using scratch = scratchFolder()
  const users = [{ user: 'app', password: 's3cret' }]
  await using server = await rawNats({ authorization: { users } })
  writeModule(
    scratch.path,
    'pipeline.ts',
    `import { asset, pipeline } from 'flowstone'
export default pipeline('p', [asset('a', { execute: () => 1 })])`,
  )
  const env = {
    NATS_URL: server.url,
    NATS_USER: 'app',
    NATS_PASSWORD: 's3cret',
    FLOWSTONE_NAMESPACE: freshNamespace(),
    FLOWSTONE_GATE_SECRETS: `k1:${'x'.repeat(40)}`,
  }
  await using engine = startCommand(['engine'], { cwd: scratch.path, env })
  await engine.says('active')
  const unknown = await runCommand(['status', '--user', 'other'], { cwd: scratch.path, env })
  expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('refuses the credentials') })
  expect(unknown.stderr).not.toContain('s3cret')
})

it('a read that the server refuses for a moment is asked again', async () => {
  await using server = await bareNats()
  const api = await connectNats({ servers: server.url })
  let asked = 0
  api.subscribe('$JS.API.STREAM.MSG.GET.S', {
    callback: (_, message) => {
      asked += 1
      const error = { code: 503, err_code: 10008, description: 'JetStream system temporarily unavailable' }
      const found = { subject: 's', seq: 7, time: new Date(0).toISOString(), data: '' }
      message.respond(JSON.stringify(asked < 3 ? { error } : { message: found }))
    },
  })
  await api.flush()
  const connection = await Connection.open({ servers: server.url })
  const found = await connection.read((nc) => leaderGet(nc, 'S', { last_by_subj: 's' }))
  expect(found?.seq).toBe(7)
  expect(asked).toBe(3)
  await connection.close()
  await api.close()
})

it('what JetStream cannot answer for a moment is asked again while a namespace is made', async () => {
  await using server = await bareNats()
  const api = await connectNats({ servers: server.url })
  const asked: string[] = []
  const refusal = { code: 503, err_code: 10008, description: 'JetStream system temporarily unavailable' }
  const missing = { code: 404, err_code: 10059, description: 'stream not found' }
  const answers = [{ error: refusal }, { error: missing }, { error: refusal }, { error: missing }, { config: {} }]
  for (const subject of ['$JS.API.STREAM.INFO.S', '$JS.API.STREAM.CREATE.S'])
    api.subscribe(subject, {
      callback: (_, message) => {
        message.respond(JSON.stringify(answers[asked.length]))
        asked.push(subject.split('.')[3] ?? '')
      },
    })
  await api.flush()
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc, { timeout: 60_000 })
  await patiently(() => ensureStream(jsm, { name: 'S' }))
  expect(asked).toEqual(['INFO', 'INFO', 'CREATE', 'INFO', 'CREATE'])
  // No answer at all.
  let tries = 0
  const late = new FlowStoneError('topology', 'S could not be made', { cause: new errors.TimeoutError() })
  await patiently(async () => {
    tries += 1
    if (tries < 3) throw late
  })
  expect(tries).toBe(3)
  await expect(patiently(() => Promise.reject(new InvalidError('no name')))).rejects.toThrow('no name')
  await nc.close()
  await api.close()
})

it('only a connect asks for the account, which no server answers while a cluster has no leader of all JetStream', async () => {
  await using server = await rawNats()
  const each = asset('each', { scatter: () => [1, 2, 3], execute: ({ scatterKey }) => scatterKey })
  await using stage = await openStage(server.url, pipeline('p', [each]), { sealAfter: '1s', reconcileMs: 100 })
  const { flow, engine, worker, namespace } = stage
  const nc = await connectNats({ servers: server.url })
  let asked = 0
  nc.subscribe('$JS.API.INFO', {
    callback: () => {
      asked += 1
    },
  })
  await nc.flush()
  const run = await flow.materialize(each)
  await run.result()
  await flow.runs()
  const jsm = await jetstreamManager(nc)
  await until('it is sealed', async () => {
    const subjects_filter = `${namespace}.log.0.run.${run.id}.requested`
    return (await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter })).state.subjects === undefined
  })
  await worker?.stop()
  await engine?.stop()
  expect(asked).toBe(0)
  await nc.close()
})
