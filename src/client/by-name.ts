/** Documents of schedules and sensors, by the names that people give. */
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { RunDeps } from './run-view.ts'
import { untilFoldedNow } from './values.ts'

interface Named {
  readonly pipeline: string
  readonly name: string
}

const READ_AHEAD = 64
/** A list, such as that of a page, does not wait long for an engine that is behind. */
export const LIST_WAIT_MS = 1000

/** All of one kind, by name: what is on the log now, if an engine folds it within a second. */
export async function docsUnder<D extends Named>(deps: RunDeps, kind: string): Promise<D[]> {
  return (await foldedDocs<D>(deps, kind, LIST_WAIT_MS)).docs
}

async function foldedDocs<D extends Named>(
  deps: RunDeps,
  kind: string,
  mostMs?: number,
): Promise<{ readonly docs: D[]; readonly isFolded: boolean }> {
  await deps.found()
  const isFolded = await untilFoldedNow(deps, 0, mostMs)
  const keys = await deps.docs.keys(0, `${kind}.`)
  const docs: D[] = []
  for (let i = 0; i < keys.length; i += READ_AHEAD) {
    const read = keys.slice(i, i + READ_AHEAD).map((key) => deps.docs.read(0, key))
    // The bucket's type of document follows from its key.
    for (const doc of (await Promise.all(read)) as (D | undefined)[]) if (doc) docs.push(doc)
  }
  return { docs: docs.toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1)), isFolded }
}

/** Throws FlowStoneError `not_found`, and InvalidError for a name that several have. */
export async function findDoc<D extends Named>(deps: RunDeps, at: string, kind: string, name: unknown): Promise<D> {
  if (typeof name !== 'string')
    throw new InvalidError(`${at}: name a ${kind}, such as 'sales/nightly', got ${typeof name}`)
  const { docs, isFolded } = await foldedDocs<D>(deps, kind)
  const found = docs.filter((doc) => (name.includes('/') ? nameOf(doc) === name : doc.name === name))
  const [first, second] = found
  if (first && !second) return first
  if (!first) {
    const hint = nearest(name, docs.map(nameOf))
    const where = isFolded ? '' : ', as far as the state shows: no engine has folded the newest facts yet'
    throw new FlowStoneError('not_found', `there is no ${kind} ${name}${where}${hint}`)
  }
  throw new InvalidError(`${at}: several pipelines have a ${kind} ${name}: ${found.map(nameOf).join(', ')}; name one`)
}

function nameOf({ pipeline, name }: Named): string {
  return `${pipeline}/${name}`
}
