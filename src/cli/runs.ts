/** Commands about runs and scatters. */

import { counted } from '../../streams/amounts.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { cut, printable } from '../../streams/text.ts'
import type { Flow } from '../client/flow.ts'
import { whyNoRun } from '../client/no-run.ts'
import type { Run } from '../client/run.ts'
import { notMade } from '../client/values.ts'
import { parseUpstream } from '../define/pipeline.ts'

import type { RunOptions } from '../define/run-options.ts'
import { parseRunTimeout } from '../options/duration.ts'
import type { WorkerConfig } from '../worker/options.ts'

import type { AtOptions, Reading } from './at.ts'
import { type GlobalOptions, open, reach, stopRequest } from './context.ts'
import { fileOf } from './file-of.ts'
import { followRun } from './follow.ts'
import { findAsset, loadFile } from './load.ts'
import { fullAsset, mustHaveAsset } from './missing.ts'
import { EXIT, type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'

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
  const { start, io } = await starter(name, options)
  using stop = stopRequest()
  await using flow = await open(options, io ? { io } : {})
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
  await follow(flow, run, stop, output)
}

/** Follows a run, and prints its value. Ended by Ctrl-C it only stops following. */
async function follow(flow: Flow, run: Run, stop: ReturnType<typeof stopRequest>, output: Output): Promise<void> {
  const leave = new AbortController()
  void stop.asked.then(() => leave.abort())
  await followRun(flow, run, leave.signal, output)
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
  await follow(flow, run, stop, output)
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

interface Starter {
  readonly start: (flow: Flow, asked: RunOptions) => Promise<Run<unknown>>
  /** What the values of the file are stored with. */
  readonly io?: WorkerConfig['io']
}

/** `PIPELINE/ASSET`. A third part is not passed over. */
function partsOf(name: string): [pipeline: string, asset: string] {
  const slash = name.indexOf('/')
  return [name.slice(0, slash), name.slice(slash + 1)]
}

/** By code where a file says it, else by what is registered. */
async function starter(name: string, options: RunCommand): Promise<Starter> {
  const { dev, servers } = reach(options)
  const file = options.file ?? dev?.file
  if (file === undefined) {
    const target = name.includes('/') || options.pipeline === undefined ? name : `${options.pipeline}/${name}`
    if (servers === undefined && !target.includes('/'))
      throw new InvalidError(
        `run: no flowstone dev runs in this folder (flowstone dev FILE starts it). For another server, name it (--server, NATS_URL), or say which pipeline: PIPELINE/${name}; or name the file that declares it with --file FILE`,
      )
    return { start: async (flow, asked) => await flow.request(await registered(flow, target), asked) }
  }
  const [named, own] = name.includes('/') ? partsOf(name) : [options.pipeline, name]
  const { pipelines, config } = await loadFile(file)
  const { asset, pipeline } = findAsset(pipelines, own ?? name, named)
  return { start: async (flow, asked) => await flow.materialize(asset, { ...asked, pipeline }), io: config.io }
}

/** Without the code, what is registered says which pipeline has an asset. */
async function registered(flow: Flow, target: string): Promise<string> {
  try {
    return await fullAsset(flow, target)
  } catch (error) {
    if (!(error instanceof FlowStoneError) || error.code !== 'not_found') throw error
    const advice = 'start a worker of it first, or name the file that declares it: --file FILE'
    throw new FlowStoneError('not_found', `${error.message}; ${advice}`)
  }
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
  const source = text.startsWith('@') ? fileOf(option, text.slice(1)) : text
  try {
    return JSON.parse(source)
  } catch {
    throw new InvalidError(`${option} must be JSON, such as '{"id":1}' or '"text"', or @FILE`)
  }
}

export function tagArgument(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((text) => {
      const at = text.indexOf('=')
      if (at < 1) throw new InvalidError(`--tag must be NAME=VALUE, got ${text}`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

export interface ValueCommand extends AtOptions {
  readonly partition?: string
  readonly run?: string
}

export async function showValue(
  flow: Reading,
  output: Output,
  named: string,
  { partition, run }: ValueCommand,
): Promise<void> {
  const asset = await fullAsset(flow, named)
  const options = { ...(partition === undefined ? {} : { partition }), ...(run === undefined ? {} : { run }) }
  const found = await flow.value(asset, options)
  if (!found) {
    await mustHaveAsset(flow, asset)
    throw notMade(asset, options)
  }
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
  let count = 0
  for await (const { seq, at, kind, data, ...rest } of flow.history(run)) {
    const about = printable(jsonOf(data))
    const line = `${String(seq).padStart(7)}  ${at.toISOString()}  ${kind.padEnd(20)}  ${cut(about, LINE_MAX, '…')}`
    output.event(kind, { seq, at, ...rest, data }, line)
    count += 1
  }
  if (count === 0) throw await whyNoRun(flow.run(run))
  for (const { on, call, status, attempts, error, ...rest } of await flow.run(run).hooks()) {
    const why = status === 'succeeded' || !error ? '' : `: ${printable(error.message)}`
    const next = rest.nextAttempt ? `, the next at ${rest.nextAttempt.toISOString()}` : ''
    const line = `   hook  ${on.padEnd(12)}  ${status}, ${counted(attempts, 'attempt')}${next}${why}  (run ${call})`
    output.event('hook', { on, call, status, attempts, ...rest, ...(error ? { error } : {}) }, line)
  }
}

const LINE_MAX = 200

/** JSON given on the command line, in a file, or (`-`) on standard input. */
export function jsonArgument(option: string, given: string | undefined, file: string | undefined): unknown {
  if (given !== undefined && file !== undefined) throw new InvalidError(`give ${option} or ${option}-file, not both`)
  const text = file === undefined ? given : fileOf(`${option}-file`, file)
  if (text === undefined) return null
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidError(`${option} must be JSON, such as '{"approved":true}' or '"text"'`)
  }
}
