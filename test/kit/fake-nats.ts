import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, globalAgent } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { releaseArchiveName } from '../../src/server/release.ts'

/**
 * A program in `folder` that says it is that nats-server and does nothing else. Returns its path.
 */
export function fakeNatsServer(folder: string, version: string): string {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, 'nats-server')
  writeFileSync(path, `#!/bin/sh\necho "nats-server: v${version}"\n`, { mode: 0o755 })
  return path
}

/**
 * A web server that publishes releases in the layout of the official ones. `requests` is what it
 * was asked for.
 */
export interface ReleaseSite extends AsyncDisposable {
  /** An https address whose certificate this process trusts. */
  readonly base: string
  /** Of the archive. */
  readonly sha256: string
  readonly requests: string[]
}

/**
 * Publishes one release for this platform, made of a fake nats-server.
 * `corrupt`: its SHA256SUMS says something else. `unlisted`: its SHA256SUMS does not name it.
 */
export async function releaseSite(
  folder: string,
  version: string,
  fault?: 'corrupt' | 'unlisted',
): Promise<ReleaseSite> {
  const name = releaseArchiveName(version, process.platform, process.arch)
  if (name === undefined) throw new Error('no release for this platform')
  const inner = name.replace('.tar.gz', '')
  fakeNatsServer(join(folder, inner), version)
  execFileSync('tar', ['-czf', name, inner], { cwd: folder })
  const archive = readFileSync(join(folder, name))
  const sum = createHash('sha256')
    .update(fault === 'corrupt' ? 'something else' : archive)
    .digest('hex')
  const sums = fault === 'unlisted' ? '' : `${'0'.repeat(64)}  other.zip\n${sum}  ${name}\n`

  const pem = readFileSync(join(import.meta.dirname, 'localhost.pem'), 'utf8')
  globalAgent.options.ca = pem
  const requests: string[] = []
  const server = createServer({ key: pem, cert: pem }, (request, response) => {
    requests.push(request.url ?? '')
    // As the official site does: the archive itself is somewhere else.
    if (request.url === `/v${version}/${name}`) response.writeHead(302, { location: '/storage' }).end()
    else if (request.url === '/storage') response.end(archive)
    else if (request.url === `/v${version}/SHA256SUMS`) response.end(sums)
    else response.writeHead(404).end()
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  return {
    base: `https://127.0.0.1:${port}/`,
    sha256: createHash('sha256').update(archive).digest('hex'),
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}
