/** What the shell shows beside every page: how much is open, and who is there. */
import * as reads from '../api/reads.ts'
import type { Home, Workers } from '../api/types.ts'
import { type Reading, useRead } from './read.ts'
import { seesAll } from './session.ts'

const TOPICS = { runs: true, gates: true } as const
/** Counts of the side bar may be a little old. */
const REST_MS = 2000
const WORKERS_EVERY_MS = 15_000

export function useOverview(): Reading<Home> {
  return useRead(reads.home(), { on: TOPICS, restMs: REST_MS, everyMs: 60_000 })
}

export function useWorkers(): Reading<Workers> {
  return useRead(seesAll.value ? reads.workers() : undefined, { everyMs: WORKERS_EVERY_MS })
}
