/** What `flowstone dev` leaves in its folder: the secret of its gates, and where its server is, so that other commands find it. */
import { randomBytes } from 'node:crypto'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
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
 * `id:secret`, as FLOWSTONE_GATE_SECRETS has it; made at the first time and kept, so that addresses which were given out stay good.
 * Only its owner can read it: a file that others can read is put right.
 */
export function devSecrets(dir: string): string {
  mkdirSync(dir, { recursive: true })
  const path = join(dir, 'gate-secret')
  try {
    // Made and closed to others in one step, and never over one that is there.
    const file = openSync(path, 'wx', 0o600)
    try {
      writeFileSync(file, `dev:${randomBytes(32).toString('base64url')}\n`)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) chmodSync(path, 0o600)
  }
  const secret = readFileSync(path, 'utf8').trim()
  if (!/^[^:\s]+:\S{32,}$/.test(secret))
    throw new InvalidError(`${path} holds no secret; delete it, and a new one is made (addresses given out before end)`)
  return secret
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
