import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { needs, step } from '../../projections/handlers.ts'
import { foldPast, PastView } from '../../projections/past.ts'
import { isOfPart, type RunState, stateKey } from '../../projections/state.ts'
import { Changed, type Cut } from '../../src/engine/history/changed.ts'
import { Store } from '../../src/engine/shard/store.ts'
import type { Connection } from '../../src/log/connection.ts'
import { gapsIn, stepsOf } from '../../src/log/past/changes.ts'
import { type Changes, decodeChanges, encodeChanges } from '../../streams/changes.ts'
import { encodeJson } from '../../streams/codec.ts'
import type { Fact } from '../../streams/facts.ts'
import { decodeSnapshot, encodeSnapshot, type SnapshotDoc } from '../../streams/snapshots.ts'
import { namesOf } from '../../streams/subjects.ts'
import { runs } from '../kit/runs.ts'
import { play, scenario } from '../projections/scenario.ts'

/** A bucket that has nothing but what the store has in memory. */
const EMPTY = { maxPayload: 1024 * 1024, read: async () => undefined } as unknown as Connection
const FENCE = { look: async () => undefined }
const EVERY = 7

/** Folds as the engine does, with a checkpoint behind each of these positions. */
async function changesOf(log: readonly Fact[], checkpoints: ReadonlySet<number>, from: number): Promise<Cut[]> {
  const changed = new Changed(EVERY)
  const store = new Store(EMPTY, namesOf('t'), 0, FENCE, { changed, keeps: Number.POSITIVE_INFINITY })
  const cuts: Cut[] = []
  changed.begin(0)
  for (const fact of log) {
    for (let missing = needs(store, store.has, fact); missing.length > 0; missing = needs(store, store.has, fact))
      await store.load(missing)
    step(store, fact)
    changed.fact(100)
    if (!checkpoints.has(fact.seq) && fact.seq !== from) continue
    do store.takeTouched()
    while (store.hasMore)
    // An engine that begins there knows nothing of what was before.
    if (fact.seq === from) changed.begin(from)
    const cut = changed.cut(fact.seq, { seq: fact.seq, ms: fact.timeMs })
    if (!cut) continue
    // Now and then one is not stored.
    if (fact.seq % 3 > 0) cuts.push(cut)
  }
  return cuts
}

function fold(view: PastView, facts: readonly Fact[], pipelines: PastView): PastView {
  for (const fact of facts)
    for (let missing = foldPast(view, fact); missing.length > 0; missing = foldPast(view, fact))
      for (const key of missing) view.put(key, pipelines.get(key))
  return view
}

function endedIn(view: PastView): Set<string> {
  const found = view.keys('run.').flatMap((key) => {
    const run = view.get<RunState>(key)
    return run?.finishedMs === undefined ? [] : [run.id]
  })
  return new Set(found)
}

/** All that can be asked for, but of some runs. */
function shown(view: PastView, without: ReadonlySet<string>): Record<string, unknown> {
  const isLeftOut = (key: string): boolean =>
    /^(runs|subscription|event_group)\./.test(key) ||
    [...without].some((run) => key === stateKey.run(run) || key === stateKey.open(run) || isOfPart(key, run))
  const docs = view
    .keys('')
    .filter((key) => !isLeftOut(key))
    .map((key) => {
      const doc = view.get(key)
      return [key, doc instanceof Uint8Array ? [...doc] : JSON.parse(JSON.stringify(doc ?? null))]
    })
  return Object.fromEntries(docs.sort())
}

/** A snapshot of the base has nothing of runs that had ended. */
async function snapshotOf(view: PastView): Promise<SnapshotDoc[]> {
  return await decodeSnapshot(await encodeSnapshot(view.whole()))
}

describe('the state at a sequence that is not sealed', () => {
  it('is the same by changes that are laid over an older state as from the beginning', async () => {
    const points = fc.array(fc.nat(1000), { minLength: 4, maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(scenario, points, fc.nat(1000), fc.nat(1000), async (given, checkpoints, base, start) => {
        const { log } = play(given)
        const at = (n: number): number => log[n % log.length]?.seq ?? 0
        const upTo = (seq: number): Fact[] => log.filter((fact) => fact.seq <= seq)
        const whole = fold(new PastView(), log, new PastView())
        const cuts = await changesOf(log, new Set(checkpoints.map(at)), at(start))
        const stored: Changes[] = []
        for (const cut of cuts) stored.push(await decodeChanges(await encodeChanges(cut.changes())))
        const places = cuts.map(({ from, seq, mark }, n) => ({ n, from, seq, mark, bytes: 1 }))
        const baseSeq = at(base)
        const snapshot = await snapshotOf(fold(new PastView(), upTo(baseSeq), whole))
        const gone = endedIn(fold(new PastView(), upTo(baseSeq), whole))
        for (const asked of [...checkpoints.map(at).slice(0, 2), log.at(-1)?.seq ?? 0]) {
          if (asked < baseSeq) continue
          const { changes } = stepsOf(places.filter(({ seq }) => seq > baseSeq && seq <= asked))
          let view = new PastView(snapshot)
          let done = baseSeq
          for (const { n, from, seq } of changes) {
            if (from > done)
              fold(
                view,
                log.filter((fact) => fact.seq > done && fact.seq <= from),
                whole,
              )
            const found = stored[n]
            if (found) view.apply(found)
            done = seq
            // From a whole on it is the same.
            if (n % 2 === 0) view = new PastView(await snapshotOf(view))
          }
          const ended = new Set([...gone, ...endedIn(fold(new PastView(), upTo(done), whole))])
          fold(
            view,
            log.filter((fact) => fact.seq > done && fact.seq <= asked),
            whole,
          )
          for (const key of view.keys('pipeline.')) if (!view.has(key)) view.put(key, whole.get(key))
          expect(shown(view, ended)).toEqual(shown(fold(new PastView(), upTo(asked), whole), ended))
        }
      }),
      runs(60),
    )
  })

  it('keeps a run that has the id of one that ended and was pruned, and nothing of that one', () => {
    const changed = new Changed(1)
    changed.begin(0)
    const put = (key: string, doc: object): void => changed.put(key, doc, encodeJson(doc))
    put('run.0-a', { id: 'a' })
    put('gates.0-a.g.R0', {})
    put('run.0-a', { finishedMs: 1 })
    put('run.0-b', { id: 'b' })
    put('run.0-b', { finishedMs: 1 })
    put('run.0-a', { id: 'another' })
    changed.delete('open.0-b')
    changed.fact(1)
    const changes = changed.cut(2, { seq: 2, ms: 2 })?.changes()
    expect(changes).toEqual({ docs: [['run.0-a', encodeJson({ id: 'another' })]], gone: [], ended: ['0-a', '0-b'] })
  })

  it('begins with the last whole, and says how many facts no changes are of', () => {
    const place = (n: number, from: number, seq: number, whole?: number) => ({
      ...{ n, from, seq, mark: { seq, ms: seq }, bytes: 1 },
      ...(whole === undefined ? {} : { whole }),
    })
    const places = [place(0, 0, 10), place(1, 10, 20, 5), place(2, 25, 30), place(3, 28, 40)]
    const steps = stepsOf(places)
    expect([steps.whole?.n, steps.changes.map(({ n }) => n)]).toEqual([1, [2, 3]])
    expect(gapsIn(steps, 0)).toBe(5)
    expect(gapsIn(stepsOf(places.slice(2)), 7)).toBe(18)
  })

  it('has only what changes of its version say', async () => {
    await expect(decodeChanges(new Uint8Array([1, 2, 3]))).rejects.toMatchObject({ code: 'undecodable' })
  })
})
