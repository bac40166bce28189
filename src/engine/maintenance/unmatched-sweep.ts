/**
 * Cleans up after tasks that waited for other code (src/worker/pull/unmatched.ts). It deletes the
 * tasks of runs and assets that have ended, and the consumers that are no longer needed.
 */

import { isEnded } from '../../../projections/run/end.ts'
import { stateKey } from '../../../projections/state.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { DispatchContext } from '../shard/dispatch.ts'

export class UnmatchedSweep {
  readonly #context: Pick<DispatchContext, 'connection' | 'names' | 'shard' | 'store'>
  /** Consumers that had nothing to do at the last look. */
  #idle = new Set<string>()

  constructor(context: Pick<DispatchContext, 'connection' | 'names' | 'shard' | 'store'>) {
    this.#context = context
  }

  async look(): Promise<void> {
    const { connection, names, shard } = this.#context
    const stream = names.work(shard)
    const jsm = await jetstreamManager(connection.nc)
    const info = await jsm.streams.info(stream, { subjects_filter: names.allUnmatched(shard) })
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const unmatched = names.parseUnmatched(subject)
      if (unmatched && (await this.#isOver(unmatched))) await jsm.streams.purge(stream, { filter: subject })
    }
    const idle = new Set<string>()
    for await (const { name, num_pending, num_ack_pending } of jsm.consumers.list(stream)) {
      if (!names.isUnmatchedConsumer(name) || num_pending > 0 || num_ack_pending > 0) continue
      // Twice in a row, so that none is taken away that has just been made.
      if (this.#idle.has(name)) await jsm.consumers.delete(stream, name)
      else idle.add(name)
    }
    this.#idle = idle
  }

  async #isOver({ run, asset }: { readonly run: string; readonly asset: string }): Promise<boolean> {
    const { store } = this.#context
    const key = stateKey.run(run)
    if (!store.has(key)) await store.load([key])
    const doc = store.get(key)
    const found = doc?.assets[asset]
    return doc !== undefined && (doc.finishedMs !== undefined || (found !== undefined && isEnded(found)))
  }
}
