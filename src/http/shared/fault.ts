/** What anything thrown is answered with, and what the log says of it. */
import { messageOf } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import type { Logger } from '../../telemetry.ts'
import { HttpProblem, problemOf } from './problem.ts'

/**
 * The problem to answer with. Faults of this side are logged, and never with the address: it holds
 * the token.
 */
export function toProblem(error: unknown, logger: Logger): HttpProblem {
  const problem = problemOf(error)
  if (problem.status >= 500 && !(error instanceof HttpProblem))
    logger.error(`http: a request failed (${problem.reason}): ${cut(withoutTokens(messageOf(error)), 500)}`)
  return problem
}

/** Whatever threw, and whatever it put into its words. */
function withoutTokens(text: string): string {
  return text.replaceAll(/\bv1\.[\w.~-]{20,}/g, 'v1.…')
}
