/**
 * Refused attempts to answer gates of pruned runs. What is left of them, because the engine died or
 * the server did not answer, leaves by its age.
 */
import { jetstreamManager } from '../../../../streams/jetstream.ts'
import { refusedGates } from '../../../gates/refused.ts'
import type { SealerOptions } from '../options.ts'

export async function purgeRefused(
  { connection, names }: Pick<SealerOptions, 'connection' | 'names'>,
  runs: ReadonlySet<string>,
): Promise<void> {
  try {
    // Few gates have any, and mostly of other runs.
    const gates = (await refusedGates({ connection, names })).filter((gate) =>
      runs.has(gate.slice(0, gate.indexOf('.'))),
    )
    if (gates.length === 0) return
    const jsm = await jetstreamManager(connection.nc)
    const stream = names.kvStream(names.controlBucket)
    for (const gate of gates)
      await jsm.streams.purge(stream, { filter: names.kvSubject(names.controlBucket, `refused.${gate}`) })
  } catch {
    // They leave by their age.
  }
}
