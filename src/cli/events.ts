/** Commands about messages that start runs. */

import type { Command } from 'commander'
import { counted } from '../../streams/amounts.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { cut } from '../../streams/text.ts'
import type { EventTest } from '../client/events.ts'
import type { Flow } from '../client/flow.ts'
import type { SubscriptionView } from '../client/subscriptions.ts'
import type { Pipeline } from '../define/pipeline.ts'
import type { Subscription } from '../define/subscription.ts'
import { type GlobalOptions, reach, withFlow } from './context.ts'
import { loadPipelines } from './load.ts'
import { fullSubscription, mustHaveSubscription } from './missing.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'

interface TestCommand extends GlobalOptions {
  readonly file?: string
  readonly fromSeq?: string
  readonly count: string
}

export function eventCommands(root: Command): void {
  const event = root.command('event').description('show subscriptions, whose messages start runs')
  connected(event.command('ls'))
    .description('show how far each subscription has read')
    .option('--removed', 'also those that no pipeline has any more')
    .action((options: GlobalOptions & { removed?: boolean }) =>
      withFlow(options, async (flow, output) => {
        const found = await flow.events.list({ removed: options.removed === true })
        output.result(found, () => table(STANDING, found.map(standing), 'there is no subscription'))
      }),
    )
  connected(event.command('refused'))
    .description('list messages that started no run, with the reason, newest first')
    .option('--subscription <name>', 'only those of PIPELINE/NAME, or NAME if only one pipeline has it')
    .option('--limit <n>', 'list at most N', '50')
    .action((options: GlobalOptions & { limit: string; subscription?: string }) =>
      withFlow(options, async (flow, output) => {
        const subscription =
          options.subscription === undefined ? undefined : await fullSubscription(flow, options.subscription)
        const limit = wholeNumber('--limit', options.limit)
        const refused = await flow.events.refused({ limit, ...(subscription === undefined ? {} : { subscription }) })
        if (refused.length === 0 && subscription !== undefined) await mustHaveSubscription(flow, subscription)
        output.result(refused, () =>
          table(
            ['subscription', 'stream', 'seq', 'at', 'reason'],
            refused.map((one) => [`${one.pipeline}/${one.subscription}`, one.stream, one.seq, one.at, one.reason]),
            'no message was refused',
          ),
        )
      }),
    )
  connected(event.command('retry <seq>'))
    .description('ask a worker to take a refused message after all')
    .option('--subscription <name>', 'PIPELINE/NAME, where several refused a message of that number')
    .action((seq: string, options: GlobalOptions & { subscription?: string }) =>
      withFlow(options, async (flow, output) => {
        const number = wholeNumber('SEQ', seq)
        const named = options.subscription
        const subscription = named === undefined ? await refusedBy(flow, number) : await fullSubscription(flow, named)
        const run = await flow.events.retry(subscription, number)
        output.result({ subscription, seq: number, run }, () => [
          run === undefined ? 'taken: it waits for other messages' : `run ${run}`,
        ])
      }),
    )
  connected(event.command('test <subscription>'))
    .description('show what messages would do; starts nothing')
    .option('--file <file>', 'the file that declares it; default: that of the flowstone dev of this folder')
    .option('--from-seq <n>', 'the first message; default: the first one that was not taken yet')
    .option('--count <n>', 'how many messages, up to 1,000', '10')
    .action((name: string, options: TestCommand) => testEvents(name, options))
}

const STANDING = ['subscription', 'state', 'stream', 'taken to', 'last', 'waiting', 'open', 'groups', 'next', 'refused']

function standing(one: SubscriptionView): unknown[] {
  const { count, messages, next } = one.groups
  const open = one.state === 'removed' ? one.open : `${one.open} of ${one.maxOpen}`
  const groups =
    count === 0 ? undefined : `${count}${messages === undefined ? '' : ` (${counted(messages, 'message')})`}`
  return [one.name, one.state, one.stream, one.takenTo, one.last, one.waiting, open, groups, next, one.refused]
}

async function testEvents(name: string, options: TestCommand): Promise<void> {
  const file = options.file ?? reach(options).dev?.file
  if (file === undefined)
    throw new InvalidError('event test: name the file that declares the subscription: --file FILE')
  const { pipeline, subscription } = findSubscription(await loadPipelines(file), name)
  await withFlow(options, async (flow, output) => {
    const tests = await flow.events.test(subscription, {
      pipeline,
      count: wholeNumber('--count', options.count),
      ...(options.fromSeq === undefined ? {} : { fromSeq: wholeNumber('--from-seq', options.fromSeq) }),
    })
    output.result(tests, () =>
      table(
        ['seq', 'subject', 'what', 'key', 'input or reason'],
        tests.map((test) => [test.seq, test.subject, WORDS[test.outcome], test.key, test.reason ?? shown(test)]),
        'no message there',
      ),
    )
  })
}

const WORDS: Readonly<Record<EventTest['outcome'], string>> = {
  run: 'starts a run',
  exists: 'its run is there',
  waits: 'waits for others',
  left: 'left out',
  refused: 'refused',
}
const SHOWN_MAX = 80

function shown({ input }: EventTest): string {
  const text = input === undefined ? '' : jsonOf(input)
  return cut(text, SHOWN_MAX, '…')
}

/** The subscription that has refused a message of this number. */
async function refusedBy(flow: Flow, seq: number): Promise<string> {
  const refused = await flow.events.refused({ limit: Number.MAX_SAFE_INTEGER })
  const names = refused.filter((one) => one.seq === seq).map((one) => `${one.pipeline}/${one.subscription}`)
  const [first, ...more] = [...new Set(names)]
  if (first === undefined) throw new FlowStoneError('not_found', `no message ${seq} was refused, or it was taken since`)
  if (more.length === 0) return first
  throw new InvalidError(`several refused a message ${seq} (${[first, ...more].join(', ')}); name one: --subscription`)
}

function findSubscription(
  pipelines: readonly Pipeline[],
  named: string,
): { readonly pipeline: Pipeline; readonly subscription: Subscription } {
  const [of, name] = named.includes('/') ? named.split(/\/(.*)/s, 2) : [undefined, named]
  const all = pipelines.flatMap((pipeline) =>
    pipeline.subscriptions.map((subscription) => ({ pipeline, subscription })),
  )
  const found = all.filter(
    ({ pipeline, subscription }) => subscription.name === name && (of === undefined || pipeline.name === of),
  )
  const [first] = found
  if (!first) {
    const names = all.map(({ subscription }) => subscription.name)
    throw new InvalidError(`there is no subscription ${named}${nearest(name ?? '', names)}`)
  }
  if (found.length === 1) return first
  const names = found.map(({ pipeline }) => `${pipeline.name}/${name}`)
  throw new InvalidError(`subscription ${named} is in several pipelines; name one: ${names.join(', ')}`)
}
