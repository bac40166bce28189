/**
 * `flowstone dev FILE`: everything in one go. Server, engine and HTTP are in this process; the
 * worker is a child, because only a new process forgets the code of an old one.
 *
 *     file changed → a new worker is started → it is ready → the old one finishes and ends
 *                                            → it cannot be loaded: the error is shown, and the old one works on
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { connect } from '../client/connect.ts'
import { after, type Timer } from '../options/timer.ts'
import { startServer } from '../server/start.ts'
import { DEV_SERVER, type GlobalOptions, stopRequest, untilStopped, WITHOUT_ENVIRONMENT } from './context.ts'
import {
  DEV_DIR,
  devPassword,
  devSecrets,
  keepHttpPort,
  lastHttpPort,
  readDevState,
  removeDevState,
  writeDevState,
} from './devfiles.ts'
import { announce, devServe, httpConfig, listenNear } from './http.ts'
import { checkMetrics, DEV_METRICS, type MetricsCommand, type ServedMetrics, serveMetricsOf } from './metrics.ts'
import { openInBrowser } from './open-browser.ts'
import { type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'
import { fromWorker, spawnWorker } from './supervise.ts'

export interface DevCommand extends GlobalOptions, MetricsCommand {
  readonly port?: string
  readonly httpPort?: string
  readonly httpConfig?: string
  readonly concurrency?: string
  /** False: `--no-open`. */
  readonly open?: boolean
}

const HTTP_PORT = 8080
/** Editors write a file in several steps. */
const SETTLE_MS = 100
const RESTART_MS = 1000
/** What a worker whose code is out of date may still take to finish. */
const DRAIN = '3s'
/**
 * … and then it is ended, whatever its code does: it may hold up its event loop, and hear nothing.
 */
const KILL_MS = 4500

interface WorkerProcess {
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** Where what it counts is shown. */
  readonly metrics: ServedMetrics | undefined
}

export async function runDev(file: string, options: DevCommand): Promise<void> {
  const output = outputOf(options.json === true)
  using stop = stopRequest()
  if (!existsSync(file)) throw new InvalidError(`there is no file ${file}`)
  checkMetrics(options)
  process.env.FLOWSTONE_GATE_SECRETS ||= devSecrets(DEV_DIR)
  const config = await httpConfig(options.httpConfig)
  await using server = await startServer({
    dir: DEV_DIR,
    password: devPassword(DEV_DIR),
    ...(options.port === undefined ? {} : { port: wholeNumber('--port', options.port) }),
  }).catch((error: unknown) => {
    throw secondDev(error)
  })
  const address = `nats://127.0.0.1:${server.port}`
  output.event('server', { url: address, dir: server.dir }, `server   ${address}, its data and password in ${DEV_DIR}`)
  const namespace = options.namespace ?? process.env.FLOWSTONE_NAMESPACE ?? 'flowstone'
  await using flow = await connect({ ...WITHOUT_ENVIRONMENT, servers: server.url, namespace, name: 'flowstone dev' })
  await using metrics = await serveMetricsOf(options, output, flow)
  const engine = await flow.engine()
  await engine.active
  output.event('engine', { id: engine.id, active: true }, `engine   ${engine.id} active`)
  const settings = devServe(config, flow.gates.baseUrl, output)
  // The port of the last time, so that addresses which were given out stay good.
  const near = lastHttpPort(DEV_DIR) ?? HTTP_PORT
  await using http = await listenNear(flow, settings, options.httpPort, near, '--http-port')
  keepHttpPort(DEV_DIR, http.port)
  announce(output, http.url, settings)
  if (settings.console && options.open !== false && options.json !== true && process.stdout.isTTY)
    openInBrowser(http.url)
  writeDevState(DEV_DIR, { pid: process.pid, server: server.url, namespace, http: http.url, file: resolve(file) })
  const workers = new DevWorkers(file, output, {
    args: [
      '--namespace',
      namespace,
      '--drain',
      DRAIN,
      ...(options.json ? ['--json'] : []),
      ...(options.concurrency === undefined ? [] : ['--concurrency', options.concurrency]),
    ],
    env: {
      ...process.env,
      FLOWSTONE_BASE_URL: http.url,
      [DEV_SERVER]: server.url,
      ...(metrics ? { [DEV_METRICS]: '1' } : {}),
    },
    metrics,
  })
  process.once('exit', () => workers.killAll())
  try {
    workers.start()
    output.note('Start runs with `flowstone run ASSET`, see gates with `flowstone gate ls`, stop with Ctrl-C.')
    const ended = server.ended.then(() => 'server')
    if ((await Promise.race([untilStopped(flow, stop), ended])) === 'server')
      throw new FlowStoneError('server_ended', `nats-server ended by itself; see ${DEV_DIR}/server.log`)
  } finally {
    await workers.stop()
    removeDevState(DEV_DIR)
  }
}

/** The folder is taken: mostly by a `flowstone dev` in another terminal. */
function secondDev(error: unknown): unknown {
  const first = error instanceof FlowStoneError && error.code === 'server_locked' ? readDevState(DEV_DIR) : undefined
  if (!first) return error
  return new FlowStoneError(
    'server_locked',
    `flowstone dev runs in this folder already (process ${first.pid}), for ${first.file}; it takes new code by itself. Stop it with Ctrl-C in its terminal first, or start this one in another folder.`,
    { cause: error },
  )
}

class DevWorkers {
  readonly #file: string
  readonly #output: Output
  readonly #how: WorkerProcess
  readonly #running = new Set<ChildProcess>()
  /** Those that were asked to stop. Their end is not reported. */
  readonly #notified = new Set<ChildProcess>()
  readonly #files = new Set<string>()
  readonly #watchers = new Map<string, FSWatcher>()
  #starting: ChildProcess | undefined
  #ready: ChildProcess | undefined
  #timer: Timer | undefined

  constructor(file: string, output: Output, how: WorkerProcess) {
    this.#file = file
    this.#output = output
    this.#how = how
    this.#watch(resolve(file))
  }

  start(): void {
    if (this.#starting) this.#tell(this.#starting)
    const child = spawnWorker(['worker', this.#file, ...this.#how.args], {
      env: this.#how.env,
      stdin: 'ignore',
      // Ctrl-C goes to all of a terminal's group: this process alone says when the worker is to
      // stop. Should this one be killed, the worker sees its channel close.
      detached: true,
    })
    this.#running.add(child)
    this.#starting = child
    child.on('message', (said) => {
      const message = fromWorker(said)
      if (!message) return
      if ('loaded' in message) this.#watch(message.loaded)
      else if ('counted' in message) this.#how.metrics?.registry.show(child, message.counted)
      else if ('ready' in message && child === this.#starting) this.#isReady(child)
    })
    // Its last message is before that, and may be after its exit.
    child.once('disconnect', () => this.#how.metrics?.registry.hasEnded(child))
    child.once('exit', (code, signal) => this.#hasEnded(child, signal ?? code ?? 'unknown'))
  }

  /** Leaves nothing behind, however this process ends. */
  killAll(): void {
    for (const child of this.#running) child.kill('SIGKILL')
  }

  async stop(): Promise<void> {
    this.#timer?.cancel()
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
    const ends = [...this.#running].map((child) => once(child, 'exit'))
    for (const child of this.#running) this.#tell(child)
    await Promise.all(ends)
  }

  /** What the one before it holds of the old code, that one finishes. */
  #isReady(child: ChildProcess): void {
    if (this.#ready) this.#tell(this.#ready)
    this.#ready = child
    this.#starting = undefined
  }

  #hasEnded(child: ChildProcess, how: string | number): void {
    this.#running.delete(child)
    if (this.#notified.delete(child)) return
    if (child === this.#starting) {
      this.#starting = undefined
      this.#output.event('broken', { how }, `worker   not started (${how}); it is tried again when the code changes`)
    } else {
      this.#ready = undefined
      this.#output.event('worker_ended', { how }, `worker   ended by itself (${how}); it is started again`)
      this.#later(RESTART_MS)
    }
  }

  /** Once: at a second signal it would end at once. */
  #tell(child: ChildProcess): void {
    if (this.#notified.has(child)) return
    this.#notified.add(child)
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), KILL_MS)
    child.once('exit', () => clearTimeout(timer))
  }

  /** The folder is watched and not the file: editors put a new file in the place of the old one. */
  #watch(path: string): void {
    this.#files.add(path)
    const folder = dirname(path)
    if (this.#watchers.has(folder)) return
    const watcher = watch(folder, (_, name) => {
      if (name === null || this.#files.has(resolve(folder, name))) this.#later(SETTLE_MS, name ?? folder)
    })
    // A folder that is gone is no reason to end; a change in the others still starts the worker
    // anew.
    watcher.on('error', () => this.#watchers.delete(folder))
    this.#watchers.set(folder, watcher)
  }

  #later(ms: number, changed?: string): void {
    this.#timer?.cancel()
    this.#timer = after(ms, () => {
      if (changed !== undefined) this.#output.event('changed', { file: changed }, `worker   ${changed} changed`)
      this.start()
    })
  }
}
