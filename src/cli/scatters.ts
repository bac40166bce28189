/** Commands about scatters. */

import type { Command } from 'commander'
import { counted } from '../../streams/amounts.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { cut, printable } from '../../streams/text.ts'
import { describe } from '../../streams/thrown.ts'
import type { Flow } from '../client/flow.ts'
import { type AtOptions, readable, withReading } from './at.ts'
import { type GlobalOptions, open, stopRequest, withFlow } from './context.ts'
import { connected } from './options.ts'
import { type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'
import { barLine, scatterLine } from './progress.ts'
import { scatterTable } from './status.ts'
import { fields, widthOf } from './table.ts'
import { watch } from './watch.ts'

export function scatterCommands(root: Command): void {
  const scatter = root.command('scatter').description('show scatters; pause, cancel or redrive them')
  readable(scatter.command('ls <run>'))
    .description('list the scatters of a run')
    .action((run: string, options: AtOptions) =>
      withReading(options, async (flow, output) => {
        const scatters = await flow.scatter.list(run)
        output.result(scatters, () => scatterTable(scatters))
      }),
    )
  readable(scatter.command('show <scatter>'))
    .description('show counts, rate, estimated end, and why instances wait; SCATTER is RUN.ASSET')
    .option('--watch', 'look again and again until it has ended')
    .action((id: string, options: AtOptions & { watch?: boolean }) =>
      options.watch
        ? watchScatter(id, options)
        : withReading(options, async (flow, output) => {
            const status = await flow.scatter.status(id)
            output.result(status, () => fields({ ...status }))
          }),
    )
  connected(scatter.command('failures <scatter>'))
    .description('list instances of a closed scatter that failed for good; with --json a line for each')
    .option('--limit <n>', 'list at most N', '100')
    .action((id: string, options: GlobalOptions & { limit: string }) =>
      withFlow(options, (flow, output) => showFailures(flow, output, id, wholeNumber('--limit', options.limit))),
    )
  connected(scatter.command('cancel <scatter>'))
    .description('end a scatter early; what is done stays')
    .option('--reason <text>', 'why; stands in the facts')
    .action((id: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        const done = { fields: { cancelled: true }, words: 'is being cancelled' }
        await act(flow, output, id, () => flow.scatter.cancel(id, options.reason), done)
      }),
    )
  connected(scatter.command('pause <scatter>'))
    .description('begin no more instances until it is resumed')
    .option('--reason <text>', 'why; stands in the facts')
    .action((id: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        const done = { fields: { paused: true }, words: 'is paused' }
        await act(flow, output, id, () => flow.scatter.pause(id, options.reason), done)
      }),
    )
  connected(scatter.command('resume <scatter>'))
    .description('continue it')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const done = { fields: { paused: false }, words: 'goes on' }
        await act(flow, output, id, () => flow.scatter.resume(id), done)
      }),
    )
  connected(scatter.command('redrive <scatter>'))
    .description('run again what failed, as a new run')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const run = await flow.scatter.redrive(id)
        output.result({ run: run.id, isNew: run.isNew }, () => [run.id])
      }),
    )
}

async function watchScatter(id: string, options: AtOptions): Promise<void> {
  if (options.at !== undefined) throw new InvalidError('--watch shows what is so now: it takes no --at')
  using stop = stopRequest()
  await using flow = await open(options)
  await watch(flow, outputOf(options.json === true), stop, async () => {
    const status = await flow.scatter.status(id)
    const width = widthOf(process.stdout) ?? 0
    return {
      hasEnded: status.status !== 'open',
      endsByItself: true,
      lines: () => [barLine(status, status, width, Date.now()), '', ...fields({ ...status })],
      changes: [{ key: id, event: 'scatter', fields: { ...status }, line: scatterLine(status) }],
    }
  })
}

async function showFailures(flow: Flow, output: Output, id: string, limit: number): Promise<void> {
  let count = 0
  for await (const { index, key, error, attempts } of flow.scatter.failures(id)) {
    if (count === limit) {
      output.note(`the first ${limit}; --limit N lists more`)
      return
    }
    count += 1
    const line = `${String(index).padStart(7)}  ${cut(printable(jsonOf(key)), KEY_MAX, '…')}  ${counted(attempts, 'attempt')}  ${printable(describe(error))}`
    output.event('failed', { index, key, attempts, error }, line)
  }
  if (count === 0) output.note(`scatter ${id} has no instance that failed`)
}

const KEY_MAX = 80

/** Does it, and says so; or that there was nothing to do, since the scatter had ended before. */
async function act(
  flow: Flow,
  output: Output,
  id: string,
  doing: () => Promise<void>,
  done: { readonly fields: Readonly<Record<string, boolean>>; readonly words: string },
): Promise<void> {
  const before = await flow.scatter.status(id).catch((error: unknown) => {
    // The state may not have it yet.
    if (error instanceof FlowStoneError && error.code === 'not_found') return undefined
    throw error
  })
  await doing()
  if (before === undefined || before.status === 'open')
    output.result({ scatter: id, ...done.fields }, () => [`scatter ${id} ${done.words}`])
  else
    output.result({ scatter: id, ended: before.status }, () => [
      `scatter ${id} has ended (${before.status}): there was nothing to do`,
    ])
}
