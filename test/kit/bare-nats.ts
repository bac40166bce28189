import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { ensureNatsServer } from '../../src/server/index.ts'
import { readPort } from '../../src/server/ports.ts'
import { scratchFolder } from './scratch.ts'
import { until } from './until.ts'

/** A real nats-server without JetStream. */
export async function bareNats(): Promise<{ url: string } & AsyncDisposable> {
  const { path } = await ensureNatsServer({ quiet: true })
  const scratch = scratchFolder()
  const server = spawn(path, ['-a', '127.0.0.1', '-p', '-1', '--ports_file_dir', scratch.path], { stdio: 'ignore' })
  const ended = once(server, 'exit')
  let port: number | undefined
  await until('nats-server has a port', () => {
    port = readPort(scratch.path, server.pid ?? 0)
    return port !== undefined
  })
  return {
    url: `nats://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.kill('SIGKILL')
      await ended
      scratch[Symbol.dispose]()
    },
  }
}
