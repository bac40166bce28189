import { afterEach, expect, it } from 'vitest'
import { chooseColours, forStream, inColour, painted, plain, wantsColour } from '../../src/cli/colour.ts'
import { barLine } from '../../src/cli/progress.ts'
import { fields, table } from '../../src/cli/table.ts'

const terminal = { isTTY: true }
const pipe = { isTTY: false }
const xterm = { TERM: 'xterm' }
const choose = (args: string[] = [], streams = { stdout: terminal, stderr: pipe }): void =>
  chooseColours(args, streams, { ...xterm })
afterEach(() => choose([], { stdout: pipe, stderr: pipe }))

const GREEN = (text: string): string => `\u001b[32m${text}\u001b[39m`
const RED = (text: string): string => `\u001b[31m${text}\u001b[39m`

it('colours are for terminals, unless the environment says otherwise', () => {
  expect(wantsColour(terminal, xterm)).toBe(true)
  expect(wantsColour(pipe, xterm)).toBe(false)
  for (const env of [{ TERM: 'dumb' }, { NO_COLOR: '1' }, { FORCE_COLOR: '0' }, { FORCE_COLOR: 'false' }])
    expect(wantsColour(terminal, { ...xterm, ...env }), JSON.stringify(env)).toBe(false)
  // An empty variable is none (https://no-color.org).
  expect(wantsColour(terminal, { ...xterm, NO_COLOR: '' })).toBe(true)
  for (const FORCE_COLOR of ['1', 'true', '3', ''])
    expect(wantsColour(pipe, { FORCE_COLOR, NO_COLOR: '1', TERM: 'dumb' }), FORCE_COLOR).toBe(true)
})

it('--no-color says it to processes that are started, and comes before FORCE_COLOR', () => {
  const env: NodeJS.ProcessEnv = { ...xterm, FORCE_COLOR: '1' }
  chooseColours(['status', '--no-color'], { stdout: terminal, stderr: terminal }, env)
  expect(env).toEqual({ ...xterm, NO_COLOR: '1' })
  expect(painted('failed')).toBe('failed')
  choose(['status', '--json'])
  expect(painted('failed')).toBe('failed')
})

it('states are painted in tables and lists of fields, which are as wide as without', () => {
  const rows = [
    ['a', 'failed', 'x'],
    ['b', 'succeeded', 'failed'],
    ['c', 'else', 'y'],
  ]
  const bare = table(['run', 'status', 'error'], rows, 'none', { width: undefined })
  choose()
  const lines = table(['run', 'status', 'error'], rows, 'none', { width: undefined })
  expect(lines.map(plain)).toEqual(bare)
  expect(lines.map((line) => forStream(line, 'stdout'))).toEqual([
    'RUN  STATUS     ERROR',
    `a    ${RED('failed   ')}  x`,
    `b    ${GREEN('succeeded')}  failed`,
    'c    else       y',
  ])
  const last = table(['run', 'status', 'error'], [['a', 'failed', undefined]], 'none', { width: 20 })
  expect(last.map((line) => forStream(line, 'stdout')).at(-1)).toBe(`a    ${RED('failed')}  -`)
  expect(fields({ status: 'failed', id: 'failed' }).map((line) => forStream(line, 'stdout'))).toEqual([
    `status  ${RED('failed')}`,
    'id      failed',
  ])
})

it('a bar shows what has failed, and has the same width', () => {
  const counts = { total: 10, stored: 10, succeeded: 4, failed: 1, suspended: 0 }
  const bare = barLine(counts, undefined, 60, 0)
  choose()
  const line = barLine(counts, undefined, 60, 0)
  expect(plain(line)).toBe(bare)
  expect(forStream(line, 'stdout')).toContain(`${GREEN('█'.repeat(12))}${RED('███')}░`)
  expect(forStream(line, 'stdout')).toContain(RED('1 failed'))
})

it('a stream without colours gets the words alone, and text of others colours nothing', () => {
  choose()
  const line = `${inColour('red', 'flowstone:')} \u001b[31mred\u001b[0m\n`
  expect(forStream(line, 'stderr', { lines: true })).toBe('flowstone: \\u001b[31mred\\u001b[0m\n')
  expect(forStream(line, 'stdout', { lines: true })).toBe(`${RED('flowstone:')} \\u001b[31mred\\u001b[0m\n`)
  // A mark that somebody else thought of is text.
  expect(forStream('\u{f0000}0123456789abred;x', 'stdout')).toBe('\u{f0000}0123456789abred;x')
})
