import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Ground } from '../../projections/retention/judge.ts'
import { Policies } from '../../projections/retention/policy.ts'
import { namedBy, ownValues, placeOf, remainsIn, runIn, takenBy } from '../../projections/retention/summary.ts'
import { type AssetInRun, type RunState, stateKey } from '../../projections/state.ts'
import type { Base } from '../../src/engine/history/base.ts'
import { Packing, packedTo } from '../../src/engine/history/packing.ts'
import { Batch, type BatchContext } from '../../src/engine/history/prune/batch.ts'
import { Survey } from '../../src/engine/history/prune/survey.ts'
import type { Sweep } from '../../src/engine/history/prune/sweep.ts'
import { insertEntries } from '../../src/engine/history/segments.ts'
import type { Snapshots } from '../../src/engine/history/snapshots.ts'
import { decodeFact, encodeFact, factPath } from '../../streams/facts.ts'
import {
  decodePack,
  type HistoryManifest,
  historyKey,
  indexHash,
  packsIn,
  pageOf,
  type SealedFact,
  type SealedRun,
} from '../../streams/history.ts'
import { type RunId, runId } from '../../streams/ids.ts'
import {
  isInRanges,
  type PackSummary,
  type PruneRecord,
  type RetentionSpec,
  remainsOf,
  retentionKey,
} from '../../streams/retention.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { runs } from '../kit/runs.ts'
import { spec } from '../projections/harness.ts'

const DAY = 86_400_000
const pipeline = {
  name: 'p',
  version: 'v1',
  assets: [spec('a'), spec('b', { dependsOn: ['a'] })],
} as unknown as PipelineSpec

/** `follows`: as the next attempt of a key, the run before. `parts`: facts that come in packs. */
const planned = fc.record({
  partition: fc.constantFrom('x', 'y'),
  failed: fc.boolean(),
  takes: fc.boolean(),
  follows: fc.integer({ min: 0, max: 3 }).map((n) => n === 0),
  parts: fc.constantFrom(0, 0, 0, 1, 2),
  /** A pack ends behind each of its parts, or not. */
  cuts: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
  afterMs: fc.integer({ min: 1, max: 3 * DAY }),
  /** Before it begins: all runs but so many are sealed, and it is pruned. */
  prune: fc.oneof(
    { weight: 4, arbitrary: fc.constant(undefined) },
    {
      weight: 1,
      arbitrary: fc.record({ unsealed: fc.nat(3), packs: fc.integer({ min: 1, max: 9 }), eager: fc.boolean() }),
    },
  ),
})
type Planned = typeof planned extends fc.Arbitrary<infer P> ? P : never
const scenario = fc.record({
  given: fc.array(planned, { minLength: 2, maxLength: 24, size: 'max' }),
  policy: fc.record(
    { runsMs: fc.integer({ min: 1, max: 9 * DAY }), keepLast: fc.integer({ min: 1, max: 3 }) },
    { requiredKeys: ['runsMs'] },
  ) as fc.Arbitrary<RetentionSpec>,
})

interface Made {
  readonly doc: RunState
  readonly parts: readonly SealedRun[]
  readonly cuts: readonly boolean[]
}

/** The history bucket, in memory. */
class MemoryBase {
  readonly docs = new Map<string, unknown>()
  readonly seq = 0
  manifest: HistoryManifest = { v: 1, log: '', graceMs: 0, packs: 0, nextSegment: 0, levels: [], summarizedTo: 0 }
  readonly store = {
    has: (key: string) => this.docs.has(key),
    get: (key: string) => this.docs.get(key),
    put: (key: string, doc: unknown) => void this.docs.set(key, doc),
    delete: (key: string) => void this.docs.delete(key),
    load: async () => undefined,
    read: async (key: string) => this.docs.get(key),
  }

  async read(keys: readonly string[]): Promise<unknown[]> {
    return keys.map((key) => this.docs.get(key))
  }

  async write(pages: readonly { readonly key: string; readonly bytes: Uint8Array }[]): Promise<void> {
    for (const { key, bytes } of pages) this.docs.set(key, bytes)
  }

  async checkpoint(_seq: number, _mark: undefined, manifest: HistoryManifest): Promise<void> {
    this.manifest = manifest
  }

  async drop(): Promise<void> {
    // Nobody reads them any more.
  }

  get base(): Base {
    return this as unknown as Base
  }

  isGone(n: number): boolean {
    return isInRanges(this.manifest.gone ?? [], n)
  }

  async live(): Promise<{ readonly n: number; readonly runs: readonly SealedRun[] }[]> {
    const numbers = Array.from({ length: this.manifest.packs }, (_, n) => n).filter((n) => !this.isGone(n))
    return await Promise.all(
      numbers.map(async (n) => ({ n, runs: await decodePack(this.docs.get(historyKey.pack(n)) as Uint8Array) })),
    )
  }

  find(hash: bigint): number[] {
    const found = this.manifest.levels.flatMap((level) => {
      const page = level && (this.docs.get(historyKey.page(level.id, pageOf(hash, level.bits))) as Uint8Array)
      return page ? packsIn(page, hash) : []
    })
    return found.filter((n) => !this.isGone(n))
  }

  async seal(made: readonly Made[]): Promise<void> {
    const packing = new Packing(this.base)
    for (const { parts, cuts } of made)
      for (const [i, { run, docs, facts }] of parts.entries()) {
        await packing.add(run, docs, facts)
        if (cuts[i]) await packing.end()
      }
    await packing.end()
    const { levels, nextSegment } = await insertEntries(this.base, this.manifest, packing.entries)
    this.manifest = { ...this.manifest, ...packedTo(this.manifest, packing.next), levels, nextSegment }
  }
}

/** Makes runs as they come: their documents, their facts, and which values are the newest. */
class World {
  readonly made: Made[] = []
  readonly newest = new Map<string, number>()
  nowMs = 0
  #seq = 0

  make({ partition, failed, takes, follows, parts, cuts, afterMs }: Planned): void {
    this.nowMs += afterMs
    const id = runId(0, `r${this.made.length}`)
    const before = this.made.at(-1)?.doc
    const facts: SealedFact[] = [this.#fact('run.requested', { run: id }, { target: 'b', upstream: 'all' })]
    const assets: Record<string, AssetInRun> = {}
    const known = this.newest.get(placeOf('p', 'a', partition))
    const of = { phase: 'execute', attempt: 1, failures: 0 } as const
    if (takes && known !== undefined) assets.a = { ...of, status: 'reused', value: { shard: 0, seq: known } }
    else this.#value(id, 'a', partition, facts, assets)
    const rest = Array.from({ length: parts }, () => [this.#fact('run.planned', { run: id }, { assets: [] })])
    if (failed) assets.b = { ...of, status: 'failed', failures: 1 }
    else this.#value(id, 'b', partition, rest.at(-1) ?? facts, assets)
    const times = { requestedMs: this.nowMs, finishedMs: this.nowMs }
    const what = { pipeline: 'p', version: 'v1', target: 'b', upstream: 'all', partition } as const
    const status = failed ? 'failed' : 'succeeded'
    const retryOf = follows && before?.status === 'failed' ? { retryOf: before.id } : {}
    const doc: RunState = { seq: this.#seq, id, ...what, status, ...times, ...retryOf, assets }
    const tails = rest.map((some) => ({ run: id, docs: {}, facts: some }))
    this.made.push({ doc, parts: [{ run: id, docs: { [stateKey.run(id)]: doc }, facts }, ...tails], cuts })
  }

  #value(run: RunId, asset: string, partition: string, facts: SealedFact[], assets: Record<string, AssetInRun>): void {
    const ids = { pipeline: 'p', asset, run }
    const value = { ...ids, attempt: 1, worker: 'w', value: { json: 1 }, fingerprint: 'f', durationMs: 1 }
    const fact = this.#fact('asset.materialized', ids, value)
    facts.push(fact)
    const of = { phase: 'execute', attempt: 1, failures: 0 } as const
    assets[asset] = { ...of, status: 'materialized', value: { shard: 0, seq: fact.seq }, hash: `h${fact.seq}` }
    this.newest.set(placeOf('p', asset, partition), fact.seq)
  }

  #fact(name: string, ids: object, data: object): SealedFact {
    this.#seq += 1
    const draft = { name, ids, data } as unknown as Parameters<typeof encodeFact>[0]
    const path = factPath(draft.name, draft.ids as never)
    return { path, seq: this.#seq, timeMs: this.nowMs, ...encodeFact(draft) }
  }
}

/** As the pruner does: a few packs in a batch. */
async function prune(
  base: MemoryBase,
  world: World,
  unsealed: readonly Made[],
  policies: Policies,
  { packs, eager }: NonNullable<Planned['prune']>,
): Promise<void> {
  const survey = new Survey(0, policies, world.nowMs)
  for (const { doc } of unsealed) {
    for (const run of namedBy(doc)) survey.hold(run)
    for (const at of takenBy(doc)) survey.take(at.join())
  }
  for (const { n } of await base.live()) survey.add(n, base.docs.get(retentionKey.summary(n)) as PackSummary)
  survey.close()
  const ground: Ground = {
    shard: 0,
    nowMs: world.nowMs,
    policies,
    newest: (place) => world.newest.get(place),
    newer: (...of) => survey.newer(...of),
    isTaken: (seq) => survey.isTaken(seq),
    isLineage: (seq) => survey.isLineage(seq),
    isHeld: (run) => survey.isHeld(run),
  }
  const context: BatchContext = {
    base: base.base,
    snapshots: { dropOldest: async () => [] } as unknown as Snapshots,
    sweep: { put: () => new Map(), keep: () => undefined } as unknown as Sweep,
    waves: { onLog: () => [], leave: () => undefined },
    leaving: async () => undefined,
    shard: 0,
    survey,
    ground,
    cause: { why: 'policy', policy: '' },
    isEager: eager,
    looseFromMs: undefined,
    decode: (fact) => decodeFact({ ...fact, shard: 0 }),
    isThere: async () => true,
  }
  const left = [...survey.candidates]
  while (left.length > 0) {
    const batch = new Batch(context)
    for (const { n, seqs } of left.splice(0, packs)) {
      if (seqs) survey.countBehind(seqs[1])
      await batch.take(n, false, async () => undefined)
    }
    expect(batch.isFree).toBe(true)
    await batch.commit(world.nowMs, undefined)
  }
}

/** What the packs have that count. */
async function contentOf(base: MemoryBase) {
  const live = await base.live()
  const parts = live.flatMap(({ n, runs: all }) => all.map((part) => ({ n, part })))
  const whole = new Map(parts.flatMap(({ part }) => (runIn(part) ? [[part.run, runIn(part) as RunState]] : [])))
  const facts = parts.flatMap(({ part }) => part.facts.map(({ seq }) => seq))
  return { parts, whole, facts }
}

async function expectModel(
  base: MemoryBase,
  world: World,
  sealed: readonly Made[],
  before: ReadonlySet<string>,
  policy: RetentionSpec,
  isAll: boolean,
): Promise<void> {
  const { parts, whole, facts } = await contentOf(base)
  const there = new Set(facts)
  expect(facts).toHaveLength(there.size)
  const existing = world.made.filter(({ doc }) => before.has(doc.id)).map(({ doc }) => doc)
  const kept = world.made
    .map(({ doc }) => doc)
    .filter(({ id }) => whole.has(id) || !sealed.some(({ doc }) => doc.id === id))
  const [named, tookBefore] = [
    new Set(existing.flatMap(namedBy)),
    new Set(existing.flatMap(takenBy).map(([, seq]) => seq)),
  ]
  const newest = new Set(world.newest.values())
  for (const { doc, parts: own } of sealed) {
    const seqs = own.flatMap((part) => part.facts.map(({ seq }) => seq))
    const isYoung = (doc.finishedMs ?? 0) >= world.nowMs - (policy.runsMs ?? 0)
    if (before.has(doc.id) && (isYoung || named.has(doc.id))) expect(whole.has(doc.id)).toBe(true)
    else if (isAll && policy.keepLast === undefined) expect(whole.has(doc.id)).toBe(false)
    // Of one that is there nothing is missing; of another one nothing is left but values.
    const values = new Set(ownValues(doc).map(({ seq }) => seq))
    if (whole.has(doc.id)) expect(seqs.filter((seq) => !there.has(seq))).toEqual([])
    else {
      const left = seqs.filter((seq) => there.has(seq))
      expect(left.filter((seq) => !values.has(seq))).toEqual([])
      expect(base.find(indexHash.run(doc.id))).toEqual([])
      if (isAll) expect(left.filter((seq) => !newest.has(seq) && !tookBefore.has(seq))).toEqual([])
    }
    // The index finds all of it.
    const places = parts.filter(({ part }) => part.run === doc.id).map(({ n }) => n)
    expect(base.find(indexHash.run(doc.id))).toEqual(expect.arrayContaining(places))
    for (const seq of values)
      if (there.has(seq)) {
        const at = parts.find(({ part }) => part.facts.some((fact) => fact.seq === seq))?.n
        expect(base.find(indexHash.seq(seq))).toContain(at)
      }
  }
  // Reuse and verify: the newest values, and all that a run that is there took, have their facts.
  const needed = [...newest, ...kept.flatMap(takenBy).map(([, seq]) => seq)]
  const logged = new Set(
    world.made
      .filter((one) => !sealed.includes(one))
      .flatMap(({ parts: own }) => own.flatMap((part) => part.facts.map(({ seq }) => seq))),
  )
  expect(needed.filter((seq) => !there.has(seq) && !logged.has(seq))).toEqual([])
  // A key leads to its last attempt.
  for (const { retryOf } of kept) if (retryOf !== undefined) expect(kept.map(({ id }) => id)).toContain(retryOf)
  // Nothing is left without a document.
  for (const { part } of parts) if (!remainsIn(part)) expect(whole.has(part.run)).toBe(true)
  const records = [...base.docs].flatMap(([key, doc]) => (key.startsWith('pruned.') ? [doc as PruneRecord] : []))
  const gone = new Set(sealed.flatMap(({ parts: own }) => own.flatMap((part) => part.facts.map(({ seq }) => seq))))
  for (const seq of facts) gone.delete(seq)
  const recorded = records.flatMap(({ seqs }) =>
    seqs.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i)),
  )
  expect(recorded.toSorted((a, b) => a - b)).toEqual([...gone].toSorted((a, b) => a - b))
  expect(records.reduce((sum, record) => sum + record.runs, 0)).toBe(sealed.length - whole.size)
  for (const { part } of parts) {
    const remains = remainsIn(part)
    if (remains) expect(part.run).toBe(remainsOf(remains.run))
  }
}

describe('a history that is pruned at any point', () => {
  it('has what a model has: whole runs, newest and taken values, and records of all that left', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ given, policy }) => {
        const [base, world] = [new MemoryBase(), new World()]
        base.docs.set(stateKey.pipeline('p', 'v1'), pipeline)
        const policies = new Policies(policy, () => pipeline)
        let sealed = 0
        for (const one of given) {
          world.make(one)
          if (!one.prune) continue
          const to = Math.max(sealed, world.made.length - one.prune.unsealed)
          await base.seal(world.made.slice(sealed, to))
          sealed = to
          // Who is asked for it looks again, until nothing more goes.
          for (let isDone = false; !isDone; ) {
            const before = new Set((await contentOf(base)).whole.keys())
            for (const { doc } of world.made.slice(sealed)) before.add(doc.id)
            await prune(base, world, world.made.slice(sealed), policies, one.prune)
            const { whole } = await contentOf(base)
            const isAll = one.prune.eager && whole.size + world.made.length - sealed === before.size
            await expectModel(base, world, world.made.slice(0, sealed), before, policy, isAll)
            isDone = isAll || !one.prune.eager
          }
        }
      }),
      // A counterexample is made smaller for no longer than that.
      { ...runs(60), interruptAfterTimeLimit: 30_000 },
    )
  })
})
