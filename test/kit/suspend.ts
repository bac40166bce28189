import { readdirSync, readFileSync } from 'node:fs'
import { until } from './until.ts'

/** Stops processes, and waits until all of their threads stand still. They go on with SIGCONT. */
export async function suspend(pids: readonly number[]): Promise<void> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  // Elsewhere nothing says so.
  if (process.platform === 'linux') await until('they stand still', () => pids.every(standsStill))
}

function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8')
    // Behind the name, which is in brackets and may hold anything.
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
  })
}
