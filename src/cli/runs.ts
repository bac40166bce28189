/** Commands about runs and scatters. */

import { readFileSync } from 'node:fs'
import { InvalidError } from '../../streams/errors.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { cut, printable } from '../../streams/text.ts'
import { describe } from '../../streams/thrown.ts'
import { Flow } from '../client/flow.ts'
import { whyNoRun } from '../client/no-run.ts'
import type { Run, RunUpdate } from '../client/run.ts'
import type { RunStatus } from '../client/run-status.ts'
import type { RunView } from '../client/run-view.ts'
import type { RunsOptions } from '../client/runs.ts'
import type { ScatterStatus } from '../client/scatter-status.ts'
import { notMade } from '../client/values.ts'
import { parseUpstream } from '../define/pipeline.ts'

import type { RunOptions } from '../define/run-options.ts'
import { parseRunTimeout } from '../options/duration.ts'

import type { AtOptions, Reading } from './at.ts'
import { type GlobalOptions, open, reach, stopRequest } from './context.ts'
import { findAsset, loadPipelines } from './load.ts'
import { EXIT, type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'
import { fields, table } from './table.ts'
import { sinceArgument } from './times.ts'
import { tellWaiting } from './waiting.ts'

export interface RunCommand extends GlobalOptions {
  readonly file?: string
  readonly pipeline?: string
  readonly partition?: string
  readonly key?: string
  readonly onFailed?: string
  readonly upstream?: string
  readonly input?: string[]
  readonly tag?: string[]
  readonly timeout?: string
  readonly concurrencyKey?: string
  readonly concurrencyLimit?: string
  readonly onConflict?: string
  readonly wait: boolean
}

/**
 * Starts a run, follows it, and prints the asset's value. Ended by Ctrl-C it only stops following:
 * the run goes on.
 */
export async function runAsset(name: string, options: RunCommand): Promise<void> {
  const output = outputOf(options.json === true)
  const { onFailed } = options
  if (onFailed !== undefined && onFailed !== 'return' && onFailed !== 'retry')
    throw new InvalidError(`--on-failed must be return or retry, got ${onFailed}`)
  const asked: RunOptions = {
    ...(options.partition === undefined ? {} : { partition: options.partition }),
    ...(options.key === undefined ? {} : { key: options.key }),
    ...(options.timeout === undefined ? {} : { timeout: parseRunTimeout('--timeout', options.timeout) }),
    ...(options.upstream === undefined ? {} : { upstream: parseUpstream('--upstream', options.upstream) }),
    ...(onFailed === undefined ? {} : { onFailed }),
    ...(options.input === undefined ? {} : { input: inputArgument(options.input) }),
    ...(options.tag === undefined ? {} : { tags: tagArgument(options.tag) }),
    ...concurrencyArgument(options),
  }
  const start = await starter(name, options)
  using stop = stopRequest()
  await using flow = await open(options)
  const asking = start(flow, asked)
  const run = await Promise.race([asking, stop.asked])
  if (typeof run === 'string') {
    output.note(
      'whether the run was asked for is not known: the server has not answered. With --key it can be asked for again',
    )
    process.exitCode = EXIT.interrupted
    return
  }
  if (!options.wait) {
    output.result({ run: run.id, isNew: run.isNew }, () => [run.id])
    return
  }
  output.note(`run ${run.id}${run.isNew ? '' : ', which was started before under this key'}`)
  await follow(run, stop, output)
}

/** Follows a run, and prints its value. Ended by Ctrl-C it only stops following. */
async function follow(run: Run, stop: ReturnType<typeof stopRequest>, output: Output): Promise<void> {
  const leave = new AbortController()
  void stop.asked.then(() => leave.abort())
  let last = ''
  using _ = tellWaiting(run, output)
  for await (const update of run.watch({ signal: leave.signal })) {
    const line = progress(update)
    if (line !== last) output.note(line)
    last = line
  }
  const value = await run.result({ signal: leave.signal }).catch((error: unknown) => {
    if (!leave.signal.aborted) throw error
  })
  if (leave.signal.aborted) {
    output.note(`no longer followed; it goes on: flowstone status ${run.id}`)
    process.exitCode = EXIT.interrupted
    return
  }
  output.result({ run: run.id, value }, () => [jsonOf(value, 2)])
}

export interface RetryCommand extends GlobalOptions {
  readonly from?: string
  readonly input?: string[]
  readonly timeout?: string
  readonly wait: boolean
}

function concurrencyArgument(options: RunCommand): Pick<RunOptions, 'concurrency'> {
  const { concurrencyKey, concurrencyLimit, onConflict } = options
  const given = {
    ...(concurrencyKey === undefined ? {} : { key: concurrencyKey }),
    ...(onConflict === undefined ? {} : { onConflict }),
  }
  if (concurrencyLimit !== undefined) {
    const concurrency = { ...given, limit: wholeNumber('--concurrency-limit', concurrencyLimit) }
    // What is not one of those there are is named by whom it is given to.
    return { concurrency: concurrency as NonNullable<RunOptions['concurrency']> }
  }
  if (Object.keys(given).length > 0)
    throw new InvalidError('--concurrency-key and --on-conflict need --concurrency-limit')
  return {}
}

/** Takes up a run that has ended, as a new one, and follows that. */
export async function retryRun(id: string, options: RetryCommand): Promise<void> {
  const output = outputOf(options.json === true)
  const asked = {
    ...(options.from === undefined ? {} : { from: options.from }),
    ...(options.input === undefined ? {} : { input: inputArgument(options.input) }),
    ...(options.timeout === undefined ? {} : { timeout: parseRunTimeout('--timeout', options.timeout) }),
  }
  using stop = stopRequest()
  await using flow = await open(options)
  const run = await flow.retry(id, asked)
  if (!options.wait) {
    output.result({ run: run.id, isNew: run.isNew }, () => [run.id])
    return
  }
  output.note(`run ${run.id}${run.isNew ? '' : ', which was started before'}`)
  await follow(run, stop, output)
}

export async function cancelRun(flow: Flow, output: Output, id: string, reason: string | undefined): Promise<void> {
  const run = flow.run(id)
  const view = await run.view()
  if (!view) throw await whyNoRun(run)
  await run.cancel(reason)
  if (view.finishedAt === undefined) output.result({ run: id, cancelled: true }, () => [`run ${id} is being cancelled`])
  else
    output.result({ run: id, ended: view.status }, () => [
      `run ${id} has ended (${view.status}): there was nothing to do`,
    ])
}

/** By code where a file says it, else by what is registered. */
async function starter(
  name: string,
  options: RunCommand,
): Promise<(flow: Flow, asked: RunOptions) => Promise<Run<unknown>>> {
  const file = options.file ?? reach(options).dev?.file
  if (file === undefined) {
    const [pipeline, asset] = name.includes('/') ? name.split('/', 2) : [options.pipeline, name]
    if (pipeline === undefined)
      throw new InvalidError(
        `run: say which pipeline: PIPELINE/${name}, or --pipeline NAME; or name the file that declares it with --file FILE`,
      )
    return async (flow, asked) => await flow.request(`${pipeline}/${asset}`, asked)
  }
  const [named, own] = name.includes('/') ? name.split('/', 2) : [options.pipeline, name]
  const { asset, pipeline } = findAsset(await loadPipelines(file), own ?? name, named)
  return async (flow, asked) => await flow.materialize(asset, { ...asked, pipeline })
}

/** One input: `order=@file.json` or `order={"id":1}`. All of them: `{"order":…}`. */
export function inputArgument(given: readonly string[]): Record<string, unknown> {
  const input: Record<string, unknown> = {}
  for (const text of given) {
    const [, name, json] = /^([A-Za-z0-9_-]+)=(.*)$/s.exec(text) ?? []
    if (name !== undefined && json !== undefined) {
      input[name] = parseJson(`--input ${name}`, json)
      continue
    }
    const all = parseJson('--input', text)
    if (typeof all !== 'object' || all === null || Array.isArray(all))
      throw new InvalidError(`--input must be NAME=JSON, NAME=@FILE, or a JSON object with a value for each input`)
    Object.assign(input, all)
  }
  return input
}

function parseJson(option: string, text: string): unknown {
  const source = text.startsWith('@') ? readFileSync(text === '@-' ? 0 : text.slice(1), 'utf8') : text
  try {
    return JSON.parse(source)
  } catch {
    throw new InvalidError(`${option} must be JSON, such as '{"id":1}', or @FILE`)
  }
}

function tagArgument(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((text) => {
      const at = text.indexOf('=')
      if (at < 1) throw new InvalidError(`--tag must be NAME=VALUE, got ${text}`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

function progress({ run, scatters }: RunUpdate): string {
  const assets = Object.entries(run.assets).map(([name, { status, gate, waitsForRun }]) => {
    const scatter = scatters.find(({ asset }) => asset === name)
    return `${name} ${status}${gate === undefined ? '' : ` at gate ${gate}`}${waitsForRun === undefined ? '' : ` for run ${waitsForRun}`}${scatter && scatter.status === 'open' ? ` ${scatter.succeeded + scatter.failed}/${scatter.total ?? '?'}` : ''}`
  })
  return `  ${run.status}: ${assets.join(', ')}`
}

export interface StatusCommand extends AtOptions {
  readonly all?: boolean
  readonly limit: string
  readonly status?: string
  readonly target?: string
  readonly tag?: string[]
  readonly partition?: string
  readonly since?: string
  readonly after?: string
}

/** Which runs are listed: open ones, unless something says otherwise. */
export function runsArgument({ all, limit, status, target, tag, partition, since, after }: StatusCommand): RunsOptions {
  const sinceDate = since === undefined ? undefined : sinceArgument(since)
  return {
    limit: wholeNumber('--limit', limit),
    ...(all || status !== undefined ? {} : { open: true }),
    // What is no status is refused by name.
    ...(status === undefined ? {} : { status: status.split(',') as RunView['status'][] }),
    ...(target === undefined ? {} : { target }),
    ...(tag === undefined ? {} : { tag: tagArgument(tag) }),
    ...(partition === undefined ? {} : { partition }),
    ...(sinceDate === undefined ? {} : { since: sinceDate }),
    ...(after === undefined ? {} : { after }),
  }
}

export async function showStatus(
  flow: Reading,
  output: Output,
  run: string | undefined,
  wanted: RunsOptions,
): Promise<void> {
  // What is no id is said before anything is asked for.
  if (run !== undefined) flow.run(run)
  const problems = flow instanceof Flow ? await flow.problems() : []
  for (const problem of problems) output.note(`warning: no engine can work: ${problem.message}`)
  if (run === undefined) {
    const runs = await flow.runs(wanted)
    output.result(runs, () =>
      table(
        ['run', 'status', 'pipeline', 'asset', 'partition', 'requested', 'finished'],
        runs.map((one) => [
          one.id,
          one.status,
          one.pipeline,
          one.target,
          one.partition,
          one.requestedAt,
          one.finishedAt,
        ]),
        wanted.open ? 'no open runs (--all shows those that ended too)' : 'no runs',
      ),
    )
    return
  }
  const view = await flow.run(run).status()
  if (!view) throw await whyNoRun(flow.run(run))
  const scatters = await flow.scatter.list(run)
  output.result({ ...view, scatters }, () => [
    ...runLines(view),
    ...(scatters.length > 0 ? ['', ...scatterTable(scatters)] : []),
  ])
}

export interface ValueCommand extends AtOptions {
  readonly partition?: string
  readonly run?: string
}

export async function showValue(
  flow: Reading,
  output: Output,
  asset: string,
  { partition, run }: ValueCommand,
): Promise<void> {
  const options = { ...(partition === undefined ? {} : { partition }), ...(run === undefined ? {} : { run }) }
  const found = await flow.value(asset, options)
  if (!found) throw notMade(asset, options)
  output.note(`made ${found.at?.toISOString() ?? 'before'}${found.run === undefined ? '' : ` by run ${found.run}`}`)
  output.result(found, () => [jsonOf(found.value, 2)])
}

export async function adoptRun(flow: Flow, output: Output, run: string): Promise<void> {
  const adopted = await flow.adopt(run)
  const { version, from, added } = adopted
  const more = added.length > 0 ? `, and makes ${added.join(', ')} too` : ''
  output.result(adopted, () => [`run ${run} goes on with version ${version} (before: ${from})${more}`])
}

/** What happened in a run, a line for each fact. With JSON also a line each: it may be long. */
export async function showHistory(flow: Reading, output: Output, run: string): Promise<void> {
  for await (const { seq, time, kind, data, ...rest } of flow.history(run)) {
    const about = printable(jsonOf(data))
    const line = `${String(seq).padStart(7)}  ${time.toISOString()}  ${kind.padEnd(20)}  ${cut(about, LINE_MAX, '…')}`
    output.event(kind, { seq, time, ...rest, data }, line)
  }
}

const LINE_MAX = 200

const REUSED = {
  current: 'made of the same, by the same code',
  present: 'there was a value',
  earlier_run: 'the run before had it',
} as const

function runLines(view: RunStatus): string[] {
  const { assets, waitingFor, ...rest } = view
  return [
    ...fields({ ...rest, waitingFor: waitingFor.join('; ') || undefined }),
    '',
    ...table(
      ['asset', 'status', 'attempt', 'reused', 'gate', 'error', 'waiting for'],
      Object.entries(assets).map(([name, { status, attempt, reused, gate, error, waitingFor: why }]) => [
        name,
        status,
        attempt,
        reused && `${REUSED[reused.why]}${reused.run === undefined ? '' : `, of run ${reused.run}`}`,
        gate,
        error && describe(error),
        why.join('; ') || undefined,
      ]),
      'no assets yet',
    ),
  ]
}

export function scatterTable(scatters: readonly ScatterStatus[]): string[] {
  return table(
    ['scatter', 'status', 'total', 'succeeded', 'failed', 'pending', 'progress', 'waiting for'],
    scatters.map((one) => [
      one.id,
      one.status,
      one.total ?? `${one.stored}+`,
      one.succeeded,
      one.failed,
      one.pending,
      `${one.progress} %`,
      one.waitingFor.join('; ') || undefined,
    ]),
    'no scatters',
  )
}

/** JSON given on the command line, in a file, or (`-`) on standard input. */
export function jsonArgument(option: string, given: string | undefined, file: string | undefined): unknown {
  if (given !== undefined && file !== undefined) throw new InvalidError(`give ${option} or ${option}-file, not both`)
  const text = file === undefined ? given : readFileSync(file === '-' ? 0 : file, 'utf8')
  if (text === undefined) return null
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidError(`${option} must be JSON, such as '{"approved":true}' or '"text"'`)
  }
}
