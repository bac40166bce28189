import { randomBytes } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { compareVersions } from '../../streams/version.ts'
import { BINARY_NAME, inspectBinary, type VersionWish } from './binary.ts'

/**
 * The folder that keeps what was fetched: FLOWSTONE_CACHE, else `flowstone` in the user's own cache
 * folder (XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on a Mac, LOCALAPPDATA on Windows).
 */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  if (env.FLOWSTONE_CACHE) return env.FLOWSTONE_CACHE
  return join(userCacheFolder(env), 'flowstone')
}

function userCacheFolder(env: NodeJS.ProcessEnv): string {
  if (process.platform === 'win32') return env.LOCALAPPDATA || join(homedir(), 'AppData', 'Local')
  if (process.platform === 'darwin') return join(homedir(), 'Library', 'Caches')
  return env.XDG_CACHE_HOME || join(homedir(), '.cache')
}

function serversFolder(cache: string): string {
  return join(cache, 'nats-server')
}

/** The newest nats-server in the cache that runs and is what is wished for, or undefined. */
export async function findInCache(
  cache: string,
  wish: VersionWish,
): Promise<{ path: string; version: string } | undefined> {
  for (const version of cachedVersions(cache)) {
    const path = join(serversFolder(cache), version, BINARY_NAME)
    const inspected = await inspectBinary(path, wish)
    if ('version' in inspected) return { path, version: inspected.version }
  }
  return undefined
}

function cachedVersions(cache: string): string[] {
  try {
    return readdirSync(serversFolder(cache))
      .filter((name) => /^\d/.test(name))
      .sort((a, b) => compareVersions(b, a))
  } catch {
    return [] // No cache yet.
  }
}

/**
 * A new folder inside the cache, on the same disk as the final place, so that moving there is one
 * rename.
 */
export function makeScratchFolder(cache: string): string {
  const folder = join(serversFolder(cache), `.tmp-${process.pid}-${randomBytes(4).toString('hex')}`)
  mkdirSync(folder, { recursive: true })
  return folder
}

/**
 * Puts a nats-server into the cache and returns its path there. The last step is a rename, so
 * another process sees either nothing or the whole file, and of two that install at once one simply
 * wins with the same content.
 */
export function installIntoCache(cache: string, source: string, version: string): string {
  const folder = join(serversFolder(cache), version)
  const target = join(folder, BINARY_NAME)
  const staged = join(serversFolder(cache), `.tmp-${process.pid}-${randomBytes(4).toString('hex')}-${BINARY_NAME}`)
  mkdirSync(folder, { recursive: true })
  copyFileSync(source, staged)
  try {
    chmodSync(staged, 0o755)
    renameSync(staged, target)
  } catch (error) {
    rmSync(staged, { force: true })
    // Windows refuses to replace a program that runs. It is there and running then, so it is the
    // one to use.
    if (!isInUse(error)) throw error
  }
  return target
}

function isInUse(error: unknown): boolean {
  return process.platform === 'win32' && error instanceof Error && 'code' in error && error.code === 'EPERM'
}
