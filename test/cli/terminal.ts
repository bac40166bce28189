/**
 * The command on a pseudo-terminal: `script` of util-linux makes it, which every Debian has. What
 * arrives is drawn by a terminal without a screen, so that a test reads what a person would see.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import xterm from '@xterm/headless'
import { inject } from 'vitest'
import { until } from '../kit/until.ts'
import type { Where } from './kit.ts'

export interface OnTerminal extends AsyncDisposable {
  /** All lines, from the first one on, without the empty ones at the end. */
  lines(): Promise<string[]>
  /** Every byte that came. */
  raw(): string
  /** `\u0003` is Ctrl-C. */
  type(keys: string): void
  /** Waits until a line on the terminal is such. */
  shows(text: string | RegExp): Promise<void>
  /** Its exit code. */
  readonly ended: Promise<number | null>
}

export interface OnTerminalOptions extends Where {
  readonly columns?: number
  readonly rows?: number
  /** Where standard output goes, in place of the terminal. */
  readonly stdout?: string
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

export function onTerminal(
  args: readonly string[],
  {
    cwd,
    env = {},
    columns = 80,
    rows = 24,
    stdout,
    main = join(inject('command'), 'src', 'cli', 'main.js'),
  }: OnTerminalOptions,
): OnTerminal {
  const command = [process.execPath, main, ...args].map(quoted).join(' ')
  const to = stdout === undefined ? '' : ` > ${quoted(stdout)}`
  const { FORCE_COLOR: _, ...inherited } = process.env
  const child = spawn('script', ['-qefc', `stty cols ${columns} rows ${rows}; exec ${command}${to}`, '/dev/null'], {
    cwd,
    // Where a test runs, somebody may have asked for plain lines.
    env: { ...inherited, CI: '', NO_COLOR: '', NATS_URL: '', TERM: 'xterm-256color', SHELL: '/bin/sh', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, scrollback: 10_000 })
  let raw = ''
  let drawn: Promise<void> = Promise.resolve()
  child.stdout.on('data', (data: Buffer) => {
    raw += data.toString()
    drawn = new Promise((resolve) => terminal.write(data, resolve))
  })
  const lines = async (): Promise<string[]> => {
    await drawn
    const { active } = terminal.buffer
    const all = Array.from({ length: active.length }, (_, at) => active.getLine(at)?.translateToString(true) ?? '')
    return all.slice(0, all.findLastIndex((line) => line !== '') + 1)
  }
  const ended = once(child, 'close').then(() => child.exitCode)
  return {
    lines,
    raw: () => raw,
    type: (keys) => void child.stdin.write(keys),
    ended,
    async shows(text) {
      const isThere = (line: string): boolean => (typeof text === 'string' ? line.includes(text) : text.test(line))
      await until(
        `flowstone ${args.join(' ')} shows ${text}; it showed:\n${raw}`,
        async () => (await lines()).some(isThere) || child.exitCode !== null,
      )
      if (!(await lines()).some(isThere))
        throw new Error(`flowstone ${args.join(' ')} ended (${child.exitCode}) and did not show ${text}:\n${raw}`)
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended
      terminal.dispose()
    },
  }
}
