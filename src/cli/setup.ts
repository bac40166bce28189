/** `flowstone setup`: makes a namespace before anything runs in it, or changes it. */
import { counted } from '../../streams/amounts.ts'
import { parseDuration } from '../options/duration.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { wholeNumber } from './parts.ts'

export interface SetupCommand extends GlobalOptions {
  readonly shards?: string
  readonly replicas?: string
  readonly feedMaxAge?: string
  readonly logsMaxAge?: string
  readonly logsMaxBytes?: string
}

export async function setup(options: SetupCommand): Promise<void> {
  const { shards, replicas, feedMaxAge, logsMaxAge, logsMaxBytes } = options
  const wanted = {
    ...(shards === undefined ? {} : { shards: wholeNumber('--shards', shards) }),
    ...(replicas === undefined ? {} : { replicas: wholeNumber('--replicas', replicas) }),
    ...(feedMaxAge === undefined ? {} : { feedMaxAgeMs: parseDuration('--feed-max-age', feedMaxAge) }),
    ...(logsMaxAge === undefined ? {} : { logsMaxAgeMs: parseDuration('--logs-max-age', logsMaxAge) }),
    ...(logsMaxBytes === undefined ? {} : { logsMaxBytes: wholeNumber('--logs-max-bytes', logsMaxBytes) }),
  }
  await withFlow(options, async (flow, output) => {
    const made = await flow.setup(wanted)
    output.result(made, () => [
      `namespace ${made.namespace}: ${counted(made.shards, 'shard')}, ${counted(made.replicas, 'copy', 'copies')} of each stream`,
    ])
  })
}
