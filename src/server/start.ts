import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { renderConfig, SERVER_USER } from './config.ts'
import { ensureNatsServer } from './ensure.ts'
import { acquireLock, type Lock } from './lock.ts'
import { readPort } from './ports.ts'
import { readServerInfoWhenReady, type ServerInfo } from './probe.ts'
import { endWithThisProcess, isAlive, sendSignal } from './processes.ts'

/** Options of `startServer`. */
export interface ServerOptions {
  /** Folder for data, configuration, log and lock; made when missing. Default: `.flowstone`. */
  dir?: string
  /** Port on 127.0.0.1. Default: 0, any free one. */
  port?: number
  /**
   * `always`: on disk before it is acknowledged. `default`: nats-server's own, every 2 minutes,
   * faster, and what was acknowledged last is lost in a power cut (not when only the server is
   * killed). Default: `always`.
   */
  syncInterval?: 'always' | 'default'
  /** Largest message, in bytes. Default: nats-server's own, 1 MiB. It does not go above 64 MiB. */
  maxPayload?: number
  /**
   * What clients must know, as user `flowstone`; `url` of the running server holds both. Default:
   * none, anybody on this machine may connect.
   */
  password?: string
  /** See EnsureOptions. */
  version?: string
  /** See EnsureOptions. */
  serverPath?: string
  /**
   * See EnsureOptions: it is about fetching. The server itself writes to `server.log` in its
   * folder, never here.
   */
  quiet?: boolean
  /** Be a node of a cluster; use startCluster for one that is complete. Default: alone. */
  cluster?: { name: string; node: string; port: number; routes: readonly string[] }
  /**
   * How long to wait until it takes requests, in ms. Default: 60,000, because a large store takes a
   * while to read.
   */
  readyTimeoutMs?: number
}

/**
 * A nats-server that this process started. It does not keep the process alive, and it ends with it:
 * at a normal end, by a signal, and (not on Windows) even by SIGKILL.
 */
export interface RunningServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly pid: number
  readonly version: string
  /** Absolute. */
  readonly dir: string
  /** Resolves when the server has ended, whoever ended it. */
  readonly ended: Promise<void>
  /**
   * Clean stop: SIGTERM, and SIGKILL after 15 s. Resolves when it is gone; harmless when it already
   * is.
   */
  stop(): Promise<void>
  /**
   * Sends a signal. For signals that end it, resolves when it is gone; then it can be started again
   * on the same folder and port. Default: SIGKILL, as a crash would.
   */
  kill(signal?: NodeJS.Signals): Promise<void>
}

const STOP_PATIENCE_MS = 15_000
const MAX_LOG_BYTES = 8 * 1024 * 1024
const ENDING_SIGNALS: ReadonlySet<NodeJS.Signals> = new Set(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGABRT'])

/**
 * Starts a nats-server with JetStream on 127.0.0.1 and resolves when it takes requests.
 *
 * A server that an earlier, dead process left behind on the same folder is stopped first.
 * @throws FlowStoneError `server_locked` when a living process uses the folder;
 * `server_start_failed`, with the server's output, when it does not start; and those of
 * ensureNatsServer. InvalidError for options that are not valid.
 */
export async function startServer(options: ServerOptions = {}): Promise<RunningServer> {
  validate(options)
  const { serverPath, version, quiet } = options
  const binary = await ensureNatsServer({
    ...(serverPath === undefined ? {} : { serverPath }),
    ...(version === undefined ? {} : { version }),
    ...(quiet === undefined ? {} : { quiet }),
  })
  const dir = resolve(options.dir ?? '.flowstone')
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  ignoreInGit(dir)
  const lock = await acquireLock(join(dir, 'server.lock'))
  try {
    return await launch(binary.path, dir, lock, options)
  } catch (error) {
    lock.release()
    throw error
  }
}

const OPTIONS: OptionNames<ServerOptions> = {
  dir: true,
  port: true,
  syncInterval: true,
  maxPayload: true,
  password: true,
  version: true,
  serverPath: true,
  quiet: true,
  cluster: true,
  readyTimeoutMs: true,
}

function validate(options: ServerOptions): void {
  refuseUnknown('startServer', options, OPTIONS)
  const { port = 0, maxPayload } = options
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new InvalidError(`port: must be 0 (any free one) to 65535, not ${port}`)
  }
  if (maxPayload !== undefined && !(Number.isInteger(maxPayload) && maxPayload > 0 && maxPayload <= 64 * 1024 * 1024)) {
    throw new InvalidError(`maxPayload: must be 1 to 67108864 bytes, not ${maxPayload}`)
  }
}

async function launch(program: string, dir: string, lock: Lock, options: ServerOptions): Promise<RunningServer> {
  const configPath = join(dir, 'server.json')
  const portsDir = join(dir, 'ports')
  const logPath = join(dir, 'server.log')
  // A killed server leaves its file behind, and the next one may get the same process id.
  rmSync(portsDir, { recursive: true, force: true })
  mkdirSync(portsDir)
  writeFileSync(
    configPath,
    renderConfig({
      name: options.cluster?.node ?? 'flowstone',
      port: options.port ?? 0,
      storeDir: dir,
      portsDir,
      syncInterval: options.syncInterval ?? 'always',
      maxPayload: options.maxPayload,
      password: options.password,
      cluster: options.cluster,
    }),
    { mode: 0o600 },
  )
  if (process.platform !== 'win32') chmodSync(configPath, 0o600)

  const logStart = trimmedSize(logPath)
  const child = spawnServer(program, configPath, logPath)
  const ended = new Promise<void>((done) => {
    child.once('exit', () => done())
    child.once('error', () => done())
  })
  const { pid } = child
  if (pid === undefined) {
    const reason = await new Promise<Error>((done) => child.once('error', done))
    throw new FlowStoneError('server_start_failed', `${program} cannot be run: ${reason.message}`, { cause: reason })
  }

  lock.setServer({ pid, configPath })
  const endAtExit = () => sendSignal(pid, 'SIGTERM')
  process.on('exit', endAtExit)
  const callOffGuard = endWithThisProcess(pid)
  void ended.then(() => {
    process.off('exit', endAtExit)
    callOffGuard()
    lock.release()
  })

  try {
    const ready = await waitUntilReady(child, pid, portsDir, options)
    lock.setServer({ pid, configPath, port: ready.port, serverId: ready.info.serverId })
    return handle(child, pid, ended, dir, { ...ready, password: options.password })
  } catch (error) {
    child.kill('SIGKILL')
    await whileAwake(ended)
    const said = tail(logPath, logStart)
    if (/address already in use/i.test(said))
      throw new FlowStoneError(
        'port_in_use',
        `port ${options.port} of 127.0.0.1 is in use by another program; end that, or name another port (0: any free one)`,
        { cause: error },
      )
    throw new FlowStoneError(
      'server_start_failed',
      `nats-server did not start on ${dir}: ${messageOf(error)}\n${said}`.trimEnd(),
      { cause: error },
    )
  }
}

function spawnServer(program: string, configPath: string, logPath: string): ChildProcess {
  const log = openSync(logPath, 'a', 0o600)
  // What it writes is for its owner: messages, and what stands in them.
  const mask = process.umask(0o077)
  try {
    const child = spawn(program, ['-c', configPath], {
      env: serverEnvironment(process.env),
      stdio: ['ignore', log, log],
      // A process group of its own: Ctrl-C goes to this process, which finishes its work and then
      // stops the server.
      detached: process.platform !== 'win32',
      windowsHide: true,
    })
    child.unref()
    return child
  } finally {
    process.umask(mask)
    closeSync(log)
  }
}

async function waitUntilReady(
  child: ChildProcess,
  pid: number,
  portsDir: string,
  { readyTimeoutMs = 60_000, password }: ServerOptions,
): Promise<{ port: number; info: ServerInfo }> {
  const deadline = performance.now() + readyTimeoutMs
  let reason = 'it opened no port'
  while (performance.now() < deadline) {
    if (hasEnded(child)) throw new Error('it ended at once')
    const port = readPort(portsDir, pid)
    if (port !== undefined) {
      try {
        return { port, info: await readServerInfoWhenReady(port, 2_000, password) }
      } catch (error) {
        reason = messageOf(error)
      }
    }
    await sleep(5)
  }
  throw new Error(`not ready after ${readyTimeoutMs / 1000} s: ${reason}`)
}

function handle(
  child: ChildProcess,
  pid: number,
  ended: Promise<void>,
  dir: string,
  ready: { port: number; info: ServerInfo; password: string | undefined },
): RunningServer {
  const login = ready.password === undefined ? '' : `${SERVER_USER}:${encodeURIComponent(ready.password)}@`
  const stop = async () => {
    if (hasEnded(child)) return await ended
    child.kill('SIGTERM')
    const patience = setTimeout(() => child.kill('SIGKILL'), STOP_PATIENCE_MS)
    await whileAwake(ended)
    clearTimeout(patience)
  }
  return {
    url: `nats://${login}127.0.0.1:${ready.port}`,
    port: ready.port,
    pid,
    version: ready.info.version,
    dir,
    ended,
    stop,
    async kill(signal = 'SIGKILL') {
      child.kill(signal)
      if (ENDING_SIGNALS.has(signal)) await whileAwake(ended)
    },
    [Symbol.asyncDispose]: stop,
  }
}

/**
 * The rest of this process's environment is none of the server's business: secrets of gates,
 * credentials of clouds.
 */
function serverEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => SERVER_VARIABLES.test(name)))
}

const SERVER_VARIABLES =
  /^(PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SystemRoot|SystemDrive|windir|LD_LIBRARY_PATH|GO(MAXPROCS|MEMLIMIT|GC|DEBUG))$/i

/** Unless somebody has said otherwise: what lies here is data, and a password perhaps. */
function ignoreInGit(dir: string): void {
  try {
    writeFileSync(join(dir, '.gitignore'), '*\n', { flag: 'wx' })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null || (child.pid !== undefined && !isAlive(child.pid))
}

/**
 * The server does not keep this process alive, so whoever waits for its end must, or Node ends in
 * the middle of it.
 */
async function whileAwake(ended: Promise<void>): Promise<void> {
  const awake = setInterval(() => {}, 1_000)
  await ended
  clearInterval(awake)
}

/** The log's size, after starting it anew when it has grown too large. */
function trimmedSize(logPath: string): number {
  const size = statSync(logPath, { throwIfNoEntry: false })?.size ?? 0
  if (size <= MAX_LOG_BYTES) return size
  rmSync(logPath)
  return 0
}

/** The last lines that this start wrote into the log. */
function tail(logPath: string, from: number): string {
  const lines = readFileSync(logPath).subarray(from).toString('utf8').trimEnd().split('\n')
  return lines.slice(-12).join('\n')
}
