/** `flowstone diff`: what changed between two times. */
import type { Command } from 'commander'
import type { FlowDiff } from '../client/diff.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'
import { whenArgument } from './times.ts'

export function diffCommand(root: Command): void {
  connected(root.command('diff <from> [to]'))
    .description('list what changed between two times; TO: now')
    .option('--limit <n>', 'list at most N of each kind', '1000')
    .action((from: string, to: string | undefined, options: GlobalOptions & { limit: string }) => {
      const [first, second] = [whenArgument('FROM', from), to === undefined ? undefined : whenArgument('TO', to)]
      const limit = wholeNumber('--limit', options.limit)
      return withFlow(options, async (flow, output) => {
        const changed = await flow.diff(first, second, { limit })
        output.result(changed, () => diffLines(changed))
      })
    })
}

function diffLines({ from, to, runs, assets, gates, scatters, schedules, more }: FlowDiff): string[] {
  const rows = [
    ...runs.map(({ id, target, before, after }) => ['run', id, before, after, target]),
    ...assets.map(({ asset, partition, before, after }) => [
      'value',
      partition === '' ? asset : `${asset} of ${partition}`,
      before?.run,
      after?.run,
      after?.at,
    ]),
    ...gates.map(({ id, before, after }) => ['gate', id, before, after, undefined]),
    ...scatters.map(({ id, before, after }) => [
      'scatter',
      id,
      before && `${before.status} ${before.succeeded + before.failed}/${before.total ?? '?'}`,
      after && `${after.status} ${after.succeeded + after.failed}/${after.total ?? '?'}`,
      after && after.failed > 0 ? `${after.failed} failed` : undefined,
    ]),
    ...schedules.map(({ name, before, after }) => [
      'schedule',
      name,
      before && `${before.state}, fired ${before.fired}`,
      after && `${after.state}, fired ${after.fired}`,
      undefined,
    ]),
  ]
  return [
    `from ${from.at.toISOString()} to ${to.at.toISOString()}`,
    ...table(['what', 'name', 'before', 'after', 'about'], rows, 'nothing changed'),
    ...(more.length > 0 ? [`there is more of: ${more.join(', ')} (--limit)`] : []),
  ]
}
