import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { ensureNatsServer } from '../../src/server/index.ts'
import { scratchFolder } from './scratch.ts'

/** What one user may do: subjects. */
export interface Permissions {
  readonly publish: readonly string[]
  readonly subscribe: readonly string[]
}

/**
 * A nats-server with users. Each user's password is its name, and its inbox starts with
 * `_INBOX_<name>`.
 */
export interface GuardedServer extends AsyncDisposable {
  readonly url: string
  /** As any NATS client; closed with the server. */
  as(user: string): Promise<NatsConnection>
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}

/** The login that `connect` takes:  `nats: login('worker')`. */
export function login(user: string): { user: string; pass: string; inboxPrefix: string } {
  return { user, pass: user, inboxPrefix: `_INBOX_${user}` }
}

/**
 * One server, in the foreground of a child process, with this text as its configuration. `{port}`
 * and `{dir}` are filled in.
 */
export async function rawServer(
  configuration: string,
  port?: number,
): Promise<{ url: string; port: number } & AsyncDisposable> {
  const scratch = scratchFolder()
  const listens = port ?? (await freePort())
  const dir = join(scratch.path, 'nats')
  mkdirSync(dir)
  const file = join(scratch.path, 'nats.conf')
  writeFileSync(file, configuration.replaceAll('{port}', String(listens)).replaceAll('{dir}', dir))
  const { path } = await ensureNatsServer()
  const child: ChildProcess = spawn(path, ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr?.on('data', (data: Buffer) => {
      said += data.toString()
      if (said.includes('Server is ready')) resolve()
    })
    child.once('exit', () => reject(new Error(`nats-server ended:\n${said}`)))
  })
  return {
    url: `nats://127.0.0.1:${listens}`,
    port: listens,
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
      scratch[Symbol.dispose]()
    },
  }
}

export async function guardedServer(users: Readonly<Record<string, Permissions>>): Promise<GuardedServer> {
  const list = (subjects: readonly string[]): string => JSON.stringify(subjects)
  const lines = Object.entries(users).map(
    ([user, { publish, subscribe }]) =>
      `{ user: ${user}, password: ${user}, permissions: { publish: ${list(publish)}, subscribe: ${list(subscribe)} } }`,
  )
  const server = await rawServer(`
host: 127.0.0.1
port: {port}
jetstream { store_dir: "{dir}" }
authorization { users: [
${lines.join('\n')}
] }
`)
  const connections: NatsConnection[] = []
  return {
    url: server.url,
    as: async (user) => {
      const nc = await connect({ servers: server.url, ...login(user) })
      connections.push(nc)
      return nc
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(connections.map((nc) => nc.close()))
      await server[Symbol.asyncDispose]()
    },
  }
}
