/** What is damaged, and what only could not be read at this moment. */
import { FlowStoneError } from '../../../streams/errors.ts'

/** What is stored says so: to read it again would not help. */
export function isDamage(error: unknown): boolean {
  if (isOfZlib(error)) return true
  if (!(error instanceof FlowStoneError)) return false
  if (error.code === 'unreadable') return error.cause === undefined || isDamage(error.cause)
  return error.code === 'undecodable' || error.code === 'damaged_value'
}

/** Compressed bytes that are none. */
export function isOfZlib(error: unknown): boolean {
  return error instanceof Error && /^(Z_|ZSTD_)/.test(String(Reflect.get(error, 'code')))
}
