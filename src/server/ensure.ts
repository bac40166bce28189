import { rmSync } from 'node:fs'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import { MIN_SERVER_VERSION } from '../../streams/version.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { findOnPath, inspectBinary, type VersionWish } from './binary.ts'
import { cacheFolder, findInCache, installIntoCache, makeScratchFolder } from './cache.ts'
import { fetchDebianPackage } from './debian.ts'
import { ChecksumError, fetchRelease, RELEASE_VERSION } from './release.ts'
import { say } from './say.ts'

/**
 * Where a nats-server was found: given by path, on the PATH, in the cache, or just fetched from one
 * of two places.
 */
export type NatsServerSource = 'given' | 'path' | 'cache' | 'release' | 'debian'

/** A nats-server program: where it is, which version, and how it was found. */
export interface NatsServerBinary {
  /** Absolute, or as it was given. */
  path: string
  /** Without a `v` in front. */
  version: string
  source: NatsServerSource
}

/** Options of `ensureNatsServer`. */
export interface EnsureOptions {
  /** Use this program and look nowhere else. Default: the environment's FLOWSTONE_NATS_SERVER. */
  serverPath?: string
  /**
   * Exactly this version. Default: anything from MIN_SERVER_VERSION on; RELEASE_VERSION when one
   * has to be fetched.
   */
  version?: string
  /** Say nothing when something is fetched. Default: false, one line on stderr. */
  quiet?: boolean
  /**
   * Where one may be fetched when none is there, in this order. Default: `['release', 'debian']`;
   * `[]` fetches nothing.
   */
  from?: readonly ('release' | 'debian')[]
  /**
   * Where PATH, FLOWSTONE_NATS_SERVER, FLOWSTONE_CACHE, FLOWSTONE_NATS_DOWNLOAD_BASE and
   * FLOWSTONE_NATS_SHA256 (of the archive, where none is pinned) are read. Default: process.env.
   */
  env?: NodeJS.ProcessEnv
}

const OPTIONS: OptionNames<EnsureOptions> = { serverPath: true, version: true, quiet: true, from: true, env: true }

/**
 * Finds a nats-server that is new enough, or gets one. In this order: FLOWSTONE_NATS_SERVER, the
 * PATH, the cache, the official release archive, Debian's package. What is fetched goes into the
 * user's cache folder and is fetched once.
 *
 * @throws FlowStoneError `server_unusable` when a program was named that cannot be used,
 *   `server_not_found` when there is none and none could be fetched; its message lists what was tried.
 */
export async function ensureNatsServer(options: EnsureOptions = {}): Promise<NatsServerBinary> {
  refuseUnknown('ensureNatsServer', options, OPTIONS)
  const env = options.env ?? process.env
  const wish: VersionWish = { min: MIN_SERVER_VERSION, exact: options.version }

  const given = options.serverPath ?? env.FLOWSTONE_NATS_SERVER
  if (given) return await useGiven(given, wish, options.serverPath !== undefined)

  const tried: string[] = []
  const onPath = findOnPath(env.PATH ?? env.Path)
  if (onPath.length === 0) tried.push('PATH: no nats-server in it')
  for (const path of onPath) {
    const inspected = await inspectBinary(path, wish)
    if ('version' in inspected) return { path, version: inspected.version, source: 'path' }
    tried.push(`PATH: ${inspected.reason}`)
  }

  const cache = cacheFolder(env)
  const cached = await findInCache(cache, wish)
  if (cached) return { ...cached, source: 'cache' }
  tried.push(`cache: none in ${cache}`)

  const from = options.from ?? ['release', 'debian']
  if (from.length > 0) {
    const fetched = await fetchOne(from, cache, wish, env, options.quiet ? () => {} : say, tried)
    if (fetched) return fetched
  }
  throw new FlowStoneError('server_not_found', notFoundMessage(tried))
}

/**
 * A program that was named is used or complained about. To use another one silently would be a
 * surprise.
 */
async function useGiven(path: string, wish: VersionWish, byOption: boolean): Promise<NatsServerBinary> {
  const inspected = await inspectBinary(path, wish)
  if ('version' in inspected) return { path, version: inspected.version, source: 'given' }
  const name = byOption ? 'serverPath' : 'FLOWSTONE_NATS_SERVER'
  throw new FlowStoneError(
    'server_unusable',
    `${name}: ${inspected.reason}. Name another one, or leave ${name} out to have one found.`,
  )
}

async function fetchOne(
  from: readonly ('release' | 'debian')[],
  cache: string,
  wish: VersionWish,
  env: NodeJS.ProcessEnv,
  tell: (line: string) => void,
  tried: string[],
): Promise<NatsServerBinary | undefined> {
  const version = wish.exact ?? RELEASE_VERSION
  const base = env.FLOWSTONE_NATS_DOWNLOAD_BASE || undefined
  const sha256 = env.FLOWSTONE_NATS_SHA256 || undefined
  const routes = {
    release: {
      name: `official release ${version}`,
      fetch: (into: string) => fetchRelease(into, { version, base, sha256 }),
    },
    debian: { name: 'Debian package', fetch: fetchDebianPackage },
  }
  tell(`no nats-server here yet, fetching one into ${cache}`)
  for (const source of from) {
    try {
      return await fetchAndInstall(cache, wish, source, routes[source].fetch)
    } catch (error) {
      tried.push(`${routes[source].name}: ${messageOf(error)}`)
      // A wrong checksum is worth knowing of even when the next way works.
      if (error instanceof ChecksumError) tell(error.message)
    }
  }
  return undefined
}

async function fetchAndInstall(
  cache: string,
  wish: VersionWish,
  source: NatsServerSource,
  fetch: (folder: string) => Promise<string>,
): Promise<NatsServerBinary> {
  const scratch = makeScratchFolder(cache)
  try {
    const program = await fetch(scratch)
    const inspected = await inspectBinary(program, wish)
    if (!('version' in inspected)) throw new Error(inspected.reason)
    return { path: installIntoCache(cache, program, inspected.version), version: inspected.version, source }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

function notFoundMessage(tried: string[]): string {
  return [
    'There is no nats-server to use, and none could be fetched. Tried:',
    ...tried.map((line) => `  - ${line}`),
    'Do one of these:',
    '  1. Use a NATS server that you have: set NATS_URL=nats://host:4222 (or --servers). It needs JetStream' +
      ` and version ${MIN_SERVER_VERSION} or newer.`,
    '  2. Use Docker: `docker compose up -d`, then set NATS_URL=nats://127.0.0.1:4222.',
    '  3. Install nats-server (https://nats.io/download) so that it is on the PATH, or set FLOWSTONE_NATS_SERVER to its' +
      ' path, or FLOWSTONE_NATS_DOWNLOAD_BASE to a mirror of its releases.',
  ].join('\n')
}
