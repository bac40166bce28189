import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { describe, expect, it, vi } from 'vitest'
import { connect as connectFlow } from '../../src/index.ts'
import { startServer } from '../../src/server/index.ts'
import { isAlive } from '../../src/server/processes.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'

/** Stores one message in a stream, made when it is missing, and returns how many are in it. */
async function storeOne(url: string): Promise<number> {
  const connection = await connect({ servers: url })
  try {
    const manager = await jetstreamManager(connection)
    await manager.streams.add({ name: 'things', subjects: ['things'] })
    await jetstream(connection).publish('things', 'one more')
    return (await manager.streams.info('things')).state.messages
  } finally {
    await connection.close()
  }
}

/** Another process that starts a server on `dir`, once it did. */
async function startElsewhere(dir: string): Promise<{ owner: number; pid: number; port: number }> {
  const fixture = fileURLToPath(new URL('fixtures/start-and-wait.ts', import.meta.url))
  const child = spawn(process.execPath, [fixture, dir], { stdio: ['ignore', 'pipe', 'inherit'] })
  const line = await new Promise<string>((done, fail) => {
    child.stdout.once('data', (data: Buffer) => done(data.toString()))
    child.once('exit', (code) => fail(new Error(`ended with ${code}`)))
  })
  return { owner: child.pid ?? 0, ...(JSON.parse(line) as { pid: number; port: number }) }
}

function killAfterwards(pid: number): Disposable {
  return {
    [Symbol.dispose]() {
      if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    },
  }
}

describe('a server', () => {
  it('takes JetStream requests as soon as it is started, on 127.0.0.1 and a free port, and writes at once', async () => {
    using scratch = scratchFolder()
    await using server = await startServer({ dir: scratch.path })
    expect(server.url).toBe(`nats://127.0.0.1:${server.port}`)
    expect(await storeOne(server.url)).toBe(1)
    const config: unknown = JSON.parse(readFileSync(join(scratch.path, 'server.json'), 'utf8'))
    expect(config).toMatchObject({ host: '127.0.0.1', jetstream: { sync_interval: 'always' } })
  })

  it('that is stopped is gone, and stopping it again does no harm', async () => {
    using scratch = scratchFolder()
    const server = await startServer({ dir: scratch.path })
    await server.stop()
    await server.stop()
    await server.kill()
    expect(isAlive(server.pid)).toBe(false)
    expect(readFileSync(join(scratch.path, 'server.log'), 'utf8')).toContain('Server Exiting')
  })

  it('that is killed comes back on the same folder and port with all its data', async () => {
    using scratch = scratchFolder()
    const first = await startServer({ dir: scratch.path })
    await storeOne(first.url)
    await first.kill()
    await using second = await startServer({ dir: scratch.path, port: first.port })
    expect(second.url).toBe(first.url)
    expect(await storeOne(second.url)).toBe(2)
  })

  it('that is killed by somebody else can be started again at once', async () => {
    using scratch = scratchFolder()
    const first = await startServer({ dir: scratch.path })
    process.kill(first.pid, 'SIGKILL')
    await using second = await startServer({ dir: scratch.path, port: first.port })
    await first.ended
    expect(await storeOne(second.url)).toBe(1)
    await expect(startServer({ dir: scratch.path }), 'the lock is the second one’s').rejects.toThrow()
  })

  it('runs in a folder whose name has quotes, spaces and letters of all kinds', async () => {
    using scratch = scratchFolder()
    await using server = await startServer({ dir: join(scratch.path, 'a "b" $c \\d é #e {') })
    expect(await storeOne(server.url)).toBe(1)
  })

  it('takes messages as large as its option says', async () => {
    using scratch = scratchFolder()
    await using server = await startServer({ dir: scratch.path, maxPayload: 2 * 1024 * 1024 })
    const connection = await connect({ servers: server.url })
    expect(connection.info?.max_payload).toBe(2 * 1024 * 1024)
    await connection.close()
  })

  it('whose port is taken says so', async () => {
    using scratch = scratchFolder()
    const squatter = createServer()
    await new Promise<void>((done) => squatter.listen(0, '127.0.0.1', done))
    const address = squatter.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    await expect(startServer({ dir: scratch.path, port })).rejects.toMatchObject({
      code: 'port_in_use',
      message: `port ${port} of 127.0.0.1 is in use by another program; end that, or name another port (0: any free one)`,
    })
    squatter.close()
    await using server = await startServer({ dir: scratch.path, port })
    expect(server.port).toBe(port)
  })

  it.each([{ port: -1 }, { port: 70_000 }, { port: 1.5 }, { maxPayload: 0 }, { maxPayload: 1e9 }])(
    'is not started with options that cannot be: %o',
    async (options) => {
      await expect(startServer(options)).rejects.toMatchObject({ code: 'invalid' })
    },
  )
})

describe('of two servers on one folder', () => {
  it('the second is refused, in this process and in another', async () => {
    using scratch = scratchFolder()
    const other = await startElsewhere(scratch.path)
    using _owner = killAfterwards(other.owner)
    await expect(startServer({ dir: scratch.path })).rejects.toMatchObject({
      code: 'server_locked',
      message: expect.stringContaining(`process ${other.pid}, port ${other.port}`),
    })
    expect(await storeOne(`nats://127.0.0.1:${other.port}`), 'the first goes on').toBe(1)
    process.kill(other.owner, 'SIGKILL')
    await until('the server has ended', () => !isAlive(other.pid))
    await using mine = await startServer({ dir: scratch.path })
    await expect(startServer({ dir: scratch.path })).rejects.toThrow(/started by this process/)
    expect(await storeOne(mine.url)).toBe(2)
  })

  it('started at the same moment, exactly one runs', async () => {
    using scratch = scratchFolder()
    const starts = await Promise.allSettled(Array.from({ length: 5 }, () => startServer({ dir: scratch.path })))
    const running = starts.filter((start) => start.status === 'fulfilled').map((start) => start.value)
    expect(running).toHaveLength(1)
    await running[0]?.stop()
  })

  it('one that was written by another machine is not touched', async () => {
    using scratch = scratchFolder()
    const lock = { id: 'a', host: 'another-machine', owner: { pid: 1 } }
    writeFileSync(join(scratch.path, 'server.lock'), JSON.stringify(lock))
    await expect(startServer({ dir: scratch.path })).rejects.toThrow(/another machine.*delete that file/)
  })
})

describe('a server does not outlive the process that started it', () => {
  it.each(['SIGTERM', 'SIGKILL'] as const)('when that gets a %s', async (signal) => {
    using scratch = scratchFolder()
    const other = await startElsewhere(scratch.path)
    using _server = killAfterwards(other.pid)
    process.kill(other.owner, signal)
    await until('the server has ended', () => !isAlive(other.pid))
  })

  it('and where it does all the same, the next start on its folder stops it', async () => {
    using scratch = scratchFolder()
    const leftover = await startServer({ dir: scratch.path })
    await storeOne(leftover.url)
    // As if its owner were dead: no process has this id.
    const path = join(scratch.path, 'server.lock')
    const lock = JSON.parse(readFileSync(path, 'utf8')) as { owner: object }
    writeFileSync(path, JSON.stringify({ ...lock, owner: { pid: 2 ** 22 + 1 } }))

    // Several find it at the same time, and one of them gets the folder.
    const starts = await Promise.allSettled(Array.from({ length: 3 }, () => startServer({ dir: scratch.path })))
    const running = starts.filter((start) => start.status === 'fulfilled').map((start) => start.value)
    expect(running).toHaveLength(1)
    expect(isAlive(leftover.pid)).toBe(false)
    expect(await storeOne(running[0]?.url ?? '')).toBe(2)
    await running[0]?.stop()
  })

  it('but a process that only has the id of such a server is left alone', async () => {
    using scratch = scratchFolder()
    const innocent = spawn('sleep', ['60'])
    using _innocent = killAfterwards(innocent.pid ?? 0)
    const server = { pid: innocent.pid, configPath: join(scratch.path, 'server.json') }
    const lock = { id: 'a', host: (await import('node:os')).hostname(), owner: { pid: 2 ** 22 + 1 }, server }
    writeFileSync(join(scratch.path, 'server.lock'), JSON.stringify(lock))
    await using started = await startServer({ dir: scratch.path })
    expect(await storeOne(started.url)).toBe(1)
    expect(isAlive(innocent.pid ?? 0)).toBe(true)
  })
})

describe('a server with a password', () => {
  it('takes nobody without it, and its address holds it', async () => {
    using scratch = scratchFolder()
    await using server = await startServer({ dir: join(scratch.path, 'nats'), password: 'p w/:@%' })
    await expect(connect({ servers: `nats://127.0.0.1:${server.port}`, reconnect: false })).rejects.toThrow(
      /authorization/i,
    )
    await using flow = await connectFlow({ servers: server.url })
    expect(flow.connection.state).toBe('connected')
  })
})

describe.skipIf(process.platform === 'win32')('the folder of a server', () => {
  const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

  it('is for its owner only, and not for git', async () => {
    using scratch = scratchFolder()
    const dir = join(scratch.path, 'nats')
    await using server = await startServer({ dir })
    await using flow = await connectFlow({ servers: server.url })
    await flow.setup()
    expect(modeOf(dir)).toBe('700')
    const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    const open = files
      .map(({ parentPath, name }) => join(parentPath, name))
      .filter((path) => /[1-7]$|[1-7].$/.test(modeOf(path)))
    expect(open.filter((path) => !path.endsWith('.gitignore'))).toEqual([])
    expect(files.length).toBeGreaterThan(5)
    expect(readFileSync(join(dir, '.gitignore'), 'utf8')).toBe('*\n')
  })

  it('keeps a .gitignore that is there', async () => {
    using scratch = scratchFolder()
    writeFileSync(join(scratch.path, '.gitignore'), 'mine\n')
    await using _server = await startServer({ dir: scratch.path })
    expect(readFileSync(join(scratch.path, '.gitignore'), 'utf8')).toBe('mine\n')
  })
})

it.runIf(process.platform === 'linux')('a server inherits no secrets from its process', async () => {
  using scratch = scratchFolder()
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', 'k1:not for the server')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'nor this')
  try {
    await using server = await startServer({ dir: join(scratch.path, 'nats') })
    const environment = readFileSync(`/proc/${server.pid}/environ`, 'utf8')
    expect(environment).toContain('PATH=')
    expect(environment).not.toMatch(/not for the server|nor this/)
  } finally {
    vi.unstubAllEnvs()
  }
})
