import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { foldPast, PastView } from '../../projections/past.ts'
import { isOfPart, type RunState, stateKey } from '../../projections/state.ts'
import { encodeJson } from '../../streams/codec.ts'
import type { Fact } from '../../streams/facts.ts'
import { decodeSnapshot, encodeSnapshot, type SnapshotDoc } from '../../streams/snapshots.ts'
import { runs } from '../kit/runs.ts'
import { play, scenario } from './scenario.ts'

/** Folds facts, and gives what is asked for. */
function folded(view: PastView, facts: readonly Fact[], pipelines: PastView): PastView {
  for (const fact of facts)
    for (let missing = foldPast(view, fact); missing.length > 0; missing = foldPast(view, fact))
      for (const key of missing) view.put(key, pipelines.get(key))
  return view
}

/** What the base has: nothing of runs that have ended, and no lists. */
async function snapshotOf(view: PastView): Promise<SnapshotDoc[]> {
  const ended = view.keys('run.').flatMap((key) => {
    const run = view.get<RunState>(key)
    return run?.finishedMs === undefined ? [] : [run.id]
  })
  const docs = view.keys('').flatMap((key): SnapshotDoc[] => {
    const isEnded = ended.some((run) => key === stateKey.run(run) || isOfPart(key, run))
    if (key.startsWith('runs.') || isEnded) return []
    if (key.startsWith('pipeline.')) return [[key, undefined]]
    const doc = view.get(key)
    return [[key, doc instanceof Uint8Array ? doc : encodeJson(doc)]]
  })
  return await decodeSnapshot(await encodeSnapshot(docs))
}

/** All that can be asked for, but of runs that had ended at the snapshot. */
function shown(view: PastView, without: ReadonlySet<string>): Record<string, unknown> {
  const keys = view.keys('').filter((key) => {
    const [kind = '', of = '', , at = ''] = key.split('.')
    return kind !== 'runs' && !without.has(of) && !without.has(at)
  })
  const docs = keys.map((key) => {
    const doc = view.get(key)
    return [key, doc instanceof Uint8Array ? [...doc] : JSON.parse(JSON.stringify(doc ?? null))]
  })
  return Object.fromEntries(docs.sort())
}

describe('the state at an earlier sequence', () => {
  it('is the same from a snapshot on as from the beginning', async () => {
    await fc.assert(
      fc.asyncProperty(
        scenario,
        fc.array(fc.tuple(fc.nat(1000), fc.nat(1000)), { minLength: 3, maxLength: 6 }),
        async (all, cuts) => {
          const { log } = play(all)
          const whole = folded(new PastView(), log, new PastView())
          for (const [a, b] of cuts) {
            const [from, to] = [a % log.length, b % log.length].toSorted((x, y) => x - y)
            const before = folded(new PastView(), log.slice(0, from), whole)
            const ended = before.keys('run.').flatMap((key) => {
              const run = before.get<RunState>(key)
              return run?.finishedMs === undefined ? [] : [run.id]
            })
            const view = folded(new PastView(await snapshotOf(before)), log.slice(from, to), whole)
            for (const key of view.keys('pipeline.')) if (!view.has(key)) view.put(key, whole.get(key))
            const expected = folded(new PastView(), log.slice(0, to), whole)
            expect(shown(view, new Set(ended))).toEqual(shown(expected, new Set(ended)))
          }
        },
      ),
      runs(16),
    )
  })

  it('has only what a snapshot of its version says', async () => {
    await expect(decodeSnapshot(new Uint8Array([1, 2, 3]))).rejects.toMatchObject({ code: 'undecodable' })
  })
})
