/** `flowstone audit`: who did what. */
import type { Command } from 'commander'
import type { AuditOptions } from '../client/audit.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { table } from './output.ts'
import { wholeNumber } from './parts.ts'
import { sinceArgument } from './times.ts'

interface AuditCommand extends GlobalOptions {
  readonly by?: string
  readonly since?: string
  readonly until?: string
  readonly kind?: string
  readonly limit: string
}

export function auditCommand(root: Command): void {
  connected(root.command('audit'))
    .description('what people and outside systems did, and who: newest first, from the logs and the history')
    .option('--by <who>', 'only theirs: ana, cli:ana@laptop, or http:*')
    .option('--since <time>', 'since a time, or so long ago: 7d')
    .option('--until <time>', 'before a time, or so long ago; for the next page: the time of the last line')
    .option('--kind <names>', 'only these facts, separated by commas: run.cancel_requested, or run for all of runs')
    .option('--limit <n>', 'at most so many, up to 10000', '100')
    .action(async (options: AuditCommand) => {
      const wanted = auditArgument(options)
      await withFlow(options, async (flow, output) => {
        const entries = await flow.audit(wanted)
        output.result(entries, () =>
          table(
            ['time', 'by', 'kind', 'what', 'run', 'detail'],
            entries.map(({ time, by, kind, what, run, detail }) => [
              time,
              by,
              kind,
              what,
              // It begins with it else.
              run !== undefined && what.startsWith(run) ? undefined : run,
              detail,
            ]),
            'nothing was done',
          ),
        )
      })
    })
}

function auditArgument({ by, since, until, kind, limit }: AuditCommand): AuditOptions {
  return {
    limit: wholeNumber('--limit', limit),
    ...(by === undefined ? {} : { by }),
    ...(since === undefined ? {} : { since: sinceArgument(since) }),
    ...(until === undefined ? {} : { until: sinceArgument(until, '--until') }),
    ...(kind === undefined ? {} : { kind: kind.split(',') }),
  }
}
