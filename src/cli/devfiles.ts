/**
 * What `flowstone dev` leaves in its folder: the secret of its gates, and where its server is, so
 * that other commands find it.
 */
import { randomBytes } from 'node:crypto'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'

export const DEV_DIR = '.flowstone'

const devState = z.object({
  pid: z.int().positive(),
  server: z.string(),
  namespace: z.string(),
  http: z.string(),
  /** The file whose pipelines it runs. */
  file: z.string(),
})

export type DevState = Readonly<z.infer<typeof devState>>

/**
 * `id:secret`, as FLOWSTONE_GATE_SECRETS has it; made at the first time and kept, so that addresses
 * which were given out stay good. Only its owner can read it: a file that others can read is put
 * right.
 */
export function devSecrets(dir: string): string {
  return keptSecret(join(dir, 'gate-secret'), () => `dev:${randomBytes(32).toString('base64url')}`, /^[^:\s]+:\S{32,}$/)
}

function keptSecret(path: string, make: () => string, form: RegExp): string {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  try {
    // Made and closed to others in one step, and never over one that is there.
    const file = openSync(path, 'wx', 0o600)
    try {
      writeFileSync(file, `${make()}\n`)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) chmodSync(path, 0o600)
  }
  const secret = readFileSync(path, 'utf8').trim()
  if (!form.test(secret))
    throw new InvalidError(`${path} holds no secret; delete it, and a new one is made (what was given out before ends)`)
  return secret
}

/**
 * The password of the development server: made at the first time, and kept. Only its owner can read
 * it.
 */
export function devPassword(dir: string): string {
  return keptSecret(join(dir, 'server-password'), () => randomBytes(24).toString('base64url'), /^[\w-]{20,}$/)
}

/** The port that its HTTP server had the last time. */
export function lastHttpPort(dir: string): number | undefined {
  try {
    const port = Number(readFileSync(join(dir, 'http-port'), 'utf8'))
    return Number.isInteger(port) && port > 0 && port <= 65_535 ? port : undefined
  } catch {
    return undefined
  }
}

export function keepHttpPort(dir: string, port: number): void {
  writeFileSync(join(dir, 'http-port'), `${port}\n`, { mode: 0o600 })
}

export function writeDevState(dir: string, state: DevState): void {
  writeFileSync(join(dir, 'dev.json'), `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o600 })
}

export function removeDevState(dir: string): void {
  if (readDevState(dir, false)?.pid === process.pid) rmSync(join(dir, 'dev.json'), { force: true })
}

/** What a `flowstone dev` on that folder has written; `living`: only if it still runs. */
export function readDevState(dir: string, living = true): DevState | undefined {
  try {
    const state = devState.parse(JSON.parse(readFileSync(join(dir, 'dev.json'), 'utf8')))
    if (living) process.kill(state.pid, 0)
    return state
  } catch {
    return undefined
  }
}
