/**
 * Events that were stored lately, by their keys. A second message of a key mostly comes soon, and
 * need not be put on the log: the engine would find that out too, at the cost of an append.
 *
 * They are known for a short time only. A key starts another run once its run is pruned, which is
 * three minutes after its end at the soonest.
 */
import { createHash } from 'node:crypto'
import type { TakenEvent } from '../../../streams/event-schemas.ts'

const RECENT_MAX = 20_000
const RECENT_MS = 60_000

export class RecentEvents {
  /** What was stored under a key: a hash of it, and until when it counts. */
  readonly #stored = new Map<string, { readonly hash: string; readonly untilMs: number }>()

  /** Whether the same event was stored lately, or is in `seen`. A new one is put there. */
  isRepeated({ seq: _, msgId: _id, trace: _trace, ...event }: TakenEvent, seen: Map<string, string>): boolean {
    if (event.key === undefined || event.group !== undefined || event.refused !== undefined) return false
    const hash = createHash('sha256').update(JSON.stringify(event)).digest('base64')
    const stored = this.#stored.get(event.key)
    const before = stored && performance.now() < stored.untilMs ? stored.hash : seen.get(event.key)
    if (before === undefined) seen.set(event.key, hash)
    return before === hash
  }

  /** These are stored now. */
  remember(seen: ReadonlyMap<string, string>): void {
    const untilMs = performance.now() + RECENT_MS
    for (const [key, hash] of seen) {
      // The newest is last.
      this.#stored.delete(key)
      this.#stored.set(key, { hash, untilMs })
    }
    for (const key of this.#stored.keys()) {
      if (this.#stored.size <= RECENT_MAX) break
      this.#stored.delete(key)
    }
  }
}
