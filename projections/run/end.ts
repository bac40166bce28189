/** How a run and its assets end. */
import type { DraftOf, Fact, FactDraft } from '../../streams/facts.ts'
import type { AssetName, RunId } from '../../streams/ids.ts'
import { forOutsiders } from '../../streams/outside.ts'
import type { ErrorInfo, StoredValue } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import type { AssetInRun, RunState } from '../state.ts'
import { requesterOf } from '../tasks.ts'

interface RunTimer {
  readonly fact: DraftOf<'run.late' | 'run.timer_fired'>
  readonly dueMs: number
}

/** Characters of JSON. */
const RESULT_MAX = 8192

/** The one timer that an open run has now, and when it fires. */
export function runTimerOf({ id, late, timeoutMs, deadlineMs }: Readonly<RunState>): RunTimer | undefined {
  if (late && !late.passed)
    return { fact: { name: 'run.late', ids: { run: id }, data: { afterMs: late.afterMs } }, dueMs: late.dueMs }
  if (timeoutMs === undefined || deadlineMs === undefined) return undefined
  return { fact: { name: 'run.timer_fired', ids: { run: id }, data: { timeoutMs } }, dueMs: deadlineMs }
}

export function isEnded(asset: AssetInRun): boolean {
  return ['materialized', 'reused', 'given', 'failed', 'skipped', 'cancelled'].includes(asset.status)
}

export function timeoutMessage(run: RunState): string {
  return `the run took longer than its timeout of ${run.timeoutMs} ms`
}

export function failEffect(run: RunState, asset: string, error: ErrorInfo, attempts: number): Effect {
  const data = { ...endIn(run, asset), error: forOutsiders(error), attempts }
  return { do: 'fact', fact: { name: 'asset.failed', ids: idsIn(run, asset), data } }
}

export function cancelEffect(run: RunState, asset: string, reason: string): Effect {
  const data = { ...endIn(run, asset), reason }
  return { do: 'fact', fact: { name: 'asset.cancelled', ids: idsIn(run, asset), data } }
}

export function finishIfDone(run: RunState, fact: Fact): Effect[] {
  // The quick answer first: a run may have thousands of assets.
  const target = run.assets[run.target]
  if (target && !isEnded(target)) return []
  const assets = Object.values(run.assets)
  if (!run.cancelRequested && !run.timedOut && assets.length === 0) return []
  return assets.every(isEnded) ? finish(run, fact) : []
}

export function finish(run: RunState, fact: Fact, error?: ErrorInfo): Effect[] {
  if (run.finishing) return []
  run.finishing = true
  const target = run.assets[run.target]
  const assets = Object.values(run.assets)
  const failed = Object.entries(run.assets).find(([, asset]) => asset.status === 'failed')
  const tooLong = run.timedOut ? { code: 'timeout', message: timeoutMessage(run) } : undefined
  const cause = error ?? tooLong ?? failed?.[1].error
  const succeeded = target?.value !== undefined
  const cancelled = run.cancelRequested || (!failed && assets.some((asset) => asset.status === 'cancelled'))
  const skipped = run.skippedFor === undefined ? undefined : skippedError(run, run.skippedFor)
  const isCancelled = skipped !== undefined || (cancelled && !error && !tooLong)
  const status = succeeded ? 'succeeded' : isCancelled ? 'cancelled' : 'failed'
  const data: Extract<FactDraft, { name: 'run.finished' }>['data'] = {
    run: run.id,
    pipeline: run.pipeline,
    target: run.target,
    ...requesterOf(run),
    status,
    ...(target?.value ? { value: target.value } : {}),
    ...resultIn(run, fact),
    ...(status === 'failed' && failed && !tooLong ? { asset: failed[0] } : {}),
    ...(status === 'failed' && cause ? { error: forOutsiders(cause) } : {}),
    ...(skipped ? { error: skipped } : {}),
    durationMs: Math.max(0, fact.timeMs - run.requestedMs),
  }
  const timer = runTimerOf(run)
  return [
    { do: 'fact', fact: { name: 'run.finished', ids: { run: run.id }, data }, ...(timer ? { stops: timer.fact } : {}) },
  ]
}

function skippedError({ concurrency }: RunState, other: string): ErrorInfo {
  const key = JSON.stringify(concurrency?.key ?? '')
  return { code: 'run_skipped', message: `run ${other} of concurrency key ${key} is active, and onConflict is skip` }
}

export function idsIn(run: RunState, asset: string): { pipeline: string; run: RunId; asset: AssetName } {
  return { pipeline: run.pipeline, run: run.id, asset: asset as AssetName }
}

export function endIn(
  run: RunState,
  asset: string,
): { run: string; asset: string; pipeline: string } & ReturnType<typeof requesterOf> {
  return { run: run.id, asset, pipeline: run.pipeline, ...requesterOf(run) }
}

/**
 * The target's value, where the fact at hand brought it and it is small: outsiders then need not
 * ask for it.
 */
function resultIn(run: RunState, fact: Fact): { result?: StoredValue } {
  if (fact.name !== 'asset.materialized' || fact.ids.asset !== run.target) return {}
  const { value } = fact.data
  return JSON.stringify(value).length <= RESULT_MAX ? { result: value } : {}
}
