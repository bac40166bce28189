import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { ensureNatsServer } from '../../src/server/index.ts'
import { findFreePorts } from '../../src/server/ports.ts'
import { scratchFolder } from './scratch.ts'
import { until } from './until.ts'

/**
 * A real nats-server with a configuration of the test's own, that can be stopped, changed and
 * started again on the same port.
 */
export interface RawNats extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly log: () => string
  /** Starts it again, with this configuration where one is given. */
  start(config?: Record<string, unknown>): Promise<void>
  stop(signal?: NodeJS.Signals): Promise<void>
  signal(signal: NodeJS.Signals): void
  /** Has the running server read this configuration. */
  reload(config: Record<string, unknown>): void
}

/** `config`: settings of the server besides its port and folder; `jetstream` may hold limits. */
export async function rawNats(config: Record<string, unknown> = {}): Promise<RawNats> {
  const { path } = await ensureNatsServer({ quiet: true })
  const scratch = scratchFolder()
  const [port = 0] = await findFreePorts(1)
  const file = join(scratch.path, 'nats.conf')
  const log = join(scratch.path, 'nats.log')
  let child: ChildProcess
  const write = (wanted: Record<string, unknown>): void => {
    const { jetstream = {}, ...rest } = wanted
    const full = {
      host: '127.0.0.1',
      port,
      log_file: log,
      ...rest,
      jetstream: { store_dir: join(scratch.path, 'data'), ...Object(jetstream) },
    }
    writeFileSync(file, JSON.stringify(full))
  }
  const stop = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }
  const start = async (wanted?: Record<string, unknown>): Promise<void> => {
    if (wanted) write(wanted)
    child = spawn(path, ['-c', file], { stdio: 'ignore' })
    await until('nats-server listens', () => answers(port))
  }
  await start(config)
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    log: () => readFileSync(log, 'utf8'),
    start,
    stop,
    signal: (signal) => child.kill(signal),
    reload: (wanted) => {
      write(wanted)
      child.kill('SIGHUP')
    },
    async [Symbol.asyncDispose]() {
      await stop('SIGKILL')
      scratch[Symbol.dispose]()
    },
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
