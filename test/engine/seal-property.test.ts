import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isOfPart, type Key, type RunState } from '../../projections/state.ts'
import { documentsOf, readDocuments } from '../../src/engine/history/run-documents.ts'
import type { Fact } from '../../streams/facts.ts'
import { decodePack, encodePack, type SealedFact } from '../../streams/history.ts'
import { runs } from '../kit/runs.ts'
import { type Bucket, Docs, foldOne, printed } from '../projections/harness.ts'
import { play, scenario } from '../projections/scenario.ts'

/** The documents of the base, as the sealer reads them. */
function storeOf(docs: Docs): Parameters<typeof documentsOf>[0] {
  const load = async (keys: readonly string[]): Promise<void> => docs.load(keys)
  return { has: docs.has, get: (key) => docs.get(key), load, read: async <D>(key: Key<D>) => docs.peek(key) }
}

function runOf({ ids }: Fact): string | undefined {
  return 'run' in ids ? ids.run : undefined
}

/** Seals all runs that have ended: what leaves the base, and what the pack has of it. */
async function seal(bucket: Bucket, facts: readonly Fact[]): Promise<{ left: Bucket; sealed: Map<string, Bucket> }> {
  const base = new Docs(bucket)
  const left = new Map(bucket)
  const sealed = new Map<string, Bucket>()
  for (const key of bucket.keys()) {
    if (!key.startsWith('run.')) continue
    const run = base.peek<RunState>(key)
    if (run?.finishedMs === undefined) continue
    const paths = facts.filter((fact) => runOf(fact) === run.id).map((fact) => pathOf(fact))
    const { docs, more, keys } = await documentsOf(storeOf(base), run, paths)
    const all: Record<string, unknown> = { ...docs }
    for await (const [name, doc] of readDocuments(storeOf(base), more)) all[name] = doc
    const [back] = await decodePack(await encodePack([{ run: run.id, docs: all, facts: [] }]))
    const packed = new Docs()
    for (const [name, doc] of Object.entries(back?.docs ?? {})) packed.put(name, doc)
    sealed.set(run.id, packed.checkpoint())
    left.delete(key)
    for (const name of keys ?? [...left.keys()].filter((one) => isOfPart(one, run.id))) left.delete(name)
  }
  return { left, sealed }
}

function pathOf({ name, ids, seq, timeMs }: Fact): SealedFact {
  const { run = '', asset = '', gate = '' } = ids as Record<string, string>
  const path =
    name === 'gate.created' ? `gate.${run}.${asset}.${gate}.created` : name.startsWith('scatter.') ? 'scatter.' : name
  return { path, seq, timeMs, contentType: undefined, payload: new Uint8Array() }
}

describe('runs that are sealed at any time', () => {
  it('leave a state that goes on as one that never sealed, and their documents are in the pack', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async (given) => {
        const { log, issued } = play(given)
        const cuts = given.cuts.map((cut) => cut % (log.length + 1)).toSorted((a, b) => a - b)
        const whole = new Docs()
        let docs = new Docs()
        const gone = new Set<string>()
        for (const [i, fact] of [...log, undefined].entries()) {
          if (cuts.includes(i)) {
            const model = whole.checkpoint()
            const { left, sealed } = await seal(docs.checkpoint(), log.slice(0, i))
            // Who begins with the base has nothing but what the base has.
            docs = new Docs(left)
            for (const [run, packed] of sealed) {
              gone.add(run)
              for (const [key, bytes] of packed) expect(text(bytes), key).toBe(text(model.get(key)))
              expect([...left.keys()].filter((key) => key.split('.').includes(run))).toEqual([])
            }
          }
          if (!fact) break
          foldOne(whole, fact)
          const effects = foldOne(docs, fact)
          if (!gone.has(runOf(fact) ?? '')) expect(effects).toEqual(issued.get(fact.seq))
          else expect(effects).toEqual([])
        }
        const others = ([key]: [string, string]): boolean => !key.split('.').some((token) => gone.has(token))
        const expected = Object.entries(printed(whole.checkpoint())).filter(others)
        expect(printed(docs.checkpoint())).toEqual(Object.fromEntries(expected))
      }),
      runs(100),
    )
  })
})

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes).toString('latin1')
}
