/** `flowstone audit`: who did what. */
import type { Command } from 'commander'
import { type AuditPlace, parsePlace, placeText } from '../../projections/audit.ts'
import { InvalidError } from '../../streams/errors.ts'
import type { AuditOptions } from '../client/audit.ts'
import { type AtOptions, readable, withReading } from './at.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'
import { sinceArgument } from './times.ts'

interface AuditCommand extends AtOptions {
  readonly by?: string
  readonly since?: string
  readonly until?: string
  readonly after?: string
  readonly kind?: string
  readonly limit: string
}

export function auditCommand(root: Command): void {
  readable(root.command('audit'))
    .description('list what people and outside systems did, and who it was, newest first')
    .option('--by <who>', 'only what they did: ana, cli:ana@laptop, or http:*')
    .option('--since <time>', 'since a time, or so long ago: 7d')
    .option('--until <time>', 'before a time, or so long ago')
    .option('--after <place>', 'the next page, from what the page before printed: TIME/SHARD/SEQUENCE')
    .option('--kind <names>', 'only these facts, separated by commas: run.cancel_requested, or run for all of runs')
    .option('--limit <n>', 'list at most N, up to 10000', '100')
    .action(async (options: AuditCommand) => {
      const wanted = auditArgument(options)
      await withReading(options, async (flow, output) => {
        const entries = await flow.audit(wanted)
        const last = entries.length === wanted.limit ? entries.at(-1) : undefined
        output.result(entries, () => [
          ...table(
            ['time', 'by', 'kind', 'what', 'run', 'detail'],
            entries.map(({ at, by, kind, what, run, detail }) => [
              at,
              by,
              kind,
              what,
              // It begins with it else.
              run !== undefined && what.startsWith(run) ? undefined : run,
              detail,
            ]),
            'nothing was done',
          ),
          ...(last ? [`more: --after ${placeText(last)}`] : []),
        ])
      })
    })
}

function auditArgument({ by, since, until, after, kind, limit }: AuditCommand): AuditOptions {
  return {
    limit: wholeNumber('--limit', limit),
    ...(by === undefined ? {} : { by }),
    ...(since === undefined ? {} : { since: sinceArgument(since) }),
    ...(until === undefined ? {} : { until: sinceArgument(until, '--until') }),
    ...(after === undefined ? {} : { after: placeArgument(after) }),
    ...(kind === undefined ? {} : { kind: kind.split(',') }),
  }
}

function placeArgument(text: string): AuditPlace {
  const place = parsePlace(text)
  if (place) return place
  throw new InvalidError(`--after must be what the page before printed: TIME/SHARD/SEQUENCE, got ${text}`)
}
