import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { BINARY_NAME } from './binary.ts'
import { downloadFile, downloadText } from './download.ts'
import { run } from './run.ts'

/** The version that is fetched when none is there. The tests ran against it. */
export const RELEASE_VERSION = '2.15.1'

/** Where the project publishes its releases. FLOWSTONE_NATS_DOWNLOAD_BASE replaces it, for a mirror of the same layout. */
const RELEASE_BASE = 'https://github.com/nats-io/nats-server/releases/download'

/**
 * SHA-256 of release archives, by file name. An archive that is named here must match; any other is checked against the
 * SHA256SUMS file of its release, which protects against a broken transfer but trusts the place that it comes from.
 */
const PINNED_SHA256: Readonly<Record<string, string>> = {}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  ia32: '386',
  ppc64: 'ppc64le',
  s390x: 's390x',
  riscv64: 'riscv64',
  loong64: 'loong64',
}
const SYSTEMS: Readonly<Record<string, string>> = {
  linux: 'linux',
  darwin: 'darwin',
  win32: 'windows',
  freebsd: 'freebsd',
}

/** Thrown when an archive is not what it should be. It is deleted, and nothing of it was unpacked or run. */
export class ChecksumError extends Error {}

/** The file name of the official archive for a system, or undefined where none is published. */
export function releaseArchiveName(version: string, platform: string, arch: string): string | undefined {
  const system = SYSTEMS[platform]
  const processor = ARCHITECTURES[arch]
  if (system === undefined || processor === undefined) return undefined
  return `nats-server-v${version}-${system}-${processor}.${system === 'windows' ? 'zip' : 'tar.gz'}`
}

/**
 * Fetches the official archive of `version` into `folder`, checks it, unpacks it, and returns the path of the program.
 * @throws ChecksumError when its checksum is wrong or not to be had; Error when it cannot be fetched or unpacked.
 */
export async function fetchRelease(
  folder: string,
  options: { version: string; base?: string | undefined; pins?: Readonly<Record<string, string>> },
): Promise<string> {
  const name = releaseArchiveName(options.version, process.platform, process.arch)
  if (name === undefined) throw new Error(`no official archive for ${process.platform} on ${process.arch}`)

  const base = `${(options.base ?? RELEASE_BASE).replace(/\/+$/, '')}/v${options.version}`
  const archive = join(folder, name)
  const actual = await downloadFile(`${base}/${name}`, archive)
  const expected = (options.pins ?? PINNED_SHA256)[name] ?? (await publishedChecksum(base, name))
  if (actual !== expected) {
    rmSync(archive, { force: true })
    throw new ChecksumError(`${base}/${name} has SHA-256 ${actual}, but ${expected} was expected: refused`)
  }

  // The system's tar reads .tar.gz everywhere; that of Windows (bsdtar) reads .zip too, which is what Windows gets.
  const unpacked = await run('tar', ['-xf', name, '--strip-components=1'], { cwd: folder, timeoutMs: 60_000 })
  if (!unpacked.ok) throw new Error(`cannot unpack ${name}: tar ${unpacked.complaint}`)
  return join(folder, BINARY_NAME)
}

async function publishedChecksum(base: string, name: string): Promise<string> {
  const sums = await downloadText(`${base}/SHA256SUMS`)
  for (const line of sums.split('\n')) {
    const [sum, file] = line.trim().split(/\s+\*?/)
    if (file === name && sum !== undefined && /^[0-9a-f]{64}$/i.test(sum)) return sum.toLowerCase()
  }
  throw new ChecksumError(`${base}/SHA256SUMS does not name ${name}: refused`)
}
