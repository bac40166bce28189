/** `flowstone prune` and `flowstone gc`. */

import type { Command } from 'commander'
import { counted } from '../../streams/amounts.ts'
import type { PruneOptions } from '../client/prune.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { mustHavePipeline } from './missing.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'

interface PruneCommand extends GlobalOptions {
  readonly olderThan?: string
  readonly pipeline?: string
  readonly archive?: string
  readonly dryRun?: boolean
  readonly timeout?: string
}

export function pruneCommands(root: Command): void {
  const command = connected(root.command('prune'))
    .description('delete runs that are older than their retention, or than you say')
    .option('--older-than <duration>', 'runs that ended longer ago than this, whatever their retention says: 30d')
    .option('--pipeline <name>', 'only runs of this pipeline')
    .option('--archive <target>', 'where engines archive runs first: file:FOLDER, s3://BUCKET/PREFIX')
    .option('--dry-run', 'say what would be deleted, and delete nothing')
    .option('--timeout <duration>', 'how long to wait for the engines; default 10m')
    .action((options: PruneCommand) =>
      withFlow(options, async (flow, output) => {
        if (options.pipeline !== undefined) await mustHavePipeline(flow, options.pipeline)
        const report = await flow.retention.prune(pruneArgument(options))
        const { runs, facts, bytes, oldest, newest, archives, dryRun } = report
        const ended = oldest && newest ? `, which ended from ${oldest.toISOString()} to ${newest.toISOString()}` : ''
        if (runs === 0)
          output.note(
            'Only sealed runs are pruned: an hour after their end, unless --seal-after of the engines differs.',
          )
        const verb = dryRun ? 'would go' : runs === 1 ? 'is gone' : 'are gone'
        output.result(report, () => [
          `${counted(runs, 'run')} ${verb}${ended}: ${counted(facts, 'fact')}, ${counted(bytes, 'byte')} of the history`,
          ...(runs === 0 ? [] : archives).map((to) => `${dryRun ? 'archived first to' : 'archived to'} ${to}`),
        ])
      }),
    )
  connected(command.command('ls'))
    .description('list what was pruned, and why, newest first')
    .option('--limit <n>', 'list at most N steps', '50')
    .action((options: GlobalOptions & { limit: string }) =>
      withFlow(options, async (flow, output) => {
        const found = await flow.retention.records({ limit: wholeNumber('--limit', options.limit) })
        output.result(found, () =>
          table(
            ['time', 'shard', 'runs', 'facts', 'ended up to', 'why', 'by', 'policy', 'archive'],
            found.map((one) => [
              one.at,
              one.shard,
              one.runs,
              one.facts,
              one.newest,
              one.why,
              one.by,
              one.policy,
              one.archive?.to,
            ]),
            'nothing was pruned',
          ),
        )
      }),
    )
  connected(root.command('gc'))
    .description('delete stored values that no fact names')
    .option('--dry-run', 'say what would be deleted, and delete nothing')
    .option('--grace <duration>', 'keep what was stored within this time; default 1d')
    .action((options: GlobalOptions & { dryRun?: boolean; grace?: string }) =>
      withFlow(options, async (flow, output) => {
        const { dryRun, grace } = options
        const report = await flow.retention.gc({
          ...(dryRun ? { dryRun } : {}),
          // What is no duration is refused by its name.
          ...(grace === undefined ? {} : { grace: grace as '1d' }),
        })
        const verb = report.dryRun ? 'would go' : report.objects === 1 ? 'is gone' : 'are gone'
        output.result(report, () => [`${counted(report.objects, 'object')} ${verb}: ${counted(report.bytes, 'byte')}`])
      }),
    )
}

function pruneArgument({ olderThan, pipeline, archive, dryRun, timeout }: PruneCommand): PruneOptions {
  return {
    // What is no duration is refused by its name.
    ...(olderThan === undefined ? {} : { olderThan: olderThan as '30d' }),
    ...(pipeline === undefined ? {} : { pipeline }),
    ...(archive === undefined ? {} : { archive }),
    ...(dryRun ? { dryRun } : {}),
    ...(timeout === undefined ? {} : { timeout: timeout as '10m' }),
  }
}
