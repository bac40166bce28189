/** `ctx.log`: what is kept of it, where, and how it is read. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, connect, type LogLine, type LogsOptions, pipeline } from '../../src/index.ts'
import { runCommand, startCommand, writeModule } from '../cli/kit.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
const GIB = 1024 ** 3
const gates = { secrets: [{ id: 't', secret: 's'.repeat(32) }] }

/** Lines leave some 100 ms after they were logged. */
async function linesOf(stage: Stage, run: string, count: number, options: LogsOptions = {}): Promise<LogLine[]> {
  let lines: LogLine[] = []
  await until(`${count} lines of ${run}`, async () => {
    lines = await collect(stage.flow.logs(run, options))
    return lines.length >= count
  })
  return lines
}

describe('lines of ctx.log', () => {
  const greets = asset('greets', {
    retry: { maxAttempts: 2, backoff: '1ms..1ms' },
    execute: ({ log, attempt }) => {
      log.debug('begins')
      if (attempt === 1) {
        log.error('it fails', new Error('no', { cause: new Error('because') }))
        throw new Error('no')
      }
      log.info('hello', { to: ['a', 1n], at: new Date(0) })
      return 1
    },
  })
  const many = asset('many', {
    dependsOn: [greets],
    scatter: (_, { log }) => {
      log.info('finds keys')
      return ['x', 'y', 'z'].map((name) => ({ name }))
    },
    execute: ({ log, scatterKey }) => {
      log.warn(`does ${scatterKey.name}`)
      return scatterKey.name
    },
    gather: async (results, { log }) => {
      const all = await collect(results)
      log.info('has all', { count: all.length })
      return all.length
    },
  })
  const decides = asset('decides', {
    dependsOn: [many],
    execute: (ctx) => {
      ctx.log.info('asks')
      return ctx.signalGate({ timeout: '1h' })
    },
    onSignal: ({ log }, decision) => {
      log.info('is answered', { decision })
      return 'done'
    },
  })
  const all = pipeline('logged', [greets, many, decides])

  it('say of which run, asset, phase, attempt and instance they are, also behind a gate', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(decides, { partition: 'eu' })
    let [gate] = await flow.gates.waiting()
    await until('the gate', async () => {
      ;[gate] = await flow.gates.waiting()
      return gate !== undefined
    })
    await flow.gates.signal(await flow.gates.token(gate?.id ?? ''), { approved: true })
    await run.result()
    const lines = await linesOf(stage, run.id, 11)
    const of = { run: run.id, pipeline: 'logged', partition: 'eu', worker: stage.worker?.id }
    expect(lines.every((line) => line.at instanceof Date)).toBe(true)
    const key = (name: string) => ({ key: { name } })
    expect(lines.map(({ at: _, ...line }) => line)).toMatchObject([
      { ...of, asset: 'greets', level: 'debug', message: 'begins', phase: 'execute', attempt: 1 },
      {
        ...of,
        asset: 'greets',
        level: 'error',
        message: 'it fails',
        attempt: 1,
        fields: { error: { message: 'no', stack: expect.any(String), cause: { message: 'because' } } },
      },
      { ...of, asset: 'greets', level: 'debug', message: 'begins', phase: 'execute', attempt: 2 },
      { ...of, asset: 'greets', message: 'hello', fields: { to: ['a', '1'], at: '1970-01-01T00:00:00.000Z' } },
      { ...of, asset: 'many', level: 'info', message: 'finds keys', phase: 'scatter', attempt: 1 },
      { ...of, asset: 'many', level: 'warn', message: 'does x', phase: 'execute', index: 0, ...key('x') },
      { ...of, asset: 'many', level: 'warn', message: 'does y', phase: 'execute', index: 1, ...key('y') },
      { ...of, asset: 'many', level: 'warn', message: 'does z', phase: 'execute', index: 2, ...key('z') },
      { ...of, asset: 'many', message: 'has all', phase: 'gather', fields: { count: 3 } },
      { ...of, asset: 'decides', message: 'asks', phase: 'execute' },
      { ...of, asset: 'decides', message: 'is answered', phase: 'signal' },
    ])

    const messages = async (options: LogsOptions): Promise<string[]> =>
      (await collect(flow.logs(run.id, options))).map(({ message }) => message)
    expect(await messages({ asset: 'many', instance: 1 })).toEqual(['does y'])
    expect(await messages({ level: 'warn' })).toEqual(['it fails', 'does x', 'does y', 'does z'])
    expect(await messages({ level: 'error' })).toEqual(['it fails'])
    expect(await messages({ asset: 'greets', level: 'info' })).toEqual(['it fails', 'hello'])
    expect(await messages({ since: lines.at(-1)?.at ?? new Date() })).toContain('is answered')
    expect(await messages({ since: new Date(Date.now() + 60_000) })).toEqual([])

    // Pages of two, until there are no more.
    const paged: string[] = []
    let [cursor, more]: [string | undefined, boolean] = [undefined, true]
    while (more) {
      const page = await flow.inspect.logs(run.id, { cursor, limit: 2 })
      expect(page.lines.length).toBeLessThanOrEqual(2)
      paged.push(...page.lines.map(({ message }) => message))
      ;({ next: cursor, more } = page)
    }
    expect(paged.toSorted()).toEqual(lines.map(({ message }) => message).toSorted())
    expect(await flow.inspect.logs(run.id, { cursor })).toMatchObject({ lines: [], next: cursor, more: false })
  })

  it('go to the logger of the worker, too, with what they are bound to', async () => {
    const said: unknown[] = []
    const take =
      (level: string) =>
      (...given: unknown[]) =>
        void said.push([level, ...given])
    const logger = { debug: take('debug'), info: take('info'), warn: take('warn'), error: take('error') }
    await using stage = await openStage(server.url, all, { worker: { logger } })
    const run = await stage.flow.materialize(many)
    await run.result()
    const worker = stage.worker?.id
    const of = { run: run.id, pipeline: 'logged', phase: 'execute', worker }
    expect(said).toContainEqual([
      'info',
      'hello',
      { ...of, asset: 'greets', attempt: 2, to: ['a', 1n], at: new Date(0) },
    ])
    expect(said).toContainEqual([
      'error',
      'it fails',
      {
        ...of,
        asset: 'greets',
        attempt: 1,
        error: expect.objectContaining({ message: 'no', cause: expect.objectContaining({ message: 'because' }) }),
      },
    ])
    expect(said).toContainEqual(['warn', 'does y', { ...of, asset: 'many', attempt: 1, index: 1, key: { name: 'y' } }])
  })

  it('are not kept where a worker does not keep them, or not of this level', async () => {
    await using none = await openStage(server.url, all, { worker: { logs: false } })
    const run = await none.flow.materialize(many)
    await run.result()
    await none.worker?.stop()
    expect(await collect(none.flow.logs(run.id))).toEqual([])

    await using some = await openStage(server.url, all, { worker: { logs: { level: 'warn' } } })
    const other = await some.flow.materialize(many)
    await other.result()
    await some.worker?.stop()
    const lines = await collect(some.flow.logs(other.id))
    expect(lines.map(({ level }) => level)).toEqual(['error', 'warn', 'warn', 'warn'])

    const bad = some.flow.worker(all, { logs: { level: 'loud' as 'info' } })
    expect((await rejection(bad)).message).toContain(
      'worker: logs.level must be debug, info, warn or error, got "loud"',
    )
  })

  it('never fail the code that logs, whatever it logs', async () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const logger = {
      ...listeningLogger(),
      warn: () => {
        throw new Error('the logger fails')
      },
    }
    const odd = asset('odd', {
      execute: ({ log }) => {
        log.warn('a proxy', proxy)
        log.warn(new Error('an error is no message') as unknown as string)
        log.info('x'.repeat(1_000_000), { y: 'y'.repeat(1_000_000) })
        return 'fine'
      },
    })
    await using stage = await openStage(server.url, pipeline('odd', [odd]), { worker: { logger } })
    const run = await stage.flow.materialize(odd)
    expect(await run.result()).toBe('fine')
    const lines = await linesOf(stage, run.id, 3)
    expect(lines.map(({ message }) => message.length).toSorted((a, b) => a - b)).toEqual([
      'a proxy'.length,
      'an error is no message'.length,
      8193,
    ])
    const [first, second] = await collect(stage.flow.logs(run.id, { level: 'warn' }))
    expect(first).toMatchObject({ message: 'a proxy' })
    expect(second).toMatchObject({ message: 'an error is no message', fields: { error: { name: 'Error' } } })
  })

  it('are dropped when there are too many at a time, and a line says how many', async () => {
    const loud = asset('loud', {
      execute: ({ log }) => {
        for (let i = 0; i < 2000; i++) log.info(`${i} `.repeat(2000).slice(0, 8000))
        return 1
      },
    })
    await using stage = await openStage(server.url, pipeline('loud', [loud]))
    const run = await stage.flow.materialize(loud)
    await run.result()
    const [said] = await linesOf(stage, run.id, 1, { level: 'warn' })
    const dropped = Number(said?.fields?.dropped)
    expect(said).toMatchObject({ level: 'warn', message: `${dropped} lines were dropped here: too many at a time` })
    let kept = 0
    for await (const { level } of stage.flow.logs(run.id)) if (level === 'info') kept += 1
    expect(kept + dropped).toBe(2000)
    expect(kept).toBeGreaterThan(500)
  })

  it('are left out beyond so many a second, but for warnings, and a line says how many', async () => {
    const loud = asset('loud', {
      execute: ({ log }) => {
        for (let i = 0; i < 1000; i++) log.info(`line ${i}`)
        for (let i = 0; i < 10; i++) log.warn(`warning ${i}`)
        return 1
      },
    })
    const all = pipeline('loud', [loud])
    await using stage = await openStage(server.url, all, { worker: { logs: { maxPerSecond: 10 } } })
    const run = await stage.flow.materialize(loud)
    await run.result()
    await stage.worker?.stop()
    const lines = await collect(stage.flow.logs(run.id))
    const dropped = lines.reduce((sum, { fields }) => sum + Number(fields?.dropped ?? 0), 0)
    expect(lines.filter(({ level }) => level === 'info').length + dropped).toBe(1000)
    expect(dropped).toBeGreaterThan(0)
    const warnings = lines.filter(({ message }) => message.startsWith('warning'))
    expect(warnings).toHaveLength(10)
  })
})

describe('flow.logs', () => {
  it('follows a run until it has ended, over several workers', async () => {
    const seen = new Set<number>()
    const workers = new Set<string>()
    const spread = asset('spread', {
      scatter: () => Array.from({ length: 20 }, (_, i) => i),
      execute: async ({ log, index }) => {
        log.info(`did ${index}`)
        // So each line is read before the run ends, and no worker does all.
        await until(`line ${index}, and lines of both workers`, () => seen.has(index) && workers.size === 2)
      },
    })
    const all = pipeline('spread', [spread])
    await using stage = await openStage(server.url, all, { worker: { concurrency: 2 } })
    const second = await stage.connect()
    const other = await second.worker(all, { concurrency: 2 })
    const run = await stage.flow.materialize(spread)
    const lines: LogLine[] = []
    for await (const line of stage.flow.logs(run.id, { follow: true })) {
      lines.push(line)
      seen.add(line.index ?? -1)
      workers.add(line.worker)
    }
    expect((await run.view())?.status).toBe('succeeded')
    expect(lines.map(({ index }) => index).toSorted((a = 0, b = 0) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, i) => i),
    )
    expect(workers).toEqual(new Set([stage.worker?.id, other.id]))
  })

  it('ends when its signal is aborted, and says what it cannot read', async () => {
    const waits = asset('waits', { execute: (ctx) => ctx.signalGate({ timeout: '1h' }) })
    await using stage = await openStage(server.url, pipeline('w', [waits]), { gates })
    const run = await stage.flow.materialize(waits)
    const abort = new AbortController()
    const following = collect(stage.flow.logs(run.id, { follow: true, signal: abort.signal }))
    await until('it waits', async () => (await stage.flow.gates.waiting()).length === 1)
    abort.abort()
    expect(await following).toEqual([])
    const { flow } = stage
    const refused = async (options: object, id: string = run.id): Promise<string> =>
      (await rejection(collect(flow.logs(id, options)))).message
    expect(await refused({}, '0-nobody')).toContain('there is no run 0-nobody')
    expect(await refused({ instance: 1 })).toContain('instance needs asset')
    expect(await refused({ level: 'loud' })).toContain('level must be debug, info, warn or error')
    expect(await refused({ folow: true })).toContain('did you mean follow')
    expect(await refused({ since: 'now' })).toContain('since must be a Date')
    expect((await rejection(flow.inspect.logs(run.id, { cursor: 'x' }))).message).toContain('cursor must be')
  })
})

describe('several processes', () => {
  const SOURCE = `import { existsSync } from 'node:fs'
import { asset, pipeline } from 'flowstone'
const many = asset('many', {
  scatter: () => Array.from({ length: 60 }, (_, n) => n),
  retry: { maxAttempts: 5 },
  execute: async ({ log, index, attempt }) => {
    log.info('does ' + index, { pid: process.pid })
    if (index === 0 && attempt === 1) log.warn('is careful', { index })
    while (existsSync('hold')) await new Promise((resolve) => setTimeout(resolve, 20))
  },
})
export default pipeline('p', [many])
`

  it('log to one stream; lines that a worker had sent are there after it was killed, and a command shows all', async () => {
    using scratch = scratchFolder()
    await using stage = await openStage(server.url, [], { engine: false, worker: false })
    const where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
    writeModule(scratch.path, 'pipeline.ts', SOURCE)
    const hold = join(scratch.path, 'hold')
    writeFileSync(hold, '')
    await using engine = startCommand(['engine'], where)
    const worker = () => startCommand(['worker', 'pipeline.ts', '--concurrency', '3'], { ...where, group: true })
    await using first = worker()
    await using second = worker()
    for (const part of [engine, first, second]) await part.says('active')
    const run = await stage.flow.request('p/many')
    await using following = startCommand(['logs', run.id, '-f'], where)
    await following.says('is careful')
    // A worker gives back what it does not begin soon, so the other one gets some of it.
    const lines = async () => await collect(stage.flow.logs(run.id))
    await until('both have begun', async () => new Set((await lines()).map(({ worker }) => worker)).size === 2)
    const before = await lines()
    process.kill(-(first.child.pid ?? 0), 'SIGKILL')
    const killedAt = new Date()
    rmSync(hold)
    await until('the other worker goes on', async () => {
      return (await lines()).some(({ at }) => at > killedAt)
    })
    // What the killed one had in hand is tried again much later.
    await run.cancel('seen enough')
    const { stdout } = await following.ended
    const all = await lines()
    expect(new Set(all.map(({ fields }) => fields?.pid).filter(Boolean)).size).toBe(2)
    expect(all).toEqual(expect.arrayContaining(before))
    for (const { message } of all) expect(stdout).toContain(message)
    expect(stdout).toMatch(/^\S+Z warn {2}many\[0\] {2}is careful {2}index=0$/m)

    const shown = await runCommand(['logs', `${run.id}.many`, '--instance', '0', '--level', 'warn', '--json'], where)
    expect(JSON.parse(shown.stdout)).toMatchObject({ asset: 'many', index: 0, level: 'warn', message: 'is careful' })
    const bad = await runCommand(['logs', run.id, '--instance', '3'], where)
    expect(bad).toMatchObject({ code: 2, stderr: expect.stringContaining('--instance needs the asset') })
  })
})

describe('the stream of logs', () => {
  const one = asset('one', {
    execute: ({ log }) => {
      log.info('here')
      return 1
    },
  })
  const all = pipeline('one', [one])

  it('has the limits that were named last', async () => {
    await using roomy = await rawNats({ jetstream: { max_file_store: 8 * GIB } })
    const nc = await connectNats({ servers: roomy.url })
    const jsm = await jetstreamManager(nc)
    const namespace = freshNamespace()
    const limits = async () => {
      const { max_age, max_bytes, discard } = (await jsm.streams.info(`${namespace}_LOGS`)).config
      return { days: max_age / 1e9 / 86_400, max_bytes, discard }
    }
    await using flow = await connect({ servers: roomy.url, namespace })
    await flow.setup()
    expect(await limits()).toEqual({ days: 7, max_bytes: 1024 ** 3, discard: 'old' })
    await flow.setup({ logsMaxAgeMs: 86_400_000, logsMaxBytes: 10 * 1024 ** 2 })
    expect(await limits()).toEqual({ days: 1, max_bytes: 10 * 1024 ** 2, discard: 'old' })
    await flow.setup()
    expect(await limits()).toEqual({ days: 1, max_bytes: 10 * 1024 ** 2, discard: 'old' })
    expect((await rejection(flow.setup({ logsMaxBytes: 5 }))).message).toContain('logsMaxBytes must be')
    await nc.close()
  })

  const account = { jetstream: { max_file: GIB / 2 }, users: [{ user: 'u', password: 'p' }] }
  it.each([
    ['a server with 2 GiB', { jetstream: { max_file_store: 2 * GIB } }, [256, 256, 256, 256, 256, 64]],
    ['an account with 512 MiB', { accounts: { A: account }, no_auth_user: 'u' }, [64, 64, 64, 64, 64, 16]],
    ['a server with 3 MiB', { jetstream: { max_file_store: 3 * 1024 ** 2 } }, [0, 0]],
  ])('takes a quarter at most of what is left: %s', async (_, config, expected) => {
    await using small = await rawNats(config)
    const nc = await connectNats({ servers: small.url })
    const jsm = await jetstreamManager(nc)
    const sizes: number[] = []
    for (const [i] of expected.entries()) {
      await using flow = await connect({ servers: small.url, namespace: `small${i}`, logger: listeningLogger() })
      await flow.setup()
      const stream = await jsm.streams.info(`small${i}_LOGS`).catch(() => undefined)
      sizes.push((stream?.config.max_bytes ?? 0) / 1024 ** 2)
      const of = (await flow.doctor()).find(({ check, about }) => check === 'stream' && about === `small${i}_LOGS`)
      expect(of?.says).toContain(stream ? `room for ${sizes.at(-1)} MiB` : 'is not there')
    }
    expect(sizes).toEqual(expected)
    // Others find room, too.
    await jsm.streams.add({ name: 'OTHER', subjects: ['other'], max_bytes: 1024 ** 2 })
    await nc.close()
  })

  it('is found room for in each of the namespaces that are made at once where there is little', async () => {
    await using small = await rawNats({ jetstream: { max_file_store: 6 * GIB } })
    const nc = await connectNats({ servers: small.url })
    const jsm = await jetstreamManager(nc)
    const made = Array.from({ length: 12 }, (_, i) => `at-once-${i}`)
    const setUp = async (namespace: string): Promise<void> => {
      await using flow = await connect({ servers: small.url, namespace, logger: listeningLogger() })
      await flow.setup()
    }
    // Together they ask for eight times as much as there is.
    for (const some of [made.slice(0, 6), made.slice(6)]) await Promise.all(some.map(setUp))
    const sizes = await Promise.all(made.map(async (ns) => (await jsm.streams.info(`${ns}_LOGS`)).config.max_bytes))
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(6 * GIB)
    await jsm.streams.add({ name: 'OTHER', subjects: ['other'], max_bytes: 1024 ** 2 })
    await nc.close()
  })

  it('has no lines of runs that are pruned', async () => {
    await using stage = await openStage(server.url, all, { sealAfter: '1s' })
    const { flow, namespace } = stage
    const first = await flow.materialize(one)
    await first.result()
    await linesOf(stage, first.id, 1)
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const messages = async () => (await jsm.streams.info(`${namespace}_LOGS`)).state.messages
    expect(await messages()).toBe(1)
    const last = await flow.materialize(one)
    await last.result()
    await until('it is pruned', async () => {
      await flow.retention.prune({ olderThan: '1s' })
      return (await messages()) < 2 && (await first.view()) === undefined
    })
    await nc.close()
  })

  it('is done without where it is gone, until there is one', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    const nc = await connectNats({ servers: server.url })
    await (await jetstreamManager(nc)).streams.delete(`${namespace}_LOGS`)
    await nc.close()
    expect(await (await flow.materialize(one)).result()).toBe(1)
    await until('the engine has made it again, and lines are kept', async () => {
      const run = await flow.materialize(one)
      await run.result()
      const lines = await collect(flow.logs(run.id, { follow: true })).catch(() => [])
      return lines.length === 1
    })
  })

  it('is done without by a worker that may not write to it', async () => {
    const admin = { user: 'admin', pass: 'x' }
    const permissions = { publish: { allow: '>', deny: ['*.logs.>'] } }
    await using guarded = await rawNats({
      authorization: {
        users: [
          { user: 'admin', password: 'x' },
          { user: 'app', password: 'x', permissions },
        ],
      },
    })
    const namespace = freshNamespace()
    const logger = listeningLogger()
    await using flow = await connect({ servers: guarded.url, namespace, nats: admin, logger: listeningLogger() })
    await flow.engine()
    await using app = await connect({
      servers: guarded.url,
      namespace,
      nats: { user: 'app', pass: 'x' },
      logger,
    })
    const worker = await app.worker(all)
    for (let i = 0; i < 3; i++) expect(await (await flow.materialize(one)).result()).toBe(1)
    await worker.stop()
    const said = logger.lines.filter((line) => line.includes('.logs.'))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('lines of ctx.log are not kept')
  })
})
