/** Commands about rate limits and slots that processes share. */
import type { Command } from 'commander'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { fields, table } from './output.ts'

export function limitCommands(root: Command): void {
  const limit = root.command('limit').description('look at shared rate limits and slots, and empty them')
  connected(limit.command('ls [prefix]'))
    .description('limits in use')
    .action((prefix: string | undefined, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const buckets = await flow.limiter.list(prefix === undefined ? {} : { prefix })
        output.result(buckets, () =>
          table(
            ['limit', 'kind', 'count', 'of', 'waiting'],
            buckets.flatMap(({ bucket, rate, slots }) => [
              ...(rate ? [[bucket, 'rate', rate.count, rate.limit, rate.waiting]] : []),
              ...(slots ? [[bucket, 'slots', slots.count, slots.limit, slots.waiting]] : []),
            ]),
            'no limits in use',
          ),
        )
      }),
    )
  connected(limit.command('show <bucket>'))
    .description('what is taken of it, and what is free')
    .action((bucket: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const status = await flow.limiter.status(bucket)
        output.result(status, () => fields({ ...status }))
      }),
    )
  connected(limit.command('reset <bucket>'))
    .description('forget what was taken: all of it is free at once')
    .action((bucket: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        await flow.limiter.reset(bucket)
        output.result({ bucket, reset: true }, () => [`limit ${bucket} is free`])
      }),
    )
}
