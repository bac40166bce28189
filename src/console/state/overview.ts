/** What the shell shows beside every page: how much is open, and who is there. */
import { createContext } from 'preact'
import { useContext } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Home, Workers } from '../api/types.ts'
import { type Reading, useRead } from './read.ts'
import { seesAll } from './session.ts'

const TOPICS = { runs: true, gates: true } as const
const REST_MS = 1000
/** Beside other pages, counts may be a little old. */
const BESIDE_REST_MS = 3000
const EVERY_MS = 15_000
const BESIDE_EVERY_MS = 60_000
const WORKERS_EVERY_MS = 15_000

export const Overview = createContext<Reading<Home> | undefined>(undefined)

/** For the shell, once for all of its parts and pages. */
export function useOverviewRead(isHome: boolean): Reading<Home> {
  const [restMs, everyMs] = isHome ? [REST_MS, EVERY_MS] : [BESIDE_REST_MS, BESIDE_EVERY_MS]
  return useRead(reads.home(), { on: TOPICS, restMs, everyMs })
}

export function useOverview(): Reading<Home> {
  const reading = useContext(Overview)
  if (!reading) throw new Error('there is no shell around this')
  return reading
}

export function useWorkers(): Reading<Workers> {
  return useRead(seesAll.value ? reads.workers() : undefined, { everyMs: WORKERS_EVERY_MS })
}
