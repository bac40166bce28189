/**
 * Lines that the code of pruned runs logged. What is left of them, because the engine died or the
 * server did not answer, leaves by its age.
 */
import { jetstreamManager } from '../../../../streams/jetstream.ts'
import type { SealerOptions } from '../options.ts'

const AT_ONCE = 20

/** `runs`: with the times of their ends. */
export async function purgeLogs(
  { connection, names, clock }: Pick<SealerOptions, 'connection' | 'names' | 'clock'>,
  runs: readonly { readonly id: string; readonly endedMs: number }[],
): Promise<void> {
  try {
    const jsm = await jetstreamManager(connection.nc)
    const { config } = await jsm.streams.info(names.logs)
    const keptFromMs = config.max_age === 0 ? Number.NEGATIVE_INFINITY : clock.now() - config.max_age / 1e6
    // Of older ones there are no lines any more.
    const some = runs.filter(({ endedMs }) => endedMs >= keptFromMs)
    for (let i = 0; i < some.length; i += AT_ONCE)
      await Promise.all(
        some.slice(i, i + AT_ONCE).map(({ id }) => jsm.streams.purge(names.logs, { filter: names.logsOf(id) })),
      )
  } catch {
    // They leave by their age.
  }
}
