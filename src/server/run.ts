import { execFile } from 'node:child_process'

/** What a program answered: its exit code, or why it could not be run at all. Never throws. */
export interface RunResult {
  ok: boolean
  stdout: string
  /**
   * The last line it complained with, or the reason that it did not start. One line, for people.
   */
  complaint: string
}

/**
 * Runs a program to its end, without a shell, and waits at most `timeoutMs`.
 * LC_ALL=C, so that what is read from the answer does not depend on the user's language.
 */
export function run(
  program: string,
  args: readonly string[],
  options: { timeoutMs: number; cwd?: string },
): Promise<RunResult> {
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      {
        timeout: options.timeoutMs,
        killSignal: 'SIGKILL',
        windowsHide: true,
        maxBuffer: 16 * 1024 * 1024,
        env: { ...process.env, LC_ALL: 'C' },
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      },
      (error, stdout, stderr) => {
        resolve({ ok: error === null, stdout, complaint: error ? complaintOf(error, stderr, options.timeoutMs) : '' })
      },
    )
  })
}

function complaintOf(error: Error & { killed?: boolean; code?: unknown }, stderr: string, timeoutMs: number): string {
  if (error.killed) return `took longer than ${timeoutMs / 1000} s`
  if (error.code === 'ENOENT') return 'not found'
  if (error.code === 'EACCES') return 'not executable'
  const lastLine = stderr.trim().split('\n').at(-1)?.trim()
  return lastLine || `ended with ${String(error.code)}`
}
