/**
 * The story of one run: its facts, folded again by the code that decided about it. So an
 * explanation knows after each fact what had become of each asset, and cannot drift from the fold.
 *
 * Only facts of the run are folded. So a run that waited for others of its key begins at once here,
 * and the counts of a scatter are not those of its barrier. Neither changes what an asset becomes:
 * that follows from facts, which stand in the story.
 */
import type { Fact, FactName, FactOf } from '../../streams/facts.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { needs, step } from '../handlers.ts'
import { isEnded } from '../run/end.ts'
import { type AssetInRun, editDoc, type Key, type RunState, specOf, stateKey, type View } from '../state.ts'
import type { WhyInput } from './types.ts'

/** What a fact made of an asset. */
export interface Change {
  readonly fact: Fact
  readonly before: AssetInRun | undefined
  readonly after: AssetInRun
}

export interface AssetStory {
  readonly name: string
  readonly spec: AssetSpec | undefined
  /** What has become of it. */
  readonly state: AssetInRun
  readonly facts: readonly Fact[]
  readonly changes: readonly Change[]
}

export interface RunStory {
  readonly id: string
  readonly request: FactOf<'run.requested'>
  /** The version that it has now. */
  readonly registered: FactOf<'pipeline.registered'> | undefined
  readonly pipeline: PipelineSpec | undefined
  readonly planned: FactOf<'run.planned'> | undefined
  readonly finished: FactOf<'run.finished'> | undefined
  readonly facts: readonly Fact[]
  readonly status: RunState['status']
  readonly assets: ReadonlyMap<string, AssetStory>
  readonly input: WhyInput
}

class Memory implements View {
  readonly #docs = new Map<string, unknown>()

  readonly has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: Key<D>): Readonly<D> | undefined {
    return this.#docs.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.#docs.get(key) as D | undefined, create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#docs.set(key, doc)
  }

  delete<D>(key: Key<D>): void {
    this.#docs.set(key, undefined)
  }

  /** What is not there is known not to be there. */
  absent(keys: readonly string[]): void {
    for (const key of keys) if (!this.#docs.has(key)) this.#docs.set(key, undefined)
  }
}

/** Undefined where the request is missing: then nothing is known of the run. */
export function storyOf(input: WhyInput): RunStory | undefined {
  const { run: id, queued } = input
  const facts = input.facts.toSorted((a, b) => a.seq - b.seq)
  const own = facts.filter(({ ids }) => 'run' in ids && ids.run === id)
  const request = factOf(own, 'run.requested')
  if (!request) return undefined
  const registered = facts.filter((fact) => fact.name === 'pipeline.registered')
  const { memory, changes } = replay(id, registered, own)
  const doc = memory.get(stateKey.run(id))
  const finished = factOf(own, 'run.finished')
  const version = doc?.version ?? request.data.version
  const current = registered.findLast(({ ids }) => ids.version === version && ids.pipeline === request.data.pipeline)
  const assets = new Map<string, AssetStory>()
  for (const [name, state] of Object.entries(queued ? {} : (doc?.assets ?? {}))) {
    // A run that ended before its turn came, or that had no place, has begun nothing.
    if (finished && !isEnded(state)) continue
    const spec = current && specOf(current.data, name)
    const about = own.filter((fact) => 'asset' in fact.ids && fact.ids.asset === name && !isOfWaiter(fact.name))
    assets.set(name, { name, spec, state, facts: about, changes: changes.get(name) ?? [] })
  }
  const status = finished?.data.status ?? (queued ? 'queued' : doc?.status === 'queued' ? 'requested' : doc?.status)
  return {
    id,
    request,
    registered: current,
    pipeline: current?.data,
    planned: factOf(own, 'run.planned'),
    finished,
    facts: own,
    status: status ?? 'requested',
    assets,
    input,
  }
}

/** As it was before a fact. */
export function storyBefore(story: RunStory, { seq }: Fact): RunStory | undefined {
  const { turn: _, ...input } = story.input
  return storyOf({
    ...input,
    facts: input.facts.filter((fact) => fact.name === 'pipeline.registered' || fact.seq < seq),
  })
}

function replay(
  id: string,
  registered: readonly Fact[],
  own: readonly Fact[],
): { memory: Memory; changes: Map<string, Change[]> } {
  const memory = new Memory()
  const changes = new Map<string, Change[]>()
  const seen = new Map<string, AssetInRun>()
  const refused = new Set(own.flatMap((fact) => (fact.name === 'run.adopt_refused' ? [fact.ids.request] : [])))
  for (const fact of registered) fold(memory, fact)
  for (const fact of own) {
    // Here the run waits for no turn, and could be moved to another version when it could not.
    if (fact.name === 'run.adopt_requested' && refused.has(String(fact.seq))) continue
    fold(memory, alone(fact))
    for (const [name, asset] of Object.entries(memory.get(stateKey.run(id))?.assets ?? {})) {
      const before = seen.get(name)
      if (before && isSame(before, asset)) continue
      const after = { ...asset }
      seen.set(name, after)
      changes.set(name, [...(changes.get(name) ?? []), { fact, before, after }])
    }
  }
  return { memory, changes }
}

/** Without others of its key, of which nothing is known here. */
function alone(fact: Fact): Fact {
  if (fact.name !== 'run.requested') return fact
  const { concurrency: _, ...data } = fact.data
  return { ...fact, data }
}

function fold(memory: Memory, fact: Fact): void {
  try {
    for (let missing = needs(memory, memory.has, fact); missing.length > 0; missing = needs(memory, memory.has, fact))
      memory.absent(missing)
    step(memory, fact)
  } catch {
    // As the engine steps over what it cannot fold. The fact itself is said all the same.
  }
}

const COMPARED = ['status', 'phase', 'attempt', 'dueMs', 'ending', 'gate', 'waitsUntilMs', 'worker'] as const

function isSame(a: AssetInRun, b: AssetInRun): boolean {
  return COMPARED.every((member) => a[member] === b[member])
}

/** Their asset is one of another run. */
function isOfWaiter(name: FactName): boolean {
  return name === 'run.awaited' || name === 'run.abandoned'
}

/** The first of a kind. */
export function factOf<N extends FactName>(facts: readonly Fact[], name: N): FactOf<N> | undefined {
  return factsOf(facts, name)[0]
}

export function lastOf<N extends FactName>(facts: readonly Fact[], name: N): FactOf<N> | undefined {
  return factsOf(facts, name).at(-1)
}

export function factsOf<N extends FactName>(facts: readonly Fact[], name: N): FactOf<N>[] {
  // The name says which fact it is; the compiler does not see that through the type parameter.
  return facts.filter((fact) => fact.name === name) as FactOf<N>[]
}
