/**
 * What the ending of a name says of its content. Who reads a file goes by its ending, so nothing
 * else is written under it.
 */
import { InvalidError } from '../../../streams/errors.ts'

const PACKINGS = { gz: 'gzip', gzip: 'gzip', zst: 'zstd', zstd: 'zstd' } as const
export type Packing = (typeof PACKINGS)[keyof typeof PACKINGS]

const LINES = ['jsonl', 'ndjson']
/** Readers unpack it, and no archive is packed by it. */
const ONLY_READ = 'br'

/** Of the last part of a path: `gz` of `a.b/c.jsonl.GZ`. One with digits first is a date or so. */
function lastEnding(name: string): string | undefined {
  return /\.([A-Za-z][A-Za-z0-9]*)$/.exec(name.slice(name.lastIndexOf('/') + 1))?.[1]?.toLowerCase()
}

export function packingOf(name: string): Packing | undefined {
  return Object.entries(PACKINGS).find(([ending]) => ending === lastEnding(name))?.[1]
}

export function isParquet(name: string): boolean {
  return lastEnding(name) === 'parquet'
}

/**
 * Throws InvalidError for a name whose ending says that it has something other than lines. `more`:
 * other endings that are as good. `isSaid`: the user knows that the content is lines.
 */
export function checkLines(at: string, name: string, advice: string, more: readonly string[], isSaid = false): void {
  const packing = packingOf(name)
  const inner = packing === undefined ? name : name.slice(0, name.lastIndexOf('.'))
  const ending = lastEnding(inner)
  if (ending === undefined || LINES.includes(ending) || more.includes(ending)) return
  if (isSaid && ending !== 'parquet' && ending !== ONLY_READ) return
  throw new InvalidError(
    `${at}: ${name} ends in .${ending}${packing ? ', packed' : ''}, which it would not be; ${advice}`,
  )
}
