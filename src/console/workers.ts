/** What the page of workers says. Pure. */
import type { Said } from './answers.ts'
import type { Engine, Pipeline, Shard, Worker } from './api/types.ts'
import { count, counted, duration } from './format.ts'

/** A worker that is held up for longer answers late. */
export const LATE_MS = 500
/** An engine that has so much to fold does not keep up. */
export const LAG_FACTS = 100

export interface EngineRow {
  readonly id: string
  readonly shards: readonly number[]
  readonly behind: number
  /** Which permission it cannot work without. */
  readonly denied?: string | undefined
}

/** Engines that are active somewhere, and those that answer and stand by. */
export function engineRows(shards: readonly Shard[], engines: readonly Engine[] = []): EngineRow[] {
  const ids = [...new Set([...shards.flatMap(({ engine }) => engine ?? []), ...engines.map(({ id }) => id)])].toSorted()
  return ids.map((id) => {
    const own = shards.filter(({ engine }) => engine === id)
    const behind = own.reduce((sum, one) => sum + one.behind, 0)
    return { id, shards: own.map(({ shard }) => shard), behind, denied: engines.find((one) => one.id === id)?.denied }
  })
}

/** Pipelines of which it has no code of the newest version. */
export function olderCode(
  { state, pipelines }: Worker,
  newest: readonly Pick<Pipeline, 'name' | 'version'>[],
): string[] {
  if (state === 'silent') return []
  return pipelines.flatMap(({ name, versions }) => {
    const version = newest.find((one) => one.name === name)?.version
    return version === undefined || versions.includes(version) ? [] : [name]
  })
}

/** Is everybody there? */
export function workersAnswer(workers: readonly Worker[], shards: readonly Shard[]): Said[] {
  const there = workers.filter(({ state }) => state === 'answers')
  const engines = engineRows(shards).length
  const none = shards.filter(({ engine }) => engine === undefined)
  const people = there.length === 0 ? 'No worker answers' : counted(there.length, 'worker')
  const said: Said[] = [{ text: `${people}, ${counted(engines, 'engine')}. ` }]
  if (none.length === 0)
    return [...said, { text: shards.length === 1 ? 'The shard has an engine.' : 'All shards have an engine.' }]
  const which =
    none.length === shards.length
      ? 'No shard has'
      : `${counted(none.length, 'shard')} ${none.length === 1 ? 'has' : 'have'} no`
  return [
    ...said,
    { text: none.length === shards.length ? `${which} an engine: nothing goes on.` : `${which} engine.`, tone: 'fail' },
  ]
}

/** Is everybody well? Nothing where all are. */
export function workersTrouble(
  workers: readonly Worker[],
  shards: readonly Shard[],
  newest: readonly Pick<Pipeline, 'name' | 'version'>[],
  now: number,
): Said[] {
  const problem = shards.find((shard) => shard.problem)
  const silent = workers.filter(({ state }) => state === 'silent')
  const late = workers.filter(({ loopDelayMs = 0 }) => loopDelayMs >= LATE_MS)
  const draining = workers.filter(({ state }) => state === 'draining').length
  const older = workers.filter((worker) => olderCode(worker, newest).length > 0)
  const lagging = shards.filter(({ behind }) => behind >= LAG_FACTS)
  const said: Said[] = []
  if (problem?.problem)
    said.push({ text: `Shard ${problem.shard} does no work: `, tone: 'fail' }, { text: `${problem.problem.message}. ` })
  const [quiet] = silent
  if (quiet && silent.length === 1)
    said.push(
      { text: `${quiet.id} is silent`, tone: 'late' },
      { text: ` since ${duration(now - Date.parse(quiet.seenAt))}. ` },
    )
  else if (quiet) said.push({ text: `${counted(silent.length, 'worker')} are silent. `, tone: 'late' })
  const [slow] = late.toSorted((a, b) => (b.loopDelayMs ?? 0) - (a.loopDelayMs ?? 0))
  if (slow)
    said.push(
      { text: `${slow.id} answers late: `, tone: 'late' },
      { text: `its code blocks the event loop for up to ${duration(slow.loopDelayMs ?? 0)}. ` },
    )
  if (draining > 0)
    said.push({ text: `${counted(draining, 'worker')} ${draining === 1 ? 'ends' : 'end'} when what runs has ended. ` })
  if (older.length > 0)
    said.push({ text: `${counted(older.length, 'worker')} ${older.length === 1 ? 'runs' : 'run'} older code. ` })
  const [behind] = lagging.toSorted((a, b) => b.behind - a.behind)
  if (behind) said.push({ text: `Shard ${behind.shard} is behind by ${count(behind.behind)} facts.` })
  return said
}

/** The start of a hash. */
export function shortVersion(version: string): string {
  return version.slice(0, 8)
}
