/** The states of all instances, kept up to date: live, or of the moment that is shown. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { ScatterMap, ScatterTiles } from '../api/types.ts'
import { liveState, useLive } from '../state/live.ts'
import { isPast } from '../state/place.ts'
import { type Reading, useRead } from '../state/read.ts'
import { Cells, type MapPart } from './cells.ts'
import { STATE_COUNT } from './states.ts'

export interface LiveMap {
  readonly cells: Cells
  /** By the number of the state; undefined before there is a map. */
  readonly counts: readonly number[] | undefined
  /** Where there is no live map: of the past, or without a connection. */
  readonly reading: Reading<ScatterMap>
}

interface MapEvent extends MapPart {
  readonly counts: readonly number[]
}

const AWAY_MS = 5000
const TILES_MS = 3000

/** `isOn`: false for a scatter that is too large for a map. */
export function useMap(id: string, isOn: boolean): LiveMap {
  const cells = useMemo(() => new Cells(), [id])
  const [counts, setCounts] = useState<readonly number[] | undefined>(undefined)
  useLive(isOn ? { scatter: [id] } : {}, ({ event, data }) => {
    // The events of this topic are these two.
    const part = data as MapEvent
    if (event === 'map') cells.load(part)
    else cells.apply(part)
    setCounts(part.counts)
  })
  const isRead = isOn && (isPast.value || liveState.value === 'away')
  const reading = useRead(isRead ? reads.scatterMap(id) : undefined, isPast.value ? {} : { everyMs: AWAY_MS })
  const { data } = reading
  useEffect(() => {
    if (!data) return
    cells.load(data)
    setCounts(data.counts)
  }, [data])
  return { cells, counts, reading }
}

/** Counts of tiles, of a scatter that is too large for a map. */
export function useTiles(id: string, isOn: boolean, isOpen: boolean): Reading<ScatterTiles> {
  return useRead(isOn ? reads.scatterTiles(id) : undefined, isOpen ? { everyMs: TILES_MS } : {})
}

export function addedUp(tiles: readonly { readonly counts: readonly number[] }[]): number[] {
  const sum = new Array<number>(STATE_COUNT).fill(0)
  for (const { counts } of tiles) for (const [state, n] of counts.entries()) sum[state] = (sum[state] ?? 0) + n
  return sum
}
