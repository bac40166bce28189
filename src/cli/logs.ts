/** `flowstone logs`: what the code of a run logged. */
import { styleText } from 'node:util'
import type { Command } from 'commander'
import { InvalidError } from '../../streams/errors.ts'
import type { LogLevel, LogLine } from '../../streams/logs.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { printable } from '../../streams/text.ts'
import type { LogsOptions } from '../client/logs.ts'
import { parseLevel } from '../logs/options.ts'
import { type GlobalOptions, open, stopRequest } from './context.ts'
import { connected } from './options.ts'
import { EXIT, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'
import { sinceArgument } from './times.ts'

interface LogsCommand extends GlobalOptions {
  readonly follow?: boolean
  readonly level?: string
  readonly instance?: string
  readonly since?: string
}

const COLOURS = { debug: 'dim', info: 'green', warn: 'yellow', error: 'red' } as const satisfies Record<
  LogLevel,
  string
>

export function logsCommand(root: Command): void {
  connected(root.command('logs <run>'))
    .description('print what the code of a run (RUN), or of its asset (RUN.ASSET), logged with ctx.log')
    .option('-f, --follow', 'wait for more until the run has ended')
    .option('--level <level>', 'only lines of this level and above: debug, info, warn, error')
    .option('--instance <index>', 'only of this instance of the scatter; needs RUN.ASSET')
    .option('--since <time>', 'since a time, or so long ago: 10m')
    .action(async (what: string, options: LogsCommand) => await showLogs(what, options))
}

async function showLogs(what: string, options: LogsCommand): Promise<void> {
  const { run, ...wanted } = logsArgument(what, options)
  using stop = stopRequest()
  await using flow = await open(options)
  const ended = new AbortController()
  void stop.asked.then(() => {
    process.exitCode = EXIT.interrupted
    ended.abort()
  })
  let lines = 0
  for await (const line of flow.logs(run, { ...wanted, signal: ended.signal })) {
    console.log(options.json ? printable(jsonOf(line)) : lineOf(line))
    lines += 1
  }
  if (lines === 0) outputOf(options.json === true).note('no such lines are kept: code logs them with ctx.log')
}

function logsArgument(what: string, options: LogsCommand): LogsOptions & { readonly run: string } {
  const { follow = false, level, instance, since } = options
  const dot = what.indexOf('.')
  const asset = dot < 0 ? undefined : what.slice(dot + 1)
  if (instance !== undefined && asset === undefined)
    throw new InvalidError('--instance needs the asset, too: flowstone logs RUN.ASSET --instance 17')
  return {
    run: dot < 0 ? what : what.slice(0, dot),
    follow,
    ...(asset === undefined ? {} : { asset }),
    ...(level === undefined ? {} : { level: parseLevel('--level', level) }),
    ...(instance === undefined ? {} : { instance: wholeNumber('--instance', instance) }),
    ...(since === undefined ? {} : { since: sinceArgument(since) }),
  }
}

/** `2026-11-29T14:03:04.512Z warn  forecasts[17] #2  no answer  city="Oslo"`. */
export function lineOf({ at, level, asset, index, phase, attempt, message, fields = {} }: LogLine): string {
  const place = [
    index === undefined ? asset : `${asset}[${index}]`,
    ...(phase === 'execute' ? [] : [phase]),
    ...(attempt === 1 ? [] : [`#${attempt}`]),
  ]
  const shown = Object.entries(fields).map(([name, value]) => `${name}=${fieldText(name, value)}`)
  return [
    at.toISOString(),
    styleText(COLOURS[level], level.padEnd(5)),
    `${place.join(' ')} `,
    // Indented: what an outsider wrote shall not look like a line of its own.
    printable(message, { lines: true }).replaceAll('\n', '\n    '),
    ...(shown.length === 0 ? [] : [styleText('dim', ` ${printable(shown.join(' '))}`)]),
  ].join(' ')
}

/** An error by its message and those of its causes; its stack is in the JSON. */
function fieldText(name: string, value: unknown): string {
  return name === 'error' && isError(value) ? JSON.stringify(chainOf(value)) : jsonOf(value)
}

interface ErrorField {
  readonly name?: unknown
  readonly message: string
  readonly cause?: unknown
}

function isError(value: unknown): value is ErrorField {
  return typeof value === 'object' && value !== null && 'message' in value && typeof value.message === 'string'
}

function chainOf({ name, message, cause }: ErrorField): string {
  const own = typeof name === 'string' && name !== 'Error' ? `${name}: ${message}` : message
  return isError(cause) ? `${own} (cause: ${chainOf(cause)})` : own
}
