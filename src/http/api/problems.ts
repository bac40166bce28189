/** What errors of a flow mean to a client of the API, who has a key: details are for him. */
import { ConflictError, FlowStoneError, InvalidError, SignalRejectedError } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import type { Logger } from '../../telemetry.ts'
import { toProblem } from '../shared/fault.ts'
import { HttpProblem } from '../shared/problem.ts'

const DETAIL_MAX = 1000
const CONFLICTS = new Set(['not_retryable', 'not_redrivable', 'not_adoptable', 'not_closed', 'not_started'])
const LATER = new Set(['no_engine', 'state_behind'])

export function apiProblem(thrown: unknown, logger: Logger): HttpProblem {
  if (!(thrown instanceof FlowStoneError) || thrown instanceof SignalRejectedError) return toProblem(thrown, logger)
  const detail = cut(thrown.message, DETAIL_MAX, '…')
  if (thrown instanceof ConflictError || CONFLICTS.has(thrown.code)) return new HttpProblem('conflict', detail)
  if (thrown instanceof InvalidError) return new HttpProblem('invalid_input', detail)
  if (thrown.code === 'no_snapshot') return new HttpProblem('not_kept', detail)
  if (thrown.code === 'not_found') return new HttpProblem('unknown_id', detail)
  if (LATER.has(thrown.code)) return new HttpProblem('unavailable', detail, { 'Retry-After': '2' })
  return toProblem(thrown, logger)
}
