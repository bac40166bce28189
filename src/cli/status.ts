/** `flowstone status`: open runs, or one run; once, or again and again. */

import { counted } from '../../streams/amounts.ts'
import { InvalidError } from '../../streams/errors.ts'
import { describe } from '../../streams/thrown.ts'
import { Flow } from '../client/flow.ts'
import { whyNoRun } from '../client/no-run.ts'
import type { RunStatus } from '../client/run-status.ts'
import type { RunView } from '../client/run-view.ts'
import type { RunsOptions } from '../client/runs.ts'
import type { ScatterStatus } from '../client/scatter-status.ts'
import { type AtOptions, type Reading, withReading } from './at.ts'
import { open, stopRequest } from './context.ts'
import { fullAsset, mustHaveAsset } from './missing.ts'
import { type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'
import { barLine, runLine } from './progress.ts'
import { tagArgument } from './runs.ts'
import { fields, table, widthOf } from './table.ts'
import { sinceArgument } from './times.ts'
import { type Look, watch } from './watch.ts'

export interface StatusCommand extends AtOptions {
  readonly watch?: boolean
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

export async function statusCommandOf(run: string | undefined, options: StatusCommand): Promise<void> {
  const wanted = runsArgument(options)
  if (!options.watch) {
    await withReading(options, async (flow, output) => showStatus(flow, output, run, await withTarget(flow, wanted)))
    return
  }
  if (options.at !== undefined) throw new InvalidError('--watch shows what is so now: it takes no --at')
  using stop = stopRequest()
  await using flow = await open(options)
  const output = outputOf(options.json === true)
  if (run === undefined) await watch(flow, output, stop, lookAtRuns(flow, await withTarget(flow, wanted)))
  else await watch(flow, output, stop, lookAtRun(flow, run))
}

async function withTarget(flow: Reading, wanted: RunsOptions): Promise<RunsOptions> {
  return typeof wanted.target === 'string' ? { ...wanted, target: await fullAsset(flow, wanted.target) } : wanted
}

async function showStatus(flow: Reading, output: Output, run: string | undefined, wanted: RunsOptions): Promise<void> {
  // What is no id is said before anything is asked for.
  if (run !== undefined) flow.run(run)
  const problems = flow instanceof Flow ? await flow.problems() : []
  for (const problem of problems) output.note(`warning: no engine can work: ${problem.message}`)
  if (run === undefined) {
    if (flow instanceof Flow && problems.length === 0) await warnOfNoEngine(flow, output)
    const runs = await flow.runs(wanted)
    if (runs.length === 0 && typeof wanted.target === 'string') await mustHaveAsset(flow, wanted.target)
    output.result(runs, () => runTable(runs, wanted))
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

/** What was asked for while there is none is in no list yet. Who may not look hears nothing. */
async function warnOfNoEngine(flow: Flow, output: Output): Promise<void> {
  const shards = await flow.inspect.shards().catch(() => [])
  const without = shards.filter(({ engine }) => engine === undefined)
  if (without.length === 0) return
  for (const { id, denied } of await flow.inspect.engines().catch(() => []))
    if (denied !== undefined) output.note(`warning: ${id} cannot work: ${denied}; see docs/permissions.md`)
  const where = shards.length === 1 ? '' : ` on shard ${without.map(({ shard }) => shard).join(', ')}`
  output.note(`warning: no engine is active${where}; nothing goes on until one is: start one with flowstone engine`)
}

/** Goes on until it is stopped. A run that leaves the list is said once more, as it ended. */
function lookAtRuns(flow: Flow, wanted: RunsOptions): () => Promise<Look> {
  let before: readonly RunView[] | undefined
  return async () => {
    const runs = await flow.runs(wanted)
    if (before === undefined && runs.length === 0 && typeof wanted.target === 'string')
      await mustHaveAsset(flow, wanted.target)
    const ids = new Set(runs.map(({ id }) => id))
    const gone = wanted.open ? (before ?? []).filter(({ id }) => !ids.has(id)) : []
    const ended = await Promise.all(gone.map(async ({ id }) => await flow.run(id).view()))
    before = runs
    const said = [...runs, ...ended.flatMap((one) => (one?.finishedAt ? [one] : []))]
    return {
      lines: () => [
        `${counted(runs.length, wanted.open ? 'open run' : 'run')} at ${clock(new Date())}; Ctrl-C ends`,
        '',
        ...runTable(runs, wanted),
      ],
      // The newest one is the last line.
      changes: said.reverse().map((one) => ({ key: one.id, event: 'run', fields: { ...one }, line: listLine(one) })),
    }
  }
}

function lookAtRun(flow: Flow, id: string): () => Promise<Look> {
  const run = flow.run(id)
  return async () => {
    const view = await run.status()
    if (!view) throw await whyNoRun(run)
    const scatters = await flow.scatter.list(id)
    const open = scatters.filter(({ status }) => status === 'open')
    const asked = scatters.map((one) => ({
      ...one,
      run: id,
      asset: one.id.slice(id.length + 1),
      paused: one.paused !== undefined,
    }))
    return {
      hasEnded: view.finishedAt !== undefined,
      endsByItself: true,
      lines: () => [
        ...runLines(view),
        ...(scatters.length > 0 ? ['', ...scatterTable(scatters)] : []),
        ...open.flatMap((one) => ['', barLine(one, one, widthOf(process.stdout) ?? 0, Date.now())]),
      ],
      changes: [
        {
          key: id,
          event: 'run',
          fields: { ...view, scatters },
          line: runLine({ run: view, scatters: asked }).trimStart(),
        },
      ],
    }
  }
}

function clock(time: Date): string {
  return time.toTimeString().slice(0, 8)
}

function listLine({ id, status, pipeline, target, partition }: RunView): string {
  return `${id}  ${status}  ${pipeline}/${target}${partition === undefined ? '' : ` of ${partition}`}`
}

function runTable(runs: readonly RunView[], wanted: RunsOptions): string[] {
  return table(
    ['run', 'status', 'pipeline', 'asset', 'partition', 'requested', 'finished'],
    runs.map((one) => [one.id, one.status, one.pipeline, one.target, one.partition, one.requestedAt, one.finishedAt]),
    wanted.open ? 'no open runs (--all shows those that ended too)' : 'no runs',
  )
}

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
