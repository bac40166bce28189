/** Commands about what outsiders asked for and did not get. */
import type { Command } from 'commander'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'

export function triggerCommands(root: Command): void {
  const trigger = root.command('trigger').description('show what outsiders asked for and did not get; take it')
  connected(trigger.command('ls'))
    .description('list refused triggers with the reason, newest first')
    .option('--limit <n>', 'list at most N', '50')
    .action((options: GlobalOptions & { limit: string }) =>
      withFlow(options, async (flow, output) => {
        const refused = await flow.triggers.refused({ limit: wholeNumber('--limit', options.limit) })
        output.result(refused, () =>
          table(
            ['trigger', 'at', 'asset', 'reason', 'run'],
            refused.map(({ id, at, pipeline, asset, reason, run }) => [
              id,
              at,
              pipeline === undefined ? asset : `${pipeline}/${asset}`,
              reason,
              run,
            ]),
            'no trigger was refused',
          ),
        )
      }),
    )
  connected(trigger.command('retry <trigger>'))
    .description('take a refused trigger after all, as after its pipeline was registered')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const run = await flow.triggers.retry(id)
        output.result({ trigger: id, run: run.id, isNew: run.isNew }, () => [
          run.isNew ? `run ${run.id}` : `run ${run.id}, which was there`,
        ])
      }),
    )
}
