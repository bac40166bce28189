/** `flowstone export` and `flowstone import`. */

import type { Command } from 'commander'
import { count, counted } from '../../streams/amounts.ts'
import { InvalidError } from '../../streams/errors.ts'
import type { ExportOptions, ExportReport } from '../engine/archive/export.ts'
import type { ArchiveFormat } from '../engine/archive/write.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { mustHavePipeline } from './missing.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { sinceArgument } from './times.ts'

interface ExportCommand extends GlobalOptions {
  readonly to: string
  readonly since?: string
  readonly until?: string
  readonly pipeline?: string[]
  readonly all?: boolean
  readonly positions: boolean
  readonly open?: boolean
  readonly format?: string
}

interface ImportCommand extends GlobalOptions {
  readonly replicas?: string
  readonly skipOpen?: boolean
  readonly positions: boolean
}

export function archiveCommands(root: Command): void {
  connected(root.command('export [run...]'))
    .description('write runs to an archive: JSON lines or Parquet, to a file, S3 or standard output')
    .option(
      '--to <place>',
      'a path, s3://BUCKET/KEY, or - for standard output; ends in .jsonl, .jsonl.gz, .jsonl.zst or .parquet',
      '-',
    )
    .option('--since <time>', 'runs requested since a time, or so long ago: 7d')
    .option('--until <time>', 'runs requested before a time, or so long ago')
    .option('--pipeline <name>', 'runs of this pipeline; may be given again', (text: string, before: string[] = []) => [
      ...before,
      text,
    ])
    .option('--all', 'all runs, the newest value of each asset, and where schedules and subscriptions stand')
    .option('--no-positions', 'leave out where schedules, sensors and subscriptions stand; --all takes that along')
    .option('--open', 'runs that have not ended, too; import takes none of them')
    .option('--format <name>', 'jsonl for a name with another ending, parquet for standard output')
    .action((runs: string[], options: ExportCommand) => exportCommand(runs, options))
  connected(root.command('import <archive...>'))
    .description('read archives into an empty namespace: files, or s3://BUCKET/KEY')
    .option('--replicas <n>', 'copies of each stream of the namespace; default 1')
    .option('--skip-open', 'leave out runs that had not ended')
    .option('--no-positions', 'schedules start from now on, sensors and subscriptions from their beginning')
    .action((archives: string[], options: ImportCommand) => importCommand(archives, options))
}

async function exportCommand(runs: readonly string[], options: ExportCommand): Promise<void> {
  const { to, since, until, pipeline, all, positions, open, format } = options
  const toStream = to === '-'
  if (toStream && options.json)
    throw new InvalidError('--json needs --to: standard output has the archive, which is JSON as it is')
  const wanted: ExportOptions = {
    to: toStream ? process.stdout : to,
    ...(runs.length > 0 ? { runs } : {}),
    ...(since === undefined ? {} : { since: sinceArgument(since) }),
    ...(until === undefined ? {} : { until: sinceArgument(until, '--until') }),
    ...(pipeline ? { pipelines: pipeline } : {}),
    ...(all ? { all, positions } : {}),
    ...(open ? { open } : {}),
    // What is no format is refused by name.
    ...(format === undefined ? {} : { format: format as ArchiveFormat }),
  }
  await withFlow(options, async (flow, output) => {
    for (const name of pipeline ?? []) await mustHavePipeline(flow, name)
    const report = await flow.export(wanted)
    const lines = reportLines(report)
    if (toStream) for (const line of lines) output.note(line)
    else output.result(report, () => lines)
  })
}

function reportLines({ to, runs, facts, blobs, left, sha256 }: ExportReport): string[] {
  const where = to === undefined ? '' : ` in ${to}`
  const some = left === 0 ? [] : [`left out as not ended: ${counted(left, 'run')} (--open takes them as they are)`]
  return [
    `${counted(runs, 'run')}, ${counted(facts, 'fact')} and ${counted(blobs, 'large value')}${where}, SHA-256 ${sha256}`,
    ...some,
  ]
}

async function importCommand(archives: readonly string[], options: ImportCommand): Promise<void> {
  const { replicas, skipOpen, positions } = options
  await withFlow(options, async (flow, output) => {
    const report = await flow.import(archives, {
      ...(replicas === undefined ? {} : { replicas: wholeNumber('--replicas', replicas) }),
      ...(skipOpen ? { skipOpen } : {}),
      ...(positions ? {} : { positions }),
    })
    const { runs, facts, blobs, positions: continued, left, twice } = report
    output.result(report, () => [
      `namespace ${flow.namespace}: ${counted(runs, 'run')}, ${counted(facts, 'fact')} and ${counted(blobs, 'large value')}`,
      ...(continued > 0
        ? [`schedules, sensors and subscriptions that go on where they stood: ${count(continued)}`]
        : []),
      ...(left > 0 ? [`left out as not ended: ${counted(left, 'run')}`] : []),
      ...(twice > 0 ? [`in an earlier archive already: ${counted(twice, 'run')}`] : []),
    ])
  })
}
