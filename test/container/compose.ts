import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Runs compose, as `docker compose` or, where it is no part of docker, as the program
 * `docker-compose`. Returns what it prints.
 */
export function compose(args: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const [program, ...first] = hasComposePlugin() ? ['docker', 'compose'] : ['docker-compose']
  return execFileSync(program ?? '', [...first, ...args], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  })
}

function hasComposePlugin(): boolean {
  try {
    execFileSync('docker', ['compose', 'version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
