/**
 * What is reported where the log refuses outcomes for good: the same in two parts, of one instance
 * its failure, of a failure fewer words. Without this the lease would be run again and again.
 */
import { squeeze } from '../../../streams/compress.ts'
import { ListWriter, readList } from '../../../streams/list.ts'
import type { ScatterOutcomes } from '../../../streams/scatter-schemas.ts'
import { infoOf } from '../../../streams/thrown.ts'
import { shorterAndShorter } from '../attempt/refused.ts'

/** `why`: what the log said. Thrown where nothing shorter can be said. */
export function partsOf(outcomes: ScatterOutcomes, why: unknown): readonly ScatterOutcomes[] {
  const { length } = outcomes.at
  if (length === 0) throw why
  if (length === 1) return [shorter(outcomes, why)]
  const middle = Math.ceil(length / 2)
  // How long the lease lasted is said at its end.
  const { heldMs: _, ...first } = outcomes
  return [slice(first, 0, middle), slice(outcomes, middle, length)]
}

function slice(outcomes: ScatterOutcomes, from: number, to: number): ScatterOutcomes {
  const { at, ms, values, encoding, refs, errors, suspended, left, ...rest } = outcomes
  const list = readList(values, encoding)
  const writer = new ListWriter()
  for (let k = from; k < to; k++) writer.add(list.item(k))
  const { bytes, encoding: squeezed } = squeeze(writer.list(), to - from)
  const part: ScatterOutcomes = {
    ...rest,
    at: at.slice(from, to),
    ms: ms.slice(from, to),
    values: bytes.slice(),
    ...(squeezed ? { encoding: squeezed } : {}),
    ...(refs ? { refs: within(refs, from, to) } : {}),
    ...(errors ? { errors: within(errors, from, to) } : {}),
    ...(suspended ? { suspended: within(suspended, from, to) } : {}),
    ...(left ? { left: within(left, from, to) } : {}),
  }
  writer.end()
  return part
}

/** Entries of these positions, counted from the first of them. */
function within<T>(entries: readonly [number, T][], from: number, to: number): [number, T][] {
  return entries.flatMap(([k, entry]): [number, T][] => (k >= from && k < to ? [[k - from, entry]] : []))
}

function shorter(outcomes: ScatterOutcomes, why: unknown): ScatterOutcomes {
  const { values: _, encoding: __, refs: ___, errors, suspended, ...rest } = outcomes
  if (suspended && suspended.length > 0) throw why
  const [failed] = errors ?? []
  const said = failed?.[1] ?? { outcome: 'error' as const, error: infoOf(why) }
  const bytes = JSON.stringify(said.error).length
  const error = failed ? shorterAndShorter(said.error).find((one) => JSON.stringify(one).length < bytes) : said.error
  if (!error) throw why
  return { ...rest, values: [null], errors: [[0, { ...said, error }]] }
}
