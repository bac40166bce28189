/** Times as arguments. */
import { InvalidError } from '../../streams/errors.ts'
import type { When } from '../client/at.ts'
import { parseDate } from '../options/date.ts'
import { type Duration, parseDuration } from '../options/duration.ts'

/** A time, or how long ago: `2h`. */
export function sinceArgument(text: string, option = '--since'): Date {
  const ms = parseDate(text)
  if (ms !== undefined) return new Date(ms)
  try {
    return new Date(Date.now() - parseDuration(option, text as Duration))
  } catch {
    throw new InvalidError(
      `${option} must be a time, such as 2026-11-23T08:00Z, or a duration, such as 2h, got ${text}`,
    )
  }
}

/** A time, how long ago, or a sequence of the log. */
export function whenArgument(option: string, text: string): When {
  const [, shard, seq] = /^(?:(\d+):)?(\d+)$/.exec(text) ?? []
  if (seq !== undefined) return shard === undefined ? Number(seq) : { shard: Number(shard), seq: Number(seq) }
  try {
    return sinceArgument(text, option)
  } catch {
    throw new InvalidError(
      `${option} must be a time, such as 2026-11-23T08:00Z, how long ago, such as 2h, a sequence, or SHARD:SEQUENCE, got ${text}`,
    )
  }
}
