/** What became of the occurrences of schedules, after things were killed. */
import { expect } from 'vitest'
import type { Pipeline, RunView } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import type { Rig } from './rig.ts'

/** Why what was due at the end, or waited then, did not start. */
const AT_END: ReadonlySet<string> = new Set(['changed', 'removed'])

/** Registers pipelines that have no schedules or sensors any more, and waits until all is quiet. */
export async function stopAll({ flow }: Rig, ...without: readonly Pipeline[]): Promise<RunView[]> {
  for (const pipeline of without) await flow.register(pipeline)
  await until('all have stopped', async () => (await flow.schedules.list()).length === 0)
  await until('no run is open', async () => {
    const [left, sensors] = [await flow.schedules.list({ removed: true }), await flow.sensors.list({ removed: true })]
    const idle = left.every((one) => one.open.length === 0) && sensors.every((one) => one.run === undefined)
    return idle && (await flow.runs({ open: true })).length === 0
  })
  const runs = await flow.runs({ limit: 1000 })
  expect(runs.every(({ status }) => status === 'succeeded')).toBe(true)
  return runs
}

/**
 * Each second between the first occurrence and the last one became one thing, and who was fired has
 * one run. `all`: none was left out, but for those of the end.
 */
export async function expectAccounted(
  { flow }: Rig,
  schedule: string,
  runs: readonly RunView[],
  { all }: { all: boolean },
): Promise<void> {
  const became = await flow.schedules.occurrences(schedule, { limit: 1000 })
  const seconds = became.flatMap(({ at, count = 1 }) =>
    Array.from({ length: count }, (_, i) => at.getTime() / 1000 + i),
  )
  const sorted = seconds.toSorted((a, b) => a - b)
  expect(sorted).toEqual(sorted.map((_, i) => (sorted[0] ?? 0) + i))
  const fired = became.flatMap(({ run }) => run ?? [])
  const started = runs.flatMap((run) => (`${run.pipeline}/${run.schedule?.name}` === schedule ? [run.id] : []))
  expect(started.toSorted()).toEqual(fired.toSorted())
  if (all) expect(became.filter(({ what, why }) => what !== 'fired' && !AT_END.has(why ?? ''))).toEqual([])
}

/** The sensor's evaluations each asked for what is named after the next number. */
export function numbersOf(runs: readonly RunView[], sensor: string, prefix: string): number[] {
  const partitions = runs.flatMap((run) => (run.sensor === sensor && run.partition ? [run.partition] : []))
  const numbers = partitions.flatMap((one) => (one.startsWith(prefix) ? [Number(one.slice(prefix.length))] : []))
  return numbers.toSorted((a, b) => a - b)
}
