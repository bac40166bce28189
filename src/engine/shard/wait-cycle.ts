/**
 * Runs that would wait for each other by `ctx.run`, and so for ever. A new run waits for nothing
 * yet, so only a wait for a run that was there before can close a circle. The engine looks after
 * its wait is on the log. So of the waits that close one circle together, over any shards, the one
 * that was stored last is found out. Two that are stored at the same moment may both be.
 */
import type { GateIds } from '../../../projections/effects.ts'
import { factPath, parsePath } from '../../../streams/facts.ts'
import { parseRunId, type RunId } from '../../../streams/ids.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Waiter } from '../../../streams/run-schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { runFact } from '../../log/run-fact.ts'

interface Context {
  readonly connection: Connection
  readonly names: Names
}

/** So many runs are looked at. A circle behind more is not found. */
const RUNS_MAX = 1000

/**
 * The circle that a wait for `child` closes, as a text for people; undefined: it closes none. Goes
 * from run to run, to those that wait for it.
 */
export async function waitCycle(context: Context, child: RunId, gate: GateIds): Promise<string | undefined> {
  /** By run: the one that it waits for. */
  const waitsFor = new Map<string, string>([[gate.run, child]])
  const next: string[] = [gate.run]
  for (let i = 0; i < next.length && i < RUNS_MAX; i++) {
    const run = next[i] ?? ''
    for (const waiter of await waitersOf(context, run)) {
      if (waitsFor.has(waiter.run) || !(await isWaiting(context, waiter))) continue
      waitsFor.set(waiter.run, run)
      if (waiter.run === child) return textOf(child, waitsFor)
      next.push(waiter.run)
    }
  }
  return undefined
}

function textOf(child: string, waitsFor: ReadonlyMap<string, string>): string {
  const others: string[] = []
  for (let run = waitsFor.get(child); run !== undefined && run !== child; run = waitsFor.get(run)) others.push(run)
  return `it waits for ${others.map((run) => `run ${run}`).join(', which waits for ')}, which would wait for it: none of them could go on. Give ctx.run another key, or none`
}

/** All that have ever asked for the run; nobody for one that the log does not know. */
async function waitersOf({ connection, names }: Context, run: string): Promise<Waiter[]> {
  const { id, shard } = parseRunId(run)
  const log = names.log(shard)
  const awaited = names.fact(shard, factPath('run.awaited', { run: id, parent: '*', asset: '*', gate: '*' }))
  const jsm = await jetstreamManager(connection.nc)
  const [requested, info] = await Promise.all([
    runFact({ connection, names }, id, 'run.requested'),
    connection.read(() => jsm.streams.info(log, { subjects_filter: awaited })),
  ])
  const parent = requested?.data.parent
  const others = Object.keys(info.state.subjects ?? {}).flatMap((subject): Waiter[] => {
    const { parent: by, asset, gate } = parsePath(names.factPath(subject) ?? '')?.ids ?? {}
    return by === undefined || asset === undefined || gate === undefined ? [] : [{ run: by, asset, gate }]
  })
  return [...(parent ? [parent] : []), ...others]
}

async function isWaiting(context: Context, { run, asset, gate }: Waiter): Promise<boolean> {
  return (await runFact(context, run, 'gate.resolved', { run, asset, gate })) === undefined
}
