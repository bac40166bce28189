/** Commands about rate limits and slots that processes share. */
import type { Command } from 'commander'
import { nearest } from '../../streams/did-you-mean.ts'
import type { Flow } from '../client/flow.ts'
import type { BucketStatus } from '../limiter/limiter.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { fields, table } from './table.ts'

export function limitCommands(root: Command): void {
  const limit = root.command('limit').description('show shared rate limits and slots; reset them')
  connected(limit.command('ls [prefix]'))
    .description('list limits in use')
    .action((prefix: string | undefined, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const buckets = await flow.limiter.list(prefix === undefined ? {} : { prefix })
        output.result(buckets, () =>
          table(
            ['limit', 'kind', 'count', 'of', 'waiting', 'next turn', 'reserved until'],
            buckets.flatMap(({ bucket, rate, slots }) => [
              ...(rate
                ? [[bucket, 'rate', rate.count, rate.limit, rate.waiting, rate.nextTurn, rate.reservations.at(-1)?.at]]
                : []),
              ...(slots ? [[bucket, 'slots', slots.count, slots.limit, slots.waiting]] : []),
            ]),
            'no limits in use',
          ),
        )
      }),
    )
  connected(limit.command('show <bucket>'))
    .description('show what is taken, who holds slots, and what is free')
    .action((bucket: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const status = await flow.limiter.status(bucket)
        const hint = isInUse(status) ? '' : await othersInUse(flow, bucket)
        output.result(status, () => statusLines(status, hint))
      }),
    )
  connected(limit.command('reset <bucket>'))
    .description('forget what was taken: all of it is free at once')
    .action((bucket: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const before = await flow.limiter.status(bucket)
        const hint = isInUse(before) ? undefined : await othersInUse(flow, bucket)
        await flow.limiter.reset(bucket)
        output.result({ bucket, reset: true }, () => [
          `limit ${bucket} ${hint === undefined ? 'is free' : `was not in use${hint}`}`,
        ])
      }),
    )
}

function isInUse({ rate, slots }: BucketStatus): boolean {
  return rate !== undefined || slots !== undefined
}

/** A limit exists while it is used, so a wrong name is one that is not in use. */
async function othersInUse(flow: Flow, bucket: string): Promise<string> {
  return nearest(
    bucket,
    (await flow.limiter.list()).map((one) => one.bucket),
  )
}

const SHOWN_MAX = 20

function statusLines({ bucket, rate, slots }: BucketStatus, hint: string): string[] {
  const { reservations = [], ...rest } = rate ?? {}
  const { holders = [], queue = [], ...taken } = slots ?? {}
  const more = (all: readonly unknown[]): string[] =>
    all.length > SHOWN_MAX ? [`… and ${all.length - SHOWN_MAX} more`] : []
  const promised = reservations.slice(0, SHOWN_MAX).map(({ at, tokens }) => [at, tokens])
  const held = holders.slice(0, SHOWN_MAX).map((one) => [one.slot, one.by, one.weight, Math.round(one.ageMs / 1000)])
  const waits = queue.slice(0, SHOWN_MAX).map((one) => [one.process, one.waiting, one.by.join(', ')])
  return [
    ...fields({ limit: bucket }),
    ...(rate ? ['', ...fields({ kind: 'rate', ...rest })] : []),
    ...(rate ? ['', ...table(['turn at', 'tokens'], promised, 'no reservations'), ...more(reservations)] : []),
    ...(slots ? ['', ...fields({ kind: 'slots', ...taken })] : []),
    ...(slots ? ['', ...table(['slot', 'for', 'weight', 'seconds'], held, 'nobody holds one'), ...more(holders)] : []),
    ...(queue.length > 0 ? ['', ...table(['process', 'waiting', 'for'], waits, ''), ...more(queue)] : []),
    ...(rate || slots ? [] : ['', `not in use${hint}`]),
  ]
}
