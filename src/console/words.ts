/** States as glyphs and words. Pure. */
import type { AssetInRun, Run } from './api/types.ts'

/** Each has a glyph and a colour. */
export type UiState = 'done' | 'run' | 'wait' | 'retry' | 'gate' | 'fail' | 'off' | 'late'

export const STATE_WORDS: Readonly<Record<UiState, string>> = {
  done: 'succeeded',
  run: 'running',
  wait: 'waiting',
  retry: 'retrying',
  gate: 'at a gate',
  fail: 'failed',
  off: 'cancelled',
  late: 'late',
}

const OF_ASSET: Readonly<Record<AssetInRun['status'], UiState>> = {
  waiting: 'wait',
  queued: 'wait',
  running: 'run',
  suspended: 'gate',
  scattering: 'run',
  materialized: 'done',
  reused: 'done',
  given: 'done',
  failed: 'fail',
  skipped: 'off',
  cancelled: 'off',
}

export function assetState({ status, attempt }: Pick<AssetInRun, 'status' | 'attempt'>): UiState {
  return status === 'queued' && attempt > 1 ? 'retry' : OF_ASSET[status]
}

/** Of an open run: what the most advanced of its assets does. */
export function runState({ status, assets }: Pick<Run, 'status' | 'assets'>): UiState {
  if (status === 'succeeded') return 'done'
  if (status === 'failed') return 'fail'
  if (status === 'cancelled') return 'off'
  const states = Object.values(assets).map(assetState)
  const first = (['run', 'gate', 'retry'] as const).find((state) => states.includes(state))
  return first ?? (status === 'running' ? 'run' : 'wait')
}
