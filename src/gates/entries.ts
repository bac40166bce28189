/** Gates as messages on the log, and which of them are there. */

import type { GateIds } from '../../projections/effects.ts'
import { gateTimer } from '../../projections/gate/gate.ts'
import { type DraftOf, factPath } from '../../streams/facts.ts'
import type { GateResolved } from '../../streams/gate-schemas.ts'
import { assetName, parseRunId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { factEntry, stoppingTimer, timerEntry } from '../log/entries.ts'
import type { Entry } from '../log/nats.ts'

/** The one end of a gate. The server takes the first; with it goes the timer. */
export function resolveEntry(
  names: Names,
  shard: number,
  { run, asset, gate }: GateIds,
  end: Omit<GateResolved, 'run' | 'asset' | 'gate'>,
): Entry {
  const ids = { run, asset, gate }
  const entry = factEntry(names, shard, { name: 'gate.resolved', ids, data: { ...ids, ...end } })
  return stoppingTimer(names, shard, entry, gateTimer(ids, 0))
}

/**
 * Another deadline and its timer, to be appended together. projections/gate/gate.ts explains the
 * conditions.
 */
export function extendEntries(names: Names, shard: number, fact: DraftOf<'gate.extended'>): Entry[] {
  const { n, ...ids } = fact.ids
  return [factEntry(names, shard, fact), unlessEnded(names, shard, gateTimer(ids, Number(n)), fact.data.deadlineMs)]
}

/**
 * The timer of a gate in place of the one there may be: not if it has ended, because nobody would
 * take it away.
 */
export function unlessEnded(names: Names, shard: number, timer: DraftOf<'gate.timer_fired'>, dueMs: number): Entry {
  const subject = names.fact(shard, factPath('gate.resolved', timer.ids))
  return { ...timerEntry(names, shard, timer, dueMs), expect: { seq: 0, subject } }
}

/** Gates of a run, or of one asset of it, that have not ended. */
export async function openGates(
  connection: Connection,
  names: Names,
  shard: number,
  { run, asset }: { readonly run: string; readonly asset?: string },
): Promise<GateIds[]> {
  const prefix = names.fact(shard, `gate.${run}.`)
  const jsm = await jetstreamManager(connection.nc)
  const filter = `${prefix}${asset === undefined ? '>' : `${asset}.>`}`
  const info = await connection.read(() => jsm.streams.info(names.log(shard), { subjects_filter: filter }))
  const open = new Map<string, GateIds>()
  const ended = new Set<string>()
  for (const subject of Object.keys(info.state.subjects ?? {})) {
    const [of = '', gate = '', event] = subject.slice(prefix.length).split('.')
    if (event === 'created' || event === 'child_requested')
      open.set(`${of}.${gate}`, { run: parseRunId(run).id, asset: assetName(of), gate })
    else if (event === 'resolved') ended.add(`${of}.${gate}`)
  }
  for (const key of ended) open.delete(key)
  return [...open.values()]
}
