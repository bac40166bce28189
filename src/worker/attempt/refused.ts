/** What the log refuses for good, and what is stored in its place. */
import { cutTexts } from '../../../streams/cut.ts'
import { FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import type { ErrorInfo } from '../../../streams/schemas.ts'

/** No text is longer in an error that is stored in place of a longer one. */
const TEXT_MAX = 300

/**
 * Whether the same append would be refused again, whoever sends it: it is too large for a message,
 * or against what the stream allows.
 */
export function isRefused(thrown: unknown): boolean {
  return thrown instanceof InvalidError || (thrown instanceof FlowStoneError && thrown.code === 'refused')
}

/** The error in fewer and fewer words: where the log refuses one, the next may fit. */
export function shorterAndShorter(error: ErrorInfo): readonly ErrorInfo[] {
  const cut = cutTexts(error, TEXT_MAX)
  return [error, cut, { code: cut.code, message: cut.message }]
}
