import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { inject } from 'vitest'
import { until } from '../kit/until.ts'

/** The command as the repository has it. Elsewhere the tests start a bundle, which loads faster. */
export const FROM_SOURCE = {
  main: fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url)),
  index: fileURLToPath(new URL('../../src/index.ts', import.meta.url)),
}
const bundled = (): typeof FROM_SOURCE => ({
  main: join(inject('command'), 'src', 'cli', 'main.js'),
  index: join(inject('command'), 'src', 'index.js'),
})

/** Where a test runs, somebody may have asked for colours. */
const IS_OURS = /^(NATS_URL|FORCE_COLOR$|FLOWSTONE_)/

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Where {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
  /** Whether it leads a process group of its own. */
  readonly group?: boolean
  /** The command. Default: the bundle of it. */
  readonly main?: string
}

/** The command as a process of its own, which goes on. Ends with the scope. */
export interface Running extends AsyncDisposable {
  readonly child: ChildProcess
  stdout(): string
  stderr(): string
  /** Waits until this stands in what it has said. */
  says(text: string | RegExp, times?: number): Promise<void>
  /** Resolves when it has ended. */
  readonly ended: Promise<Ended>
}

export function startCommand(
  args: readonly string[],
  { cwd, env = {}, group = false, main = bundled().main }: Where,
): Running {
  const inherited = { ...process.env }
  for (const name of Object.keys(inherited)) if (IS_OURS.test(name)) delete inherited[name]
  const child = spawn(process.execPath, [main, ...args], {
    cwd,
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: group,
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (data: Buffer) => {
    stdout += data.toString()
  })
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString()
  })
  const ended = once(child, 'close').then(() => ({ code: child.exitCode, stdout, stderr }))
  return {
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    ended,
    async says(text, times = 1) {
      const count = (): number => `${stdout}\n${stderr}`.split(text).length - 1
      await until(
        `flowstone ${args.join(' ')} says ${text}; it said:\n${stdout}\n${stderr}`,
        () => count() >= times || child.exitCode !== null,
      )
      if (count() < times)
        throw new Error(
          `flowstone ${args.join(' ')} ended (${child.exitCode}) and did not say ${text}:\n${stdout}\n${stderr}`,
        )
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended
    },
  }
}

/** They go on until they are stopped, or load code that may not end. */
const OF_THEIR_OWN = new Set(['dev', 'worker', 'engine', 'http'])
let isHere = false

/**
 * The command from its start to its end. In this process where that is the same: half a second of
 * the processor goes into the start of one.
 */
export async function runCommand(args: readonly string[], where: Where): Promise<Ended> {
  if (isHere || where.main !== undefined || OF_THEIR_OWN.has(args[0] ?? ''))
    return await startCommand(args, where).ended
  isHere = true
  try {
    return await runHere(args, where)
  } finally {
    isHere = false
  }
}

async function runHere(args: readonly string[], { cwd, env = {} }: Where): Promise<Ended> {
  const { outcomeOf } = (await import(join(inject('command'), 'src', 'cli', 'outcome.js'))) as {
    outcomeOf: (args: readonly string[]) => Promise<number | undefined>
  }
  const before = { cwd: process.cwd(), env: { ...process.env }, exitCode: process.exitCode }
  const { log, error } = console
  const writes = { stdout: process.stdout.write, stderr: process.stderr.write }
  const said = { stdout: '', stderr: '' }
  const take = (to: keyof typeof said) => (text: unknown, encoding?: unknown, written?: unknown) => {
    said[to] += String(text)
    const done = typeof encoding === 'function' ? encoding : written
    if (typeof done === 'function') process.nextTick(() => done())
    return true
  }
  for (const name of Object.keys(process.env)) if (IS_OURS.test(name)) delete process.env[name]
  Object.assign(process.env, env)
  process.chdir(cwd)
  console.log = (text) => take('stdout')(`${text}\n`)
  console.error = (text) => take('stderr')(`${text}\n`)
  process.stdout.write = take('stdout')
  process.stderr.write = take('stderr')
  process.exitCode = undefined
  try {
    const code = (await outcomeOf(args)) ?? Number(process.exitCode ?? 0)
    return { code, ...said }
  } finally {
    Object.assign(console, { log, error })
    process.stdout.write = writes.stdout
    process.stderr.write = writes.stderr
    process.exitCode = before.exitCode
    process.chdir(before.cwd)
    for (const name of Object.keys(process.env)) if (!(name in before.env)) delete process.env[name]
    Object.assign(process.env, before.env)
  }
}

/** A user's file. `from 'flowstone'` in it is the package of the command that loads it. */
export function writeModule(folder: string, name: string, source: string, { index } = bundled()): string {
  const path = join(folder, name)
  writeFileSync(path, source.replaceAll("'flowstone'", `'${pathToFileURL(index).href}'`))
  return path
}
