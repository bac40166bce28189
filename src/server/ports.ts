import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

/**
 * The client port of nats-server `pid`, from the file that it writes when it listens
 * (`<program>_<pid>.ports`), or undefined before that. This is how a free port is had without a
 * race: the server itself takes one and tells.
 */
export function readPort(portsDir: string, pid: number): number | undefined {
  const name = readdirSync(portsDir).find((file) => file.endsWith(`_${pid}.ports`))
  if (name === undefined) return undefined
  const text = readFileSync(join(portsDir, name), 'utf8')
  const port = /"nats":\s*\["[a-z]+:\/\/[^"]*:(\d+)"/.exec(text)?.[1]
  return port === undefined ? undefined : Number(port)
}

/**
 * Ports on 127.0.0.1 that are free now. Nodes of a cluster must know each other's before they
 * start, so here there is a race: another program may take one in between. All are held open until
 * all are known, so they differ.
 */
export async function findFreePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer()
          server.once('error', reject)
          server.listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => {
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}
