/**
 * The place of a fact: the filter under which no fact may stand before it. For most facts it is the
 * path itself. Only one of several facts may end an asset, settle the deadline of a gate, or an
 * occurrence of a schedule. Their place covers all of them.
 */
import { FACTS, type FactName, factNames } from './facts.ts'
import { PathTemplate } from './path-template.ts'

const ENDS =
  /^(asset\.[^.]+\.[^.]+\.[^.]+\.end|gate\.[^.]+\.[^.]+\.[^.]+\.deadline\.[^.]+|schedule\.[^.]+\.[^.]+\.at\.[^.]+)\.[a-z]+$/

const places = new Map<FactName, PathTemplate>(
  factNames().map((name) => [name, new PathTemplate(`fact ${name}`, placeAt(FACTS[name].path))]),
)

/** Of a fact that has this path. */
export function placeAt(path: string): string {
  // Counted from the front: an asset may be named `end`.
  return path.replace(ENDS, '$1.*')
}

/** Of a fact with these ids: as `placeAt` of its path. */
export function placeOf({
  name,
  ids,
}: {
  readonly name: FactName
  readonly ids: Readonly<Record<string, string>>
}): string {
  const place = places.get(name)
  if (!place) throw new Error(`no fact ${name}`)
  return place.fill(ids)
}
