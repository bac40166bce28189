import { describe, expect, it } from 'vitest'
import type { DraftOf } from '../../streams/facts.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import {
  errored,
  materialized,
  plainScatter,
  RUN,
  registered,
  requested,
  Sim,
  scatterStarted,
  spec,
} from './harness.ts'

const wish = (version = 'v2'): DraftOf<'run.adopt_requested'> => ({
  name: 'run.adopt_requested',
  ids: { run: RUN },
  data: { version },
})

/** A run of the last asset in version 1; version 2 is registered too. */
function begun(v1: AssetSpec[], v2: AssetSpec[], upstream: 'all' | 'none' = 'all'): Sim {
  const sim = new Sim()
  sim.apply(registered(v1))
  sim.apply(registered(v2, 'p', 'v2'))
  sim.apply(requested(v1.at(-1)?.name ?? '', { upstream }))
  return sim
}

const answer = (sim: Sim): unknown => {
  sim.settle()
  return [...sim.facts('run.adopted'), ...sim.facts('run.adopt_refused')].at(-1)?.data
}
const tasks = (sim: Sim): unknown[] =>
  [...sim.work.values()].map(({ task, queue }) => [task.asset, task.version, queue, Object.keys(task.deps)])

describe('a run that goes on with another version', () => {
  it('plans anew what has not begun, and makes dependencies that it lacks', () => {
    const sim = begun(
      [spec('a'), spec('t', { dependsOn: ['a'] })],
      [spec('a'), spec('b'), spec('t', { dependsOn: ['a', 'b'] })],
    )
    sim.apply(materialized('a'))
    expect(sim.run(RUN).assets.t).toMatchObject({ status: 'queued', attempt: 1, chained: 'a' })
    sim.apply(wish())
    expect(answer(sim)).toEqual({ version: 'v2', from: 'v1', replanned: { t: 2 }, added: ['b'] })
    expect(tasks(sim).at(-1)).toEqual(['b', 'v2', 'default', []])
    // What the old attempt still reports is not the current one.
    sim.apply(errored('t', 1))
    expect(sim.run(RUN).assets.t).toMatchObject({ status: 'waiting', failures: 0 })
    sim.apply(materialized('b'))
    expect(sim.run(RUN).assets.t).toMatchObject({ status: 'queued', attempt: 3, chained: 'b' })
    sim.apply(materialized('t', RUN, 3))
    sim.settle()
    expect(sim.run(RUN).status).toBe('succeeded')
  })

  it('begins at once what needs nothing any more', () => {
    const sim = begun([spec('a'), spec('t', { dependsOn: ['a'] })], [spec('a'), spec('t')])
    sim.apply(wish())
    expect(tasks(sim)).toContainEqual(['t', 'v2', 'default', []])
  })

  it('enqueues on another queue what waits there', () => {
    const sim = begun([spec('t')], [spec('t', { queue: 'fast' })])
    sim.apply(wish())
    expect(answer(sim)).toMatchObject({ replanned: { t: 2 } })
    expect(tasks(sim).at(-1)).toEqual(['t', 'v2', 'fast', []])
  })

  it('is the same when it is asked for twice', () => {
    const sim = begun([spec('t')], [spec('t', { codeVersion: '2', shape: 'two' })])
    sim.apply(wish())
    sim.apply(wish())
    expect(answer(sim)).toMatchObject({ version: 'v2', from: 'v2', replanned: { t: 2 } })
    expect(sim.run(RUN).assets.t?.attempt).toBe(3)
  })

  it.each<[string, () => Sim, RegExp]>([
    ['of a version that is not registered', () => begun([spec('t')], []), /version v3 .* not registered/],
    ['that lacks an open asset', () => begun([spec('t')], [spec('u')]), /t is queued, and the new version has no such/],
    [
      'that needs what the run may not make',
      () => begun([spec('t')], [spec('b'), spec('t', { dependsOn: ['b'] })], 'none'),
      /t needs b, which the run may not make/,
    ],
    [
      'with another scatter than the one that is open',
      () => {
        const sim = begun([spec('t', { scatter: plainScatter })], [spec('t')])
        sim.apply(scatterStarted('t'))
        return sim
      },
      /t has begun \(running\), and differs in kind \(scatter → plain\)/,
    ],
    [
      'with another maxConcurrent than that of an open scatter',
      () => {
        const sim = begun(
          [spec('t', { scatter: { ...plainScatter, maxConcurrent: 2 } })],
          [spec('t', { scatter: { ...plainScatter, maxConcurrent: 3 } })],
        )
        sim.apply(scatterStarted('t'))
        return sim
      },
      /maxConcurrent \(2 → 3\)/,
    ],
  ])('is refused %s', (_, make, why) => {
    const sim = make()
    sim.apply(wish(why.source.includes('v3') ? 'v3' : 'v2'))
    expect(answer(sim)).toMatchObject({ misfits: [expect.stringMatching(why)] })
    expect(sim.run(RUN).version).toBe('v1')
  })
})
