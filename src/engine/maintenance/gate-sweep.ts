/**
 * The safety net for gate timers. When a deadline has passed and its timer did not fire, the gate
 * gets its timer once more. That timer is overdue, so it fires at once. An extra timer does no
 * harm, because each timer names its deadline.
 *
 * The state bucket marks gates by the hour of their deadline. So one sweep costs as much as there
 * are deadlines in this hour and the last, however many gates there are. Only the first sweep of an
 * engine reads all marks.
 */

import { gateTimer } from '../../../projections/gate/gate.ts'
import {
  type GateRow,
  type GateState,
  HOUR_MS,
  type Key,
  parseWaiting,
  waitingHour,
  waitingUnder,
} from '../../../projections/state.ts'
import { assetName } from '../../../streams/ids.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { unlessEnded } from '../../gates/entries.ts'
import type { DispatchContext } from '../shard/dispatch.ts'

/** A timer that is late by less than this is on its way. */
const LATE_MS = 5000

export class GateSweep {
  readonly #context: DispatchContext
  /** All up to here was looked at. */
  #lookedTo = 0

  constructor(context: DispatchContext) {
    this.#context = context
  }

  /** Returns the gates that got their timer again. */
  async look(): Promise<string[]> {
    const { clock } = this.#context
    const overMs = clock.atLeast() - LATE_MS
    const repaired: string[] = []
    for (const hour of hoursBetween(this.#lookedTo, overMs))
      for (const key of await this.#marks(hour)) {
        const mark = parseWaiting(key)
        if (mark && mark.ms < overMs) repaired.push(...(await this.#repair(key, mark.doc, overMs)))
      }
    this.#lookedTo = overMs
    return repaired
  }

  async #marks(filter: string): Promise<string[]> {
    const { connection, names, shard } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const bucket = names.stateBucket(shard)
    const prefix = names.kvSubject(bucket, '')
    const info = await jsm.streams.info(names.kvStream(bucket), { subjects_filter: `${prefix}${filter}.>` })
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  }

  async #repair(mark: string, key: Key<GateRow | GateState>, overMs: number): Promise<string[]> {
    const { store, log, names, shard } = this.#context
    if (!store.has(key)) await store.load([key])
    const doc = store.get(key)
    if (!doc) return []
    const waiting = waitingUnder(mark, doc)
    // Listed for a while after it was deleted; or left by an engine that died before it came to
    // that.
    if (waiting.length === 0) store.delete(mark)
    const late = waiting.filter(({ deadlineMs = overMs }) => deadlineMs < overMs)
    for (const { run, asset, gate, deadlines, deadlineMs = overMs } of late) {
      const ids = { run, asset: assetName(asset), gate }
      await log.appendOnce(unlessEnded(names, shard, gateTimer(ids, deadlines), deadlineMs))
    }
    return late.map(({ run, asset, gate }) => `${run}.${asset}.${gate}`)
  }
}

/** From nothing: all there are. */
function hoursBetween(fromMs: number, toMs: number): string[] {
  if (fromMs === 0) return ['waiting']
  const hours: string[] = []
  for (let hour = Math.floor(fromMs / HOUR_MS); hour <= Math.floor(toMs / HOUR_MS); hour++)
    hours.push(waitingHour(hour * HOUR_MS))
  return hours
}
