/** The server gave no answer, and reads were tried for long: nobody's mistake, and it passes. */
import { FlowStoneError } from '../../streams/errors.ts'

export function isUnreachable(error: unknown): boolean {
  return error instanceof FlowStoneError && error.code === 'unreachable'
}
