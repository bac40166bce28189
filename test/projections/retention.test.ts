import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Ground, isExpired, keptSeqs, Ranks, remainsFor, stillLeft } from '../../projections/retention/judge.ts'
import { Policies } from '../../projections/retention/policy.ts'
import { dueOf, ownValues, placeOf, remainsIn, runIn, summaryOf, takenBy } from '../../projections/retention/summary.ts'
import { type AssetInRun, type RunState, stateKey } from '../../projections/state.ts'
import { encodeFact, factPath } from '../../streams/facts.ts'
import type { SealedFact, SealedRun } from '../../streams/history.ts'
import { runId } from '../../streams/ids.ts'
import { addToRanges, isInRanges, type RetentionSpec } from '../../streams/retention.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { runs as runsOf } from '../kit/runs.ts'
import { spec } from './harness.ts'

const DAY = 86_400_000
const pipeline: PipelineSpec = {
  name: 'p',
  version: 'v1',
  assets: [spec('a'), spec('b', { dependsOn: ['a'] })],
} as PipelineSpec

/** One run: its partition and end, whether it took the newest `a`, and how much later it came. */
const planned = fc.record({
  partition: fc.constantFrom('x', 'y'),
  failed: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
  takes: fc.boolean(),
  afterMs: fc.integer({ min: 1, max: 3 * DAY }),
})
const scenario = fc.record({
  runs: fc.array(planned, { minLength: 1, maxLength: 40 }),
  cuts: fc.array(fc.integer({ min: 0, max: 60 * DAY }), { minLength: 1, maxLength: 4 }),
  policy: fc.record(
    {
      runsMs: fc.integer({ min: 1, max: 20 * DAY }),
      failedMs: fc.integer({ min: 1, max: 20 * DAY }),
      keepLast: fc.integer({ min: 1, max: 4 }),
    },
    { requiredKeys: [] },
  ) as fc.Arbitrary<RetentionSpec>,
})

interface Made {
  readonly sealed: SealedRun
  readonly doc: RunState
}

/** Runs as packs hold them, the oldest first. */
function history(given: readonly (typeof planned extends fc.Arbitrary<infer P> ? P : never)[]): Made[] {
  let [nowMs, seq] = [0, 0]
  const newest = new Map<string, number>()
  return given.map(({ partition, failed, takes, afterMs }, i) => {
    nowMs += afterMs
    const id = runId(0, `r${i}`)
    const facts: SealedFact[] = []
    const assets: Record<string, AssetInRun> = {}
    const make = (asset: string): void => {
      seq += 1
      const ids = { pipeline: 'p', asset, run: id }
      const data = { ...ids, attempt: 1, worker: 'w', value: { json: seq }, fingerprint: `f${seq}`, durationMs: 1 }
      const draft = { name: 'asset.materialized', ids, data } as unknown as Parameters<typeof encodeFact>[0]
      facts.push({ path: factPath('asset.materialized', ids), seq, timeMs: nowMs, ...encodeFact(draft) })
      assets[asset] = {
        status: 'materialized',
        phase: 'execute',
        attempt: 1,
        failures: 0,
        value: { shard: 0, seq },
        hash: `h${seq}`,
      }
      newest.set(`${asset} ${partition}`, seq)
    }
    const known = newest.get(`a ${partition}`)
    if (takes && known !== undefined)
      assets.a = {
        status: 'reused',
        phase: 'execute',
        attempt: 0,
        failures: 0,
        value: { shard: 0, seq: known },
        hash: `h${known}`,
      }
    else make('a')
    if (failed) assets.b = { status: 'failed', phase: 'execute', attempt: 1, failures: 1 }
    else make('b')
    const doc = {
      seq,
      id,
      pipeline: 'p',
      version: 'v1',
      target: 'b',
      upstream: 'all',
      partition,
      status: failed ? 'failed' : 'succeeded',
      requestedMs: nowMs,
      finishedMs: nowMs,
      assets,
    } as RunState
    return { sealed: { run: id, docs: { [stateKey.run(id)]: doc }, facts }, doc }
  })
}

/** Prunes a pack, as the engine does. */
function prune(
  pack: readonly SealedRun[],
  policies: Policies,
  nowMs: number,
  newest: ReadonlyMap<string, number>,
): SealedRun[] {
  const summary = summaryOf(pack, 1)
  const [taken, lineage] = [summary.took ?? [], summary.lineage ?? []].map((all) => new Set(all.map(([, seq]) => seq)))
  const ground: Ground = {
    shard: 0,
    nowMs,
    policies,
    newest: (place) => newest.get(place),
    newer: () => 0,
    isTaken: (seq) => taken?.has(seq) ?? false,
    isLineage: (seq) => (lineage?.has(seq) || taken?.has(seq)) ?? false,
    isHeld: () => false,
  }
  const ranks = new Ranks(pack)
  return pack.flatMap((sealed) => {
    const remains = remainsIn(sealed)
    if (remains) return stillLeft(sealed, remains, ground) ?? []
    const run = runIn(sealed)
    if (!run || !isExpired(run, ground, ranks)) return sealed
    const facts = new Map(sealed.facts.map((fact) => [fact.seq, fact]))
    const left = remainsFor(run, ground, facts, pipeline, () => 'f')
    expect(new Set(left?.facts.map(({ seq }) => seq))).toEqual(keptSeqs(run, ground))
    return left ?? []
  })
}

describe('runs that are pruned at any time', () => {
  it('leave the newest values, what kept runs took, and where values came from', () => {
    fc.assert(
      fc.property(scenario, ({ runs, cuts, policy }) => {
        const made = history(runs)
        const newest = new Map<string, number>()
        for (const { doc } of made)
          for (const { asset, seq } of ownValues(doc)) newest.set(placeOf('p', asset, doc.partition), seq)
        const policies = new Policies(policy, () => pipeline)
        let pack: SealedRun[] = made.map(({ sealed }) => sealed)
        for (const nowMs of cuts.toSorted((a, b) => a - b)) {
          pack = prune(pack, policies, nowMs, newest)
          expectModel({ made, pack, policy, nowMs, newest })
          // What a summary says is what is there: nothing that is due is missed.
          const kept = pack.flatMap((sealed) => runIn(sealed) ?? [])
          if (dueOf(summaryOf(pack, 1), policies, nowMs).due === 0)
            for (const { finishedMs = 0, status } of kept)
              expect(finishedMs).toBeGreaterThanOrEqual(policies.keptFromMs('p', 'b', status === 'failed', nowMs) ?? 0)
        }
      }),
      runsOf(200),
    )
  })
})

function expectModel({
  made,
  pack,
  policy,
  nowMs,
  newest,
}: {
  readonly made: readonly Made[]
  readonly pack: readonly SealedRun[]
  readonly policy: RetentionSpec
  readonly nowMs: number
  readonly newest: ReadonlyMap<string, number>
}): void {
  const whole = new Set(pack.flatMap((sealed) => runIn(sealed)?.id ?? []))
  const facts = new Map(pack.flatMap((sealed) => sealed.facts).map((fact) => [fact.seq, fact]))
  for (const seq of newest.values()) expect(facts.has(seq)).toBe(true)
  const { runsMs, failedMs = runsMs, keepLast = 0 } = policy
  for (const { doc, sealed } of made) {
    const age = doc.status === 'failed' ? failedMs : runsMs
    const isYoung = age === undefined ? keepLast === 0 || doc.status === 'failed' : (doc.finishedMs ?? 0) >= nowMs - age
    const isLast = ownValues(doc).some(({ asset, seq }) => rank(made, doc, asset, seq) < keepLast)
    // A run that is kept is kept whole, with all that it took.
    if (isYoung || isLast) expect(whole.has(doc.id)).toBe(true)
    else if (keepLast === 0) expect(whole.has(doc.id)).toBe(false)
    if (!whole.has(doc.id)) continue
    for (const { seq } of sealed.facts) expect(facts.has(seq)).toBe(true)
    for (const [, seq] of takenBy(doc)) expect(facts.has(seq)).toBe(true)
  }
  // Of each value that lives on it is known what it was made from.
  const remains = new Map(pack.flatMap((sealed) => remainsIn(sealed) ?? []).map((one) => [one.run, one] as const))
  for (const one of remains.values())
    for (const value of one.values.filter(({ isKept, asset }) => isKept && asset === 'b')) {
      expect(value).toMatchObject({ from: ['a'], hash: `h${value.seq}` })
      const from = one.values.find(({ asset }) => asset === 'a')
      expect(from).toMatchObject({ hash: `h${from?.seq}` })
    }
}

/** How many newer values of an asset and partition were made. */
function rank(made: readonly Made[], { partition }: RunState, asset: string, seq: number): number {
  return made.flatMap(({ doc }) =>
    doc.partition === partition ? ownValues(doc).filter((value) => value.asset === asset && value.seq > seq) : [],
  ).length
}

describe('ranges of numbers', () => {
  it('have the numbers that were added, and no others', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(60))), (added) => {
        const ranges = added.reduce((all, some) => addToRanges(all, some), addToRanges([], []))
        const wanted = new Set(added.flat())
        for (let n = 0; n <= 61; n++) expect(isInRanges(ranges, n)).toBe(wanted.has(n))
        for (const [i, [from]] of ranges.entries())
          if (i > 0) expect(from).toBeGreaterThan((ranges[i - 1]?.[1] ?? 0) + 1)
      }),
      runsOf(200),
    )
  })
})

describe('a policy', () => {
  const asset = { ...spec('a'), retention: { runsMs: 5 } }
  const of = (namespace: RetentionSpec, own: RetentionSpec = {}): Policies =>
    new Policies(namespace, () => ({ assets: [asset, spec('b')], retention: own }))

  it('counts field by field, from the asset over the pipeline to the namespace', () => {
    const policies = of({ runsMs: 1, failedMs: 2, keepLast: 3 }, { runsMs: 4 })
    expect(policies.ageMs('p', 'a', false)).toBe(5)
    expect(policies.ageMs('p', 'b', false)).toBe(4)
    expect(policies.ageMs('p', 'b', true)).toBe(2)
    expect(policies.keepLast('p', 'b')).toBe(3)
    expect(of({ runsMs: 0 }).keptFromMs('p', 'b', true, 100)).toBeUndefined()
  })
})
