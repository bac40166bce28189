import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ensureNatsServer } from '../../src/server/index.ts'
import { readPort } from '../../src/server/ports.ts'
import { scratchFolder } from './scratch.ts'
import { until } from './until.ts'

/**
 * A real nats-server that lets nobody hear core messages on these subjects: so every hint gets
 * lost, and only what is looked up is known.
 */
export async function deafNats(subjects: readonly string[]): Promise<{ url: string } & AsyncDisposable> {
  const { path } = await ensureNatsServer({ quiet: true })
  const scratch = scratchFolder()
  const config = {
    host: '127.0.0.1',
    port: -1,
    ports_file_dir: scratch.path,
    jetstream: { store_dir: join(scratch.path, 'nats') },
    authorization: { users: [{ user: 'deaf', password: 'deaf', permissions: { subscribe: { deny: subjects } } }] },
    no_auth_user: 'deaf',
  }
  const file = join(scratch.path, 'nats.conf')
  writeFileSync(file, JSON.stringify(config))
  const server = spawn(path, ['-c', file], { stdio: 'ignore' })
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
