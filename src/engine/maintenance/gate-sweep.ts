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
import { HOUR_MS, parseWaiting, stateKey, waitingHour } from '../../../projections/state.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
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
        if (mark && mark.deadlineMs < overMs && (await this.#repair(mark)))
          repaired.push(`${mark.run}.${mark.asset}.${mark.gate}`)
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

  async #repair({ run, asset, gate, deadlineMs }: NonNullable<ReturnType<typeof parseWaiting>>): Promise<boolean> {
    const { store, log, names, shard } = this.#context
    const key = stateKey.gate(run, asset, gate)
    if (!store.has(key)) await store.load([key])
    const doc = store.get(key)
    if (!doc) return false
    if (doc.status !== 'waiting' || doc.deadlineMs !== deadlineMs) {
      // Listed for a while after it was deleted; or left by an engine that died before it came to
      // that.
      store.delete(stateKey.waiting(deadlineMs, doc))
      return false
    }
    const ids = { run: parseRunId(run).id, asset: assetName(asset), gate }
    await log.appendOnce(unlessEnded(names, shard, gateTimer(ids, doc.deadlines), deadlineMs))
    return true
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
