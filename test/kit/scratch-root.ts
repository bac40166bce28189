import { mkdirSync, readdirSync, rmSync, statfsSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'

const MEMORY = '/dev/shm'
const TMPFS = 0x01021994
const GIB = 1024 ** 3
/** A run of all tests was seen to have 260 MB there at most. */
const ROOM_BYTES = 2 * GIB
const FREE_BYTES = 6 * GIB
/** A container may share the folder with others, and has process ids of its own. */
const PREFIX = `flowstone-tests-${hostname()}-`

/**
 * A new folder in memory for what tests write, or undefined where there is little room. A server
 * syncs each message, which is half of the processor time of many tests. It does so in memory, too,
 * and that takes no time. What a killed server wrote is still there, as it would be on a disk.
 *
 * The folder goes when this process exits. What a killed run left there goes with the next one.
 */
export function memoryFolder(): string | undefined {
  if (!hasRoom()) return undefined
  for (const name of readdirSync(MEMORY)) {
    if (name.startsWith(PREFIX) && !isAlive(Number(name.slice(PREFIX.length)))) remove(join(MEMORY, name))
  }
  const folder = join(MEMORY, `${PREFIX}${process.pid}`)
  mkdirSync(folder, { recursive: true })
  process.once('exit', () => remove(folder))
  return folder
}

function hasRoom(): boolean {
  try {
    const { type, bavail, bsize } = statfsSync(MEMORY)
    return type === TMPFS && bavail * bsize >= ROOM_BYTES && process.availableMemory() >= FREE_BYTES
  } catch {
    return false
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // Of another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

function remove(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  } catch {
    // Of another user, or still written to: the next run removes it.
  }
}
