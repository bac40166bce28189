/**
 * `flowstone worker` runs user code in a child process. Code may block its event loop and hear no
 * signal. Its supervisor always hears them: it passes them on, and kills a child that does not end.
 *
 * The supervisor stays for as long as its worker, so this file imports next to nothing.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Worker as Thread } from 'node:worker_threads'

/** What a worker tells its supervisor. */
export type FromWorker =
  | { readonly loaded: string }
  | { readonly ready: true; readonly drainMs: number }
  | { readonly alive: true }
  | { readonly counted: unknown }

/** What user code in the worker sends by itself is none of it. */
export function fromWorker(message: unknown): FromWorker | undefined {
  if (typeof message !== 'object' || message === null) return undefined
  if ('loaded' in message && typeof message.loaded === 'string') return { loaded: message.loaded }
  if ('ready' in message && 'drainMs' in message && typeof message.drainMs === 'number')
    return { ready: true, drainMs: message.drainMs }
  if ('counted' in message) return { counted: message.counted }
  return 'alive' in message ? { alive: true } : undefined
}

/** What a supervisor tells its worker, once: end at once. */
const END_NOW = 'flowstone: end now'
const SUPERVISOR = 'FLOWSTONE_SUPERVISOR'
const INTERRUPTED = 130
const SEMI_SPACE_MB = 16
const LOOK_MS = 200
/** A child that was asked to stop and says nothing for so long is blocked. */
const SILENT_MS = 3000
/**
 * A child that stops in order may take so much longer than it lets code run: it aborts that, and
 * waits for a server that is away.
 */
const IN_ORDER_MS = 40_000
/** At a second signal the child may still store its last words. */
const LAST_WORDS_MS = 1000
/** A child whose supervisor is gone gets so much longer than it lets code run. */
const ALONE_MS = 2000

/** Whether another process of FlowStone started this one and watches over it. */
export const isSupervised = Boolean(process.env[SUPERVISOR])
// Programs that user code starts are not supervised.
delete process.env[SUPERVISOR]

export const isToEndNow = (message: unknown): boolean => message === END_NOW

/** Windows has no signals to pass on. A debugger has to meet the process that runs the code. */
export function needsSupervisor(command: string | undefined): boolean {
  const flags = [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(' ')]
  const isDebugged = flags.some((flag) => flag.startsWith('--inspect'))
  return command === 'worker' && !isSupervised && process.platform !== 'win32' && !isDebugged
}

/**
 * By default, Node lets the young generation grow to some 130 MB while much is allocated, and never
 * gives it back. A worker needs a fraction of it. What somebody has set for Node holds.
 */
function youngGeneration(): string[] {
  const flags = [...process.execArgv, process.env.NODE_OPTIONS ?? '']
  return flags.some((flag) => flag.includes('semi-space-size')) ? [] : [`--max-semi-space-size=${SEMI_SPACE_MB}`]
}

export function spawnWorker(
  args: readonly string[],
  options: { readonly env: NodeJS.ProcessEnv; readonly stdin: 'inherit' | 'ignore'; readonly detached: boolean },
): ChildProcess {
  const main = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './main.ts' : './main.js', import.meta.url))
  return spawn(process.execPath, [...youngGeneration(), ...process.execArgv, main, ...args], {
    env: { ...options.env, [SUPERVISOR]: '1' },
    stdio: [options.stdin, 'inherit', 'inherit', 'ipc'],
    detached: options.detached && process.platform !== 'win32',
  })
}

/** Runs a worker until it has ended. Resolves with its exit code. */
export async function supervise(args: readonly string[]): Promise<number> {
  const child = spawnWorker(args, { env: process.env, stdin: 'inherit', detached: false })
  let heardMs = 0
  // A child that is not ready has nothing to finish.
  let drainMs = 0
  child.on('message', (said) => {
    heardMs = performance.now()
    const message = fromWorker(said)
    if (message && 'ready' in message) drainMs = message.drainMs
  })
  let signals = 0
  const kill = (why: string): void => {
    console.error(`flowstone: the worker is killed: ${why}`)
    child.kill('SIGKILL')
  }
  const bound = (): void => {
    const askedMs = performance.now()
    const timer = setInterval(() => {
      const nowMs = performance.now()
      const lateMs = nowMs - askedMs - drainMs
      const isBlocked = lateMs > 0 && nowMs - Math.max(askedMs, heardMs) > SILENT_MS
      if (!isBlocked && lateMs < IN_ORDER_MS) return
      clearInterval(timer)
      kill(isBlocked ? 'it was asked to stop, and its event loop is blocked' : 'it was asked to stop, and did not end')
    }, LOOK_MS)
  }
  const stop = (signal: NodeJS.Signals): void => {
    signals += 1
    if (signals === 1) {
      child.kill(signal)
      bound()
    } else if (signals === 2) {
      if (child.connected) child.send(END_NOW, () => undefined)
      setTimeout(() => child.kill('SIGKILL'), LAST_WORDS_MS)
    }
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)
  process.on('disconnect', () => stop('SIGTERM'))
  // Nobody reads what it says.
  process.stderr.on('error', () => undefined)
  for (const signal of ['SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const) process.on(signal, () => child.kill(signal))
  const [code, signal] = await once(child, 'exit')
  if (signals > 1) return INTERRUPTED
  return code ?? 128 + (constants.signals[signal as NodeJS.Signals] ?? 0)
}

/**
 * Ends this process a moment after its supervisor is gone, whatever its code does. (A process that
 * is not blocked sees its channel close, and stops in order.) What it gives takes how long running
 * code may go on; until then there is none to finish.
 */
export function endWithSupervisor(): (drainMs: number) => void {
  try {
    const workerData = { parent: process.ppid, aloneMs: ALONE_MS, lookMs: LOOK_MS }
    const resourceLimits = { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 }
    const options = { eval: true, name: 'flowstone guard', execArgv: [], workerData, resourceLimits }
    const thread = new Thread(GUARD, options)
    thread.unref()
    return (drainMs) => thread.postMessage(drainMs)
  } catch {
    // Where threads may not be started, nothing is lost but this.
    return () => undefined
  }
}

const GUARD = `const { parentPort, workerData } = require('node:worker_threads')
const { parent, aloneMs, lookMs } = workerData
let goneMs
let afterMs = aloneMs
parentPort.on('message', (drainMs) => {
  afterMs = drainMs + aloneMs
})
setInterval(() => {
  if (process.ppid === parent) return
  goneMs ??= performance.now()
  if (performance.now() - goneMs > afterMs) process.kill(process.pid, 'SIGKILL')
}, lookMs)`
