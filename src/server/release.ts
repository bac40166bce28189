import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { BINARY_NAME } from './binary.ts'
import { downloadFile, downloadText } from './download.ts'
import { run } from './run.ts'

/** The version that is fetched when none is there. The tests ran against it. */
export const RELEASE_VERSION = '2.15.1'

/**
 * Where the project publishes its releases. FLOWSTONE_NATS_DOWNLOAD_BASE replaces it, for a mirror
 * of the same layout.
 */
const RELEASE_BASE = 'https://github.com/nats-io/nats-server/releases/download'

/**
 * SHA-256 of release archives, by file name. An archive that is named here must match. The hashes
 * are those that public builds check their downloads against; none was computed here. Any other
 * archive is checked against the SHA256SUMS file of its release. That trusts the place the file
 * comes from, so it is read only over https, never from a plain http mirror.
 */
const PINNED_SHA256: Readonly<Record<string, string>> = {
  'nats-server-v2.15.1-linux-amd64.tar.gz': 'bf5edc7b1ce98e885c368cb43a886eb148dc5d0551d99f3cf6141fb5e1954c70',
  'nats-server-v2.15.1-linux-arm64.tar.gz': 'e2fbab4cad7d3c76e3052eb959570393c9d73ba756b70bf8e9eea61e9ae6d49c',
  'nats-server-v2.15.1-linux-386.tar.gz': '9fde80807787a77e25d0143b0835b8a7de8b735e9ebe01fcbcf0205e00f7f06b',
  'nats-server-v2.15.1-linux-ppc64le.tar.gz': '4918414d24b16c30e71352e362b2d89e9e47c557514cefb5d4c6f2523cfee73d',
  'nats-server-v2.15.1-linux-s390x.tar.gz': '478644ef83c46f585f9714b05201b5596e718cdd55ef295fb31abef6a71b4646',
  'nats-server-v2.15.1-linux-riscv64.tar.gz': '0c7f51bdf9712e2c69336722fca636a3b038181ff843390c00a4e287ad462086',
  'nats-server-v2.15.1-linux-loong64.tar.gz': 'c0875670e7a5fda318e4114cd549b39c77f3294ebb32f90f78c6e7c83635d8d9',
}

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

/** The SHA-256 that an archive of this name must have, where it is known. */
export function pinnedSha256(name: string): string | undefined {
  return PINNED_SHA256[name]
}

/**
 * Thrown when an archive is not what it should be. It is deleted, and nothing of it was unpacked or
 * run.
 */
export class ChecksumError extends Error {}

/** The file name of the official archive for a system, or undefined where none is published. */
export function releaseArchiveName(version: string, platform: string, arch: string): string | undefined {
  const system = SYSTEMS[platform]
  const processor = ARCHITECTURES[arch]
  if (system === undefined || processor === undefined) return undefined
  return `nats-server-v${version}-${system}-${processor}.${system === 'windows' ? 'zip' : 'tar.gz'}`
}

/**
 * Fetches the official archive of `version` into `folder`, checks it, unpacks it, and returns the
 * path of the program.
 * @throws ChecksumError when its checksum is wrong or cannot be read; Error when the archive cannot
 * be fetched or unpacked.
 */
export async function fetchRelease(
  folder: string,
  options: {
    version: string
    base?: string | undefined
    /**
     * What its SHA-256 must be, in hex, as the user says. Default: as pinned here, else as its
     * release says.
     */
    sha256?: string | undefined
    pins?: Readonly<Record<string, string>>
  },
): Promise<string> {
  const name = releaseArchiveName(options.version, process.platform, process.arch)
  if (name === undefined) throw new Error(`no official archive for ${process.platform} on ${process.arch}`)

  const base = `${(options.base ?? RELEASE_BASE).replace(/\/+$/, '')}/v${options.version}`
  const archive = join(folder, name)
  const known = givenChecksum(options.sha256) ?? (options.pins ? options.pins[name] : pinnedSha256(name))
  if (known === undefined && !base.startsWith('https:'))
    throw new ChecksumError(
      `${base} is a plain http mirror, and no SHA-256 of ${name} is pinned: refused. Use https, or set FLOWSTONE_NATS_SHA256 to the archive's SHA-256`,
    )
  const actual = await downloadFile(`${base}/${name}`, archive)
  const expected = known ?? (await publishedChecksum(base, name))
  if (actual !== expected) {
    rmSync(archive, { force: true })
    throw new ChecksumError(`${base}/${name} has SHA-256 ${actual}, but ${expected} was expected: refused`)
  }

  // The system's tar reads .tar.gz everywhere; that of Windows (bsdtar) reads .zip too, which is
  // what Windows gets.
  const unpacked = await run('tar', ['-xf', name, '--strip-components=1'], { cwd: folder, timeoutMs: 60_000 })
  if (!unpacked.ok) throw new Error(`cannot unpack ${name}: tar ${unpacked.complaint}`)
  return join(folder, BINARY_NAME)
}

function givenChecksum(sha256: string | undefined): string | undefined {
  if (sha256 === undefined) return undefined
  if (/^[0-9a-f]{64}$/i.test(sha256)) return sha256.toLowerCase()
  throw new ChecksumError(`FLOWSTONE_NATS_SHA256 must be 64 hex digits, got ${JSON.stringify(sha256.slice(0, 80))}`)
}

async function publishedChecksum(base: string, name: string): Promise<string> {
  const sums = await downloadText(`${base}/SHA256SUMS`)
  for (const line of sums.split('\n')) {
    const [sum, file] = line.trim().split(/\s+\*?/)
    if (file === name && sum !== undefined && /^[0-9a-f]{64}$/i.test(sum)) return sum.toLowerCase()
  }
  throw new ChecksumError(`${base}/SHA256SUMS does not name ${name}: refused`)
}
