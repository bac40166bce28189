/** `--at`: commands that read can show the past. */
import type { Command } from 'commander'
import type { FlowAt } from '../client/at.ts'
import { type GlobalOptions, open } from './context.ts'
import { connected } from './options.ts'
import { type Output, outputOf } from './output.ts'
import { whenArgument } from './times.ts'

export interface AtOptions extends GlobalOptions {
  readonly at?: string
}

/** What there is to read, now and in the past. */
export type Reading = Pick<
  FlowAt,
  | 'run'
  | 'runs'
  | 'value'
  | 'partitions'
  | 'history'
  | 'why'
  | 'audit'
  | 'scatter'
  | 'gates'
  | 'schedules'
  | 'sensors'
  | 'inspect'
>

/** Options of a command that can show the past. */
export function readable(command: Command): Command {
  return connected(command).option(
    '--at <when>',
    'show it as it was: a time, how long ago (2h), a sequence of the log, or SHARD:SEQUENCE',
  )
}

/** As `withFlow`, of what only reads. */
export async function withReading(
  options: AtOptions,
  act: (flow: Reading, output: Output) => Promise<void>,
): Promise<void> {
  const when = options.at === undefined ? undefined : whenArgument('--at', options.at)
  await using flow = await open(options)
  await act(when === undefined ? flow : flow.at(when), outputOf(options.json === true))
}
