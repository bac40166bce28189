/** What errors of a flow mean to a client of the API, who has a key: details are for him. */
import { FlowStoneError, SignalRejectedError } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import type { Logger } from '../../telemetry.ts'
import { problemOf, toProblem } from '../shared/fault.ts'
import { HttpProblem } from '../shared/problem.ts'
import { reasonOf } from '../shared/reasons.ts'

const DETAIL_MAX = 1000
/** They say what to wait for, and are no fault of this side. */
const LATER = new Set(['no_engine', 'state_behind', 'importing'])

export function apiProblem(thrown: unknown, logger: Logger): HttpProblem {
  if (!(thrown instanceof FlowStoneError) || thrown instanceof SignalRejectedError) return toProblem(thrown, logger)
  const reason = reasonOf(thrown.code)
  const { headers, status } = problemOf(thrown)
  if (status >= 500 && !LATER.has(thrown.code)) {
    const logged = toProblem(thrown, logger)
    // What is stored is his. What this process and its server are like is not.
    if (reason !== 'damaged') return logged
  }
  return new HttpProblem(reason, cut(thrown.message, DETAIL_MAX, '…'), headers)
}
