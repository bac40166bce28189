/** How a scatter ends: when, and by which facts. */

import type { FactDraft } from '../../streams/facts.ts'
import type { AssetName, RunId } from '../../streams/ids.ts'
import { forOutsiders } from '../../streams/outside.ts'
import type { ScatterStatus } from '../../streams/scatter-schemas.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'
import { describe } from '../../streams/thrown.ts'
import type { Effect } from '../effects.ts'
import { redriveIn } from '../state.ts'
import type { ScatterContext } from './context.ts'
import type { BarrierState } from './state.ts'

export interface End {
  readonly status: ScatterStatus
  readonly error?: ErrorInfo | undefined
}

/**
 * Whether the scatter has ended. A threshold given as a fraction is measured against the total, so
 * it is checked once the total is known. A threshold given as a count is checked from the first
 * failure on.
 */
export function endOf({ run, spec }: ScatterContext, barrier: BarrierState): End | undefined {
  const { failed, succeeded, total, error: cause } = barrier
  const partial = spec.scatter?.failureMode === 'partial'
  if (failed > 0) {
    const why = cause ? describe(cause) : 'unknown error'
    const causes = {
      ...(cause?.cause ? { cause: cause.cause } : {}),
      ...(cause?.errors ? { errors: cause.errors } : {}),
    }
    if (!partial) {
      const message = `an instance failed, and failureMode is all_or_nothing: ${cause?.message ?? why}`
      return { status: 'failed', error: { code: cause?.code ?? 'instance_failed', message, ...causes } }
    }
    const threshold = spec.scatter?.threshold ?? { fraction: 0 }
    // A redrive runs some instances of a scatter; all others have succeeded.
    const whole = redriveIn(run, spec.name)?.total ?? total
    const allowed =
      'count' in threshold ? threshold.count : whole === undefined ? undefined : threshold.fraction * whole
    // A hair of tolerance: 0.02 of 50 is 1, whatever the doubles say.
    if (allowed !== undefined && failed > allowed + 1e-9) {
      const limit = 'count' in threshold ? instances(threshold.count) : `${threshold.fraction} of ${whole}`
      return {
        status: 'failed',
        error: {
          code: 'threshold_passed',
          message: `${instances(failed)} failed, more than failureThreshold (${limit}) allows; the first: ${why}`,
        },
      }
    }
  }
  if (total === undefined) return undefined
  if (total !== barrier.stored) {
    // Two executions of a scatter function that gives other keys each time: to wait for this total
    // would be to wait for ever.
    const message = `${barrier.stored} keys are stored, but the scatter function ended after ${total}; it must give the same keys each time it is called`
    return { status: 'failed', error: { code: 'keys_changed', message } }
  }
  if (succeeded + failed !== total) return undefined
  return { status: failed > 0 ? 'partial_failure' : 'completed' }
}

/**
 * All have ended: scatter.closed, with counts that nothing changes any more. Or it ends early: a
 * fact first that says so, since while that is on its way more instances may end, and the total may
 * become known. All of that counts, and stands in the scatter.closed that follows.
 */
export function endEffect(barrier: BarrierState, end: End): Effect {
  if (end.status !== 'failed' && end.status !== 'cancelled') return closeEffect(barrier, end)
  const { run, asset } = barrier
  const data = { status: end.status, ...(end.error ? { error: end.error } : {}) }
  return { do: 'fact', fact: { name: 'scatter.ended_early', ids: { run, asset: asset as AssetName }, data } }
}

/** scatter.closed: the last word. Nothing changes these counts any more. */
export function closeEffect(barrier: BarrierState, end: End): Effect {
  return {
    do: 'fact',
    ...(barrier.deadlineMs === undefined
      ? {}
      : { stops: timerFact(barrier.run, barrier.asset, barrier.deadlineMs - barrier.startedMs) }),
    fact: {
      name: 'scatter.closed',
      ids: { run: barrier.run, asset: barrier.asset as AssetName },
      data: {
        run: barrier.run,
        asset: barrier.asset,
        status: end.status,
        ...(barrier.total === undefined ? {} : { total: barrier.total }),
        succeeded: barrier.succeeded,
        failed: barrier.failed,
        ...(end.error ? { error: forOutsiders(end.error) } : {}),
      },
    },
  }
}

export function timerFact(run: RunId, asset: string, timeoutMs: number): FactDraft {
  return { name: 'scatter.timer_fired', ids: { run, asset: asset as AssetName }, data: { timeoutMs } }
}

function instances(n: number): string {
  return `${n} ${n === 1 ? 'instance' : 'instances'}`
}
