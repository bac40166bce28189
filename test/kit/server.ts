import { join } from 'node:path'
import { type ServerOptions, startServer } from '../../src/server/index.ts'
import { startContainer } from './container.ts'
import { scratchFolder } from './scratch.ts'

export type TestServerOptions = Pick<ServerOptions, 'syncInterval' | 'maxPayload'>

/** A NATS server for tests. A test file gets one from `useServer` in `fixture.ts`. */
export interface TestServer extends AsyncDisposable {
  readonly url: string
  /** Stops it and deletes its data. Does nothing to a server that was there before. */
  stop(): Promise<void>
}

/**
 * A real nats-server with JetStream. Which one is said by FLOWSTONE_TEST_NATS:
 *
 *   binary (default)   one of our own, on a free port and a scratch folder
 *   container          one in a container, by testcontainers; needs a Docker daemon
 *   nats://…           one that runs already. Tests use a namespace of their own on it, and clean nothing up.
 *
 * A test that kills and restarts its server uses `startServer` itself, whatever is said there.
 */
export async function testServer(options: TestServerOptions = {}): Promise<TestServer> {
  const kind = process.env.FLOWSTONE_TEST_NATS || 'binary'
  if (kind === 'binary') return await startBinary(options)
  if (kind === 'container') return await startContainer()
  if (!/^(nats|tls|ws|wss):\/\//.test(kind)) {
    throw new Error(`FLOWSTONE_TEST_NATS: must be binary, container or an address like nats://host:4222, not ${kind}`)
  }
  const stop = async () => {}
  return { url: kind, stop, [Symbol.asyncDispose]: stop }
}

async function startBinary(options: TestServerOptions): Promise<TestServer> {
  const scratch = scratchFolder()
  const server = await startServer({ ...options, dir: join(scratch.path, 'nats') })
  const stop = async () => {
    await server.stop()
    scratch[Symbol.dispose]()
  }
  return { url: server.url, stop, [Symbol.asyncDispose]: stop }
}
