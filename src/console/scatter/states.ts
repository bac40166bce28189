/** The states of a map: their numbers are those of the API. Pure. */
import { INSTANCE_STATES } from '../../../projections/scatter/map.ts'
import type { UiState } from '../words.ts'

export const [WAITING, RUNNING, DONE, FAILED, RETRYING, GATE, CANCELLED, UNCHANGED] = [0, 1, 2, 3, 4, 5, 6, 7] as const
export const STATE_COUNT = UNCHANGED

/** By the number of a state. */
export const UI_STATES: readonly UiState[] = ['wait', 'run', 'done', 'fail', 'retry', 'gate', 'off']
/** Where instances share a pixel, the one with the highest rank shows. */
export const RANKS = Uint8Array.of(3, 4, 1, 7, 6, 5, 2)
/** From the quietest state to the one that must be seen, as bars and strips show them. */
export const SHOWN_ORDER = [DONE, RUNNING, RETRYING, GATE, WAITING, CANCELLED, FAILED] as const

const TITLES: readonly string[] = ['Waiting', 'Running', 'Succeeded', 'Failed', 'Retrying', 'At a gate', 'Cancelled']

export function titleOf(state: number): string {
  return TITLES[state] ?? 'Waiting'
}

export function wordOf(state: number): string {
  return titleOf(state).toLowerCase()
}

const NAMES: readonly string[] = INSTANCE_STATES

/** Of a name of the API, or of an address. */
export function stateNumber(name: string | undefined): number | undefined {
  const at = NAMES.indexOf(name ?? '')
  return at >= 0 && at < STATE_COUNT ? at : undefined
}

export function stateName(state: number): string {
  return INSTANCE_STATES[state] ?? INSTANCE_STATES[WAITING]
}

export function sumOf(counts: readonly number[]): number {
  return counts.reduce((sum, n) => sum + n, 0)
}
