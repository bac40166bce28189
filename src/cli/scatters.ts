/** Commands about scatters. */
import type { Command } from 'commander'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { fields } from './output.ts'
import { scatterTable } from './runs.ts'

export function scatterCommands(root: Command): void {
  const scatter = root.command('scatter').description('look into scatters, and act on them')
  connected(scatter.command('ls <run>'))
    .description('the scatters of a run')
    .action((run: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const scatters = await flow.scatter.list(run)
        output.result(scatters, () => scatterTable(scatters))
      }),
    )
  connected(scatter.command('show <scatter>'))
    .description('counts, rate, and why what waits is waiting; its id is <run>.<asset>')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const status = await flow.scatter.status(id)
        output.result(status, () => fields({ ...status }))
      }),
    )
  connected(scatter.command('cancel <scatter>'))
    .description('end it early; what is done stays')
    .option('--reason <text>')
    .action((id: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        await flow.scatter.cancel(id, options.reason)
        output.result({ scatter: id, cancelled: true }, () => [`scatter ${id} is being cancelled`])
      }),
    )
  connected(scatter.command('pause <scatter>'))
    .description('begin nothing more of it until it is resumed')
    .option('--reason <text>')
    .action((id: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        await flow.scatter.pause(id, options.reason)
        output.result({ scatter: id, paused: true }, () => [`scatter ${id} is paused`])
      }),
    )
  connected(scatter.command('resume <scatter>'))
    .description('go on with it')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        await flow.scatter.resume(id)
        output.result({ scatter: id, paused: false }, () => [`scatter ${id} goes on`])
      }),
    )
  connected(scatter.command('redrive <scatter>'))
    .description('run again what failed of it, as a new run')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const run = await flow.scatter.redrive(id)
        output.result({ run: run.id, isNew: run.isNew }, () => [run.id])
      }),
    )
}
