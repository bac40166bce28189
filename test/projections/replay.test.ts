import { describe, expect, it } from 'vitest'
import {
  type Bucket,
  cancel,
  Docs,
  errored,
  foldOne,
  keyChunk,
  leasesOn,
  materialized,
  outcomes,
  plainScatter,
  printed,
  registered,
  requested,
  Sim,
  scatterStarted,
  sized,
  spec,
  split,
  startedAttempt,
  workOff,
} from './harness.ts'

/** Logs of some length with something of everything in them. */
const logs: Record<string, () => Sim> = {
  'a diamond with a scatter in it, retries and a lost lease': () => {
    const sim = new Sim()
    const assets = [
      spec('a'),
      spec('s', { scatter: plainScatter, dependsOn: ['a'] }),
      spec('b', { dependsOn: ['a'] }),
      spec('t', { dependsOn: ['s', 'b'] }),
    ]
    sim.apply(registered(assets))
    sim.apply(requested('t', { partition: '2024-01-01' }))
    sim.apply(startedAttempt('a', 1))
    sim.apply(errored('a', 1))
    sim.apply(materialized('a', undefined, 2))
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 30))
    sim.apply(errored('b', 1, { outcome: 'returned' }))
    sim.apply(keyChunk(30, 12))
    const lease = leasesOn(sim)[0]?.lease ?? ''
    sim.apply(
      outcomes(lease, [
        [0, 'ok'],
        [3, 'error'],
      ]),
    )
    sim.apply(split(lease, 'lost'))
    sim.work.delete(`0-r1.s.${lease}`)
    sim.apply(
      outcomes(
        lease,
        [
          [1, 'ok'],
          [2, 'error'],
        ],
        { heldMs: 3 },
      ),
    )
    sim.apply(sized(42))
    workOff(sim, (index, task) => (index % 7 === 0 && task.attempt < 3 ? 'error' : 'ok'))
    sim.apply(materialized('b', undefined, 2))
    sim.apply(materialized('s', undefined, 2))
    sim.apply(materialized('t'))
    return sim
  },
  'a scatter that is cancelled, and what comes after': () => {
    const sim = new Sim()
    sim.apply(registered([spec('s', { scatter: plainScatter }), spec('t', { dependsOn: ['s'] })]))
    sim.apply(requested('t'))
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 30))
    sim.apply(keyChunk(30, 30))
    sim.apply(sized(60))
    const [first, second] = leasesOn(sim)
    sim.apply(
      outcomes(first?.lease ?? '', [
        [0, 'error'],
        [1, 'ok'],
      ]),
    )
    sim.append(cancel('enough'))
    // These stand on the log before the engine's decision on the cancel does.
    sim.append(outcomes(first?.lease ?? '', [[2, 'ok']]))
    sim.append(split(second?.lease ?? '', 'returned'))
    sim.settle()
    return sim
  },
  'a scatter function that gives up while its instances run': () => {
    const sim = new Sim()
    sim.apply(registered([spec('s', { scatter: plainScatter }), spec('t', { dependsOn: ['s'] })]))
    sim.apply(requested('t'))
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 60))
    sim.append(errored('s', 1, { phase: 'scatter', outcome: 'terminal' }))
    for (const { lease, from } of leasesOn(sim)) sim.append(outcomes(lease, [[from, 'ok']]))
    sim.settle()
    for (const { lease, from } of leasesOn(sim)) sim.append(outcomes(lease, [[from + 1, 'ok']]))
    sim.settle()
    return sim
  },
}

describe.each(Object.entries(logs))('the log of %s', (_, build) => {
  it('gives the same documents and the same decisions from whatever checkpoint one goes on', () => {
    const sim = build()
    const buckets: Bucket[] = [new Map()]
    const whole = new Docs()
    for (const fact of sim.log) {
      expect(foldOne(whole, fact)).toEqual(sim.issued.get(fact.seq))
      buckets.push(whole.checkpoint())
      whole.assertWritten()
    }
    for (const [k, bucket] of buckets.entries()) {
      const docs = new Docs(bucket)
      for (const fact of sim.log.slice(k)) {
        expect(foldOne(docs, fact), `fact ${fact.seq} ${fact.name} after a start at ${k}`).toEqual(
          sim.issued.get(fact.seq),
        )
      }
      expect(printed(docs.checkpoint()), `started at ${k}`).toEqual(printed(whole.checkpoint()))
    }
  })

  it('gives the same documents when checkpoints lag', () => {
    const sim = build()
    for (const every of [2, 5, 11]) {
      let docs = new Docs()
      let bucket: Bucket = new Map()
      for (const fact of sim.log) {
        foldOne(docs, fact)
        if (fact.seq % every === 0) {
          bucket = docs.checkpoint()
          docs = new Docs(bucket)
        }
      }
      const straight = new Docs()
      for (const fact of sim.log) foldOne(straight, fact)
      expect(printed(docs.checkpoint())).toEqual(printed(straight.checkpoint()))
    }
  })
})
