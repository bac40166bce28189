import { randomBytes } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { FlowStoneError } from '../../streams/errors.ts'
import { readServerInfo } from './probe.ts'
import { commandOf, endProcess, isAlive, startOf } from './processes.ts'

/**
 * One server per data folder. Two nats-servers on one folder destroy it, and nats-server itself
 * does not look.
 *
 * The lock is a file that names the process that holds it (the owner) and the server that it
 * started:
 *
 *   owner alive, server alive or not started yet  → held: a second start is refused
 *   owner alive, server dead                      → stale (the server was killed): taken over
 *   owner dead, server dead                       → stale: taken over
 *   owner dead, server alive                      → the server is stopped, then taken over
 *   written on another machine                    → held: nobody here can tell
 */
export interface Lock {
  /** Notes which server runs under this lock, once that is known. */
  setServer(server: ServerMark): void
  /** Gives the lock back. Does nothing when it is not ours any more. */
  release(): void
}

export interface ServerMark {
  pid: number
  /** What a running server's command line must contain to be taken for this one. */
  configPath: string
  port?: number
  serverId?: string
}

interface LockFile {
  /**
   * Random: no two locks are ever the same, so a stale one cannot be mistaken for its successor.
   */
  id: string
  host: string
  owner: { pid: number; start: string | undefined }
  server?: ServerMark
}

/** How long a server that lost its owner may take to shut down by itself. */
const STALE_STOP_MS = 10_000

/**
 * Takes the lock at `path`, stopping a server that its dead owner left behind.
 * @throws FlowStoneError `server_locked` when somebody else holds it. The message says who,
 * and what to do.
 */
export async function acquireLock(path: string): Promise<Lock> {
  const owner = { pid: process.pid, start: await startOf(process.pid) }
  let mine: LockFile = { id: randomBytes(8).toString('hex'), host: hostname(), owner }
  for (;;) {
    if (createLockFile(path, mine)) break
    const found = readLockFile(path)
    if (found === undefined) continue // Given back in between.
    await refuseIfHeld(path, found)
    await clearStale(path, found)
  }
  return {
    setServer(server) {
      mine = { ...mine, server }
      const staged = `${path}.${mine.id}`
      writeFileSync(staged, JSON.stringify(mine), { mode: 0o600 })
      renameSync(staged, path)
    },
    release() {
      if (readLockFile(path)?.id === mine.id) rmSync(path, { force: true })
    },
  }
}

/**
 * Creates the file with its content in one step: a reader never sees half of it, and only one
 * creator succeeds.
 */
function createLockFile(path: string, content: LockFile): boolean {
  const staged = `${path}.${content.id}`
  writeFileSync(staged, JSON.stringify(content), { mode: 0o600 })
  try {
    linkSync(staged, path)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  } finally {
    rmSync(staged, { force: true })
  }
}

async function refuseIfHeld(path: string, lock: LockFile): Promise<void> {
  if (lock.host !== hostname()) {
    throw new FlowStoneError(
      'server_locked',
      `${path} was taken on another machine (${lock.host}), and whether its server still runs cannot be seen from here.` +
        ' If it does not, delete that file.',
    )
  }
  const { owner, server } = lock
  if (!(await isSameProcess(owner.pid, owner.start))) return
  if (server !== undefined && !isAlive(server.pid)) return
  const who = owner.pid === process.pid ? 'this process' : `process ${owner.pid}`
  throw new FlowStoneError(
    'server_locked',
    `A nats-server${server ? ` (process ${server.pid}${server.port ? `, port ${server.port}` : ''})` : ''} started by ${who}` +
      ` uses this folder (${path}). Stop it, connect to it, or use another folder.`,
  )
}

/**
 * Removes a stale lock. Two processes may find it at the same time. So the right to remove it is a
 * lock of its own, named after the stale one's id. The slower process then does not remove a lock
 * that the faster one has created meanwhile.
 */
async function clearStale(path: string, stale: LockFile): Promise<void> {
  const right = await acquireLock(`${path}.stale-${stale.id}`)
  try {
    if (readLockFile(path)?.id !== stale.id) return
    if (stale.server) await stopLeftover(path, stale.server)
    // Looked at again: while that was waited for, the lock may have gone, and another one come in
    // its place.
    if (readLockFile(path)?.id === stale.id) rmSync(path, { force: true })
  } finally {
    right.release()
  }
}

async function stopLeftover(path: string, server: ServerMark): Promise<void> {
  if (!isAlive(server.pid)) return
  if (!(await isThatServer(server))) {
    if (process.platform !== 'win32') return // Its id now belongs to somebody else.
    throw new FlowStoneError(
      'server_locked',
      `Process ${server.pid} may be a nats-server that was left behind on this folder. End it if it is one, and delete ${path}.`,
    )
  }
  await endProcess(server.pid, STALE_STOP_MS)
}

/**
 * Never signal a process by its id alone: ids are used again. The server itself, or its command
 * line, must say so.
 */
async function isThatServer(server: ServerMark): Promise<boolean> {
  if ((await commandOf(server.pid)).includes(server.configPath)) return true
  if (server.port === undefined || server.serverId === undefined) return false
  const info = await readServerInfo(server.port, 1_000).catch(() => undefined)
  return info?.serverId === server.serverId
}

async function isSameProcess(pid: number, start: string | undefined): Promise<boolean> {
  if (!isAlive(pid)) return false
  const startNow = await startOf(pid)
  return start === undefined || startNow === undefined || start === startNow
}

function readLockFile(path: string): LockFile | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  const lock = parseLock(text)
  if (lock === undefined) throw new FlowStoneError('server_locked', `${path} is no lock file. Delete it and try again.`)
  return lock
}

function parseLock(text: string): LockFile | undefined {
  try {
    // Written by this file only; a look at the parts that are relied on is enough.
    const lock = JSON.parse(text) as LockFile
    return typeof lock.id === 'string' && typeof lock.owner.pid === 'number' ? lock : undefined
  } catch {
    return undefined
  }
}
