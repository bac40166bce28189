/** `flow.triggers`: what outsiders asked for and could not get. Read from the log. */

import { factPath } from '../../streams/facts.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import type { RunDeps } from './run-view.ts'

export interface RefusedTrigger {
  readonly pipeline: string | undefined
  readonly asset: string
  readonly reason: string
  /** The Nats-Msg-Id it came with. */
  readonly msgId: string | undefined
  readonly at: Date
}

const READ_AHEAD = 64

export class Triggers {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /**
   * Triggers that were refused, newest first, at most `limit` (default 100). Meant for people, not
   * for loops.
   */
  async refused(options: { readonly limit?: number } = {}): Promise<RefusedTrigger[]> {
    await this.#deps.found()
    const { connection, names } = this.#deps
    const stream = names.log(0)
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.fact(0, factPath('trigger.refused', { trigger: '*' }))
    const info = await connection.read(() => jsm.streams.info(stream, { subjects_filter: filter }))
    const seqOf = (subject: string): number => Number.parseInt(subject.split('.').at(-2) ?? '', 10)
    const subjects = Object.keys(info.state.subjects ?? {}).toSorted((a, b) => seqOf(b) - seqOf(a))
    const found: RefusedTrigger[] = []
    for (let i = 0; i < Math.min(subjects.length, options.limit ?? 100); i += READ_AHEAD) {
      const some = subjects.slice(i, Math.min(i + READ_AHEAD, options.limit ?? 100))
      const read = async (subject: string): Promise<RefusedTrigger[]> => {
        const message = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
        const fact = message && factOf(names, 0, message)
        if (fact?.name !== 'trigger.refused') return []
        const { pipeline, asset, reason, msgId } = fact.data
        return [{ pipeline, asset, reason, msgId, at: new Date(fact.timeMs) }]
      }
      found.push(...(await Promise.all(some.map(read))).flat())
    }
    return found
  }
}
