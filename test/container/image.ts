import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ensureNatsServer } from '../../src/server/index.ts'
import { natsImage } from '../kit/container.ts'
import { scratchFolder } from '../kit/scratch.ts'

/**
 * Makes sure that the daemon has the image that docker-compose.yml names. Where it cannot be
 * pulled, one is made under the same name from the nats-server of this machine, its libraries, and
 * busybox for the health check. It is no copy of the official image, but takes the same arguments,
 * so that compose file and configuration are tested for real.
 */
export default async function ensureImage(): Promise<void> {
  const image = natsImage()
  if (docker(['image', 'inspect', image]) || docker(['pull', '-q', image])) return
  using scratch = scratchFolder()
  const root = join(scratch.path, 'root')
  const server = await ensureNatsServer()
  copyInto(root, server.path, '/usr/local/bin/nats-server')
  for (const library of librariesOf(server.path)) copyInto(root, library, library)
  const busybox = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim()
  copyInto(root, busybox, '/bin/wget')
  const tarball = join(scratch.path, 'image.tar')
  execFileSync('tar', ['-C', root, '-cf', tarball, '.'])
  // An import needs no builder, which not every Docker has.
  const changes = [
    'ENTRYPOINT ["/usr/local/bin/nats-server"]',
    'ENV PATH=/bin:/usr/local/bin',
    'LABEL flowstone.check=true',
  ]
  execFileSync('docker', ['import', ...changes.flatMap((change) => ['--change', change]), tarball, image])
}

/** Whether it went well. */
export function docker(args: string[]): boolean {
  try {
    execFileSync('docker', args, { stdio: 'ignore', timeout: 60_000 })
    return true
  } catch {
    return false
  }
}

/**
 * What the program loads: libc and the loader, or nothing when it is linked statically, as the
 * official ones are.
 */
export function librariesOf(program: string): string[] {
  try {
    const listed = execFileSync('ldd', [program], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    return [...listed.matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)].map((match) => match[1] ?? '')
  } catch {
    return []
  }
}

export function copyInto(root: string, source: string, target: string): void {
  mkdirSync(dirname(join(root, target)), { recursive: true })
  copyFileSync(source, join(root, target))
}
