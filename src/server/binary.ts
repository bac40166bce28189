import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { compareVersions } from '../../streams/version.ts'
import { run } from './run.ts'

/** The name of the program on this system. */
export const BINARY_NAME = process.platform === 'win32' ? 'nats-server.exe' : 'nats-server'

/** Either the version that a nats-server says it has, or why it is of no use. */
export type Inspected = { version: string } | { reason: string }

/** Which versions will do: `exact` when given, else `min` and everything newer. */
export interface VersionWish {
  min: string
  exact?: string | undefined
}

/**
 * Asks a nats-server for its version by running it: this also finds a truncated file, one for
 * another processor, and one whose libraries are missing, before anything depends on it.
 */
export async function inspectBinary(path: string, wish: VersionWish): Promise<Inspected> {
  const result = await run(path, ['--version'], { timeoutMs: 10_000 })
  if (!result.ok) return { reason: `${path} does not run: ${result.complaint}` }
  const version = /\bv?(\d+\.\d+\.\d+\S*)/.exec(result.stdout)?.[1]
  if (version === undefined) return { reason: `${path} does not say a version that can be read` }
  if (wish.exact !== undefined && compareVersions(version, wish.exact) !== 0) {
    return { reason: `${path} is version ${version}, and ${wish.exact} was asked for` }
  }
  if (compareVersions(version, wish.min) < 0) {
    return { reason: `${path} is version ${version}, too old: ${wish.min} or newer is needed` }
  }
  return { version }
}

/** All executables called nats-server in the folders of a PATH, in its order. */
export function findOnPath(path: string | undefined): string[] {
  const found: string[] = []
  for (const folder of (path ?? '').split(delimiter)) {
    if (folder === '') continue
    const candidate = join(folder, BINARY_NAME)
    if (isExecutable(candidate)) found.push(candidate)
  }
  return found
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
