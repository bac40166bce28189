/**
 * Servers that a bench starts: on free ports of 127.0.0.1, with their data in a scratch folder.
 * `stopServers` stops those that still run when the bench is interrupted.
 */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { chownSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { findFreePorts } from '../../src/server/ports.ts'
import { findProgram, type Program } from './needs.ts'

export interface Server extends AsyncDisposable {
  readonly url: string
  readonly version: string
}

const START_MS = 60_000
const STOP_MS = 5_000
const running = new Set<AsyncDisposable>()

export async function stopServers(): Promise<void> {
  await Promise.allSettled([...running].map((server) => server[Symbol.asyncDispose]()))
}

/** Is stopped once: when its user has ended, or with the others when the bench is interrupted. */
export function register<S extends AsyncDisposable>(server: S): S {
  let stopping: Promise<void> | undefined
  const once: AsyncDisposable = {
    [Symbol.asyncDispose]() {
      stopping ??= Promise.resolve(server[Symbol.asyncDispose]()).finally(() => running.delete(once))
      return stopping
    },
  }
  running.add(once)
  return { ...server, ...once }
}

export async function startRedis(appendfsync: string): Promise<Server> {
  const program = find('redis-server')
  const [port = 0] = await findFreePorts(1)
  const dir = scratch()
  const settings = { bind: '127.0.0.1', port, dir, save: '', appendonly: 'yes', appendfsync }
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)])
  const stop = await launch(program, args, dir, { ready: /Ready to accept connections/ })
  return { url: `redis://127.0.0.1:${port}`, version: `Redis ${versionOf(program)}`, ...stop }
}

/** As it is by default, but with the memory that its manual advises. */
export async function startPostgres(): Promise<Server> {
  // Debian links some of the programs to elsewhere.
  const bin = dirname(realpathSync(find('initdb')))
  const [port = 0] = await findFreePorts(1)
  const dir = scratch()
  const user = unprivileged()
  if (user) chownSync(dir, user.uid, user.gid)
  const data = join(dir, 'data')
  const init = ['-D', data, '-U', 'bench', '-A', 'trust', '-E', 'UTF8', '--no-sync']
  execFileSync(join(bin, 'initdb'), init, { ...user, cwd: dir, stdio: ['ignore', 'ignore', 'inherit'] })
  const settings = ['shared_buffers=1GB', 'max_wal_size=4GB', 'unix_socket_directories=', 'listen_addresses=127.0.0.1']
  const args = ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])]
  const stop = await launch(join(bin, 'postgres'), args, dir, { ready: /ready to accept connections/, ...user })
  const version = `PostgreSQL ${versionOf(join(bin, 'postgres'))}`
  return { url: `postgres://bench@127.0.0.1:${port}/postgres`, version, ...stop }
}

export interface Launch extends SpawnOptions {
  /** What the server prints when it is ready. */
  readonly ready: RegExp
}

/** Starts a server. What stops it also deletes its folder. */
export async function launch(
  program: string,
  args: readonly string[],
  dir: string,
  { ready, ...options }: Launch,
): Promise<AsyncDisposable> {
  // In a process group of its own: it ends when it is stopped here, with all that it has started.
  const child = spawn(program, args, { ...options, cwd: dir, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const server = register({
    async [Symbol.asyncDispose]() {
      await stop(child)
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
    },
  })
  let said = ''
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`it is not ready after ${START_MS / 1000} s`)), START_MS)
      const hear = (text: Buffer): void => {
        said = `${said}${text}`.slice(-2000)
        if (ready.test(said)) resolve()
      }
      child.stdout?.on('data', hear)
      child.stderr?.on('data', hear)
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`it ended with ${code}`)))
      child.once('exit', () => clearTimeout(timer))
    })
  } catch (error) {
    await server[Symbol.asyncDispose]()
    throw new Error(`${program} did not start. It said:\n${said}`, { cause: error })
  }
  return server
}

async function stop(child: ChildProcess): Promise<void> {
  const { pid } = child
  if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  // For PostgreSQL this means not to wait for its clients.
  child.kill('SIGINT')
  const timer = setTimeout(() => process.kill(-pid, 'SIGKILL'), STOP_MS)
  await exited
  clearTimeout(timer)
}

export function scratch(): string {
  return mkdtempSync(join(tmpdir(), 'flowstone-peers-'))
}

function find(program: Program): string {
  const found = findProgram(program)
  if (found === undefined) throw new Error(`${program} is not installed`)
  return found
}

export function versionOf(program: string): string {
  return /\d+(\.\d+)+/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[0] ?? ''
}

/** PostgreSQL refuses to run as root. */
function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const id = (option: string, user: string): number => Number(execFileSync('id', [option, user], { stdio: 'pipe' }))
  for (const user of ['postgres', 'nobody']) {
    try {
      return { uid: id('-u', user), gid: id('-g', user) }
    } catch {
      // There is no such user.
    }
  }
  throw new Error('PostgreSQL refuses to run as root: start this as another user, or add the user "postgres"')
}
