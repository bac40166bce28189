import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from './run.ts'

/**
 * Is there a process with this id? One that has ended but was not collected by its parent yet does
 * not count.
 */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it exists and belongs to somebody else.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
  return statOf(pid)?.state !== 'Z'
}

/**
 * What tells a process from a later one with the same id: when it was started. Undefined where the
 * system does not say (Windows) or the process is gone; then the id alone has to do.
 */
export async function startOf(pid: number): Promise<string | undefined> {
  if (process.platform === 'win32') return undefined
  const stat = statOf(pid)
  if (stat) return stat.start
  const answer = await run('ps', ['-o', 'lstart=', '-p', String(pid)], { timeoutMs: 2_000 })
  return answer.ok ? answer.stdout.trim() || undefined : undefined
}

/** The command line of a process, or '' where it cannot be had. */
export async function commandOf(pid: number): Promise<string> {
  if (process.platform === 'linux') {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
    } catch {
      return ''
    }
  }
  if (process.platform === 'win32') return ''
  const answer = await run('ps', ['-o', 'args=', '-p', String(pid)], { timeoutMs: 2_000 })
  return answer.ok ? answer.stdout.trim() : ''
}

/**
 * SIGTERM, and SIGKILL when the process is still there after `patienceMs`. Returns when it is gone.
 */
export async function endProcess(pid: number, patienceMs: number): Promise<void> {
  sendSignal(pid, 'SIGTERM')
  if (await goneWithin(pid, patienceMs)) return
  sendSignal(pid, 'SIGKILL')
  if (!(await goneWithin(pid, 5_000))) throw new Error(`process ${pid} does not end, not even by SIGKILL`)
}

async function goneWithin(pid: number, ms: number): Promise<boolean> {
  const deadline = performance.now() + ms
  while (isAlive(pid)) {
    if (performance.now() > deadline) return false
    await sleep(10)
  }
  return true
}

/** Sends a signal; that the process is gone already is no error. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/**
 * Ends process `pid` when this process ends, even by SIGKILL, where no handler runs. A shell waits
 * on a pipe that only this process holds open, and the system closes it whatever happens. Returns a
 * function that calls the guard off. Not on Windows, which has no such shell: there the next start
 * finds a server that is left over, and stops it.
 */
export function endWithThisProcess(pid: number): () => void {
  if (process.platform === 'win32') return () => {}
  const guard = spawn('sh', ['-c', 'read _; kill -TERM "$1" 2>/dev/null', 'sh', String(pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // A process group of its own: Ctrl-C in a terminal must not end the guard before it is needed.
    detached: true,
  })
  guard.on('error', () => {}) // No shell: then as on Windows.
  guard.stdin.on('error', () => {}) // The guard was killed from outside.
  guard.unref()
  if ('unref' in guard.stdin && typeof guard.stdin.unref === 'function') guard.stdin.unref()
  return () => {
    guard.kill('SIGKILL')
  }
}

function statOf(pid: number): { state: string; start: string } | undefined {
  if (process.platform !== 'linux') return undefined
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the program's name in parentheses and may hold anything, so count from
    // its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const state = fields[0]
    const start = fields[19]
    return state === undefined || start === undefined ? undefined : { state, start }
  } catch {
    return undefined
  }
}
