/** `flowstone setup`: makes a namespace before anything runs in it, or changes it. */
import { parseDuration } from '../options/duration.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { wholeNumber } from './parts.ts'

export interface SetupCommand extends GlobalOptions {
  readonly partitions?: string
  readonly replicas?: string
  readonly feedMaxAge?: string
}

export async function setup(options: SetupCommand): Promise<void> {
  const { partitions, replicas, feedMaxAge } = options
  const wanted = {
    ...(partitions === undefined ? {} : { partitions: wholeNumber('--partitions', partitions) }),
    ...(replicas === undefined ? {} : { replicas: wholeNumber('--replicas', replicas) }),
    ...(feedMaxAge === undefined ? {} : { feedMaxAgeMs: parseDuration('--feed-max-age', feedMaxAge) }),
  }
  await withFlow(options, async (flow, output) => {
    const made = await flow.setup(wanted)
    output.result(made, () => [
      `namespace ${made.namespace}: ${made.partitions} log partition(s), ${made.replicas} copies of each stream`,
    ])
  })
}
