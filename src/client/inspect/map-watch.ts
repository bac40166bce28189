/** The map of a scatter that is looked at again and again: reads only what has changed. */
import { SEGMENT_INSTANCES } from '../../../projections/scatter/bits.ts'
import { instanceStates } from '../../../projections/scatter/map.ts'
import type { BarrierState, Segment } from '../../../projections/scatter/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { parseBarrierId } from '../../../streams/ids.ts'
import type { RunDeps } from '../run-view.ts'
import { inTurns } from './in-turns.ts'
import { barrierOf } from './scatter-map.ts'

/** A scatter and the states of its instances; see `flow.inspect.mapWatch`. */
export interface MapLook {
  readonly status: BarrierState['status']
  readonly total: number | undefined
  readonly stored: number
  readonly states: Uint8Array
}

const WATCHED_MAX = 10_000_000

/** A scatter that is looked at again and again, from `flow.inspect.mapWatch`. */
export class MapWatch {
  readonly id: string
  readonly #deps: RunDeps
  readonly #segments = new Map<number, Segment>()
  #read = 0

  constructor(deps: RunDeps, id: string) {
    parseBarrierId(id)
    this.id = id
    this.#deps = deps
  }

  /**
   * As it is now. `changed`: segments to read again; undefined: all. Throws `not_found`, and
   * InvalidError for more than 10 million instances.
   */
  async look(changed?: ReadonlySet<number>): Promise<MapLook> {
    const { docs, clock } = this.#deps
    const { run, asset } = parseBarrierId(this.id)
    const barrier = await barrierOf(this.#deps, this.id)
    const { stored, status, total } = barrier
    if (stored > WATCHED_MAX)
      throw new InvalidError(`map: more than ${WATCHED_MAX} instances are not watched; ask for tiles now and then`)
    const count = Math.ceil(stored / SEGMENT_INSTANCES)
    const wanted = Array.from({ length: count }, (_, n) => n).filter(
      (n) => !changed || changed.has(n) || n >= this.#read,
    )
    this.#read = count
    await inTurns(wanted, async (n) => {
      const doc = await docs.ofRun(run, stateKey.segment(run, asset, n))
      if (doc instanceof Uint8Array) this.#segments.set(n, doc)
    })
    const states = instanceStates(barrier, (n) => this.#segments.get(n), { from: 0, to: stored }, clock.now())
    return { status, total, stored, states }
  }
}
