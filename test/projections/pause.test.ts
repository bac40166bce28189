import { describe, expect, it } from 'vitest'
import { SEGMENT_INSTANCES } from '../../projections/scatter/bits.ts'
import { stateKey } from '../../projections/state.ts'
import { assetName } from '../../streams/ids.ts'
import {
  barrierOf,
  Docs,
  handBack,
  keyChunk,
  leasesOn,
  outcomes,
  paused,
  plainScatter,
  RETRY,
  RUN,
  resumed,
  type Sim,
  scattered,
  scatterRun,
  scatterStarted,
  sized,
  split,
  timerFired,
  workOff,
} from './harness.ts'

const all = (from: number, to: number) => Array.from({ length: to - from }, (_, k) => [from + k, 'ok'] as const)
const fed = (effects: readonly { do: string }[]) => effects.filter((effect) => effect.do === 'task').length

describe('a paused scatter', () => {
  it('tells workers, and feeds nothing while instances end and keys come; resumed it goes on', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 600))
    const out = leasesOn(sim)
    expect(sim.apply(paused())).toEqual([{ do: 'pause', run: barrierOf(sim).run, asset: 's' }])
    expect(out.length).toBeGreaterThan(5)
    for (const { lease, from, to } of out) expect(fed(sim.apply(outcomes(lease, all(from, to), { heldMs: 1 })))).toBe(0)
    sim.work.clear()
    expect(fed(sim.apply(keyChunk(600, 200)))).toBe(0)
    expect(fed(sim.apply(sized(800)))).toBe(0)
    expect(barrierOf(sim).paused).toMatchObject({ sinceMs: sim.nowMs })
    expect(fed(sim.apply(resumed()))).toBeGreaterThan(0)
    expect(barrierOf(sim).paused).toBeUndefined()
    workOff(sim, () => 'ok')
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed', succeeded: 800 } }])
  })

  it('takes back a lease that was not begun as a whole, at no attempt, and one that was begun without what is done', () => {
    const sim = scattered([8, 8], { retry: { ...RETRY, maxAttempts: 1 } })
    expect(leasesOn(sim).map(({ lease }) => lease)).toEqual(['0-8-1', '8-16-1'])
    sim.apply(paused())
    sim.work.clear()
    sim.apply(handBack('0-8-1', 0))
    sim.apply(handBack('8-16-1', 13))
    sim.apply(outcomes('8-16-1', all(8, 13)))
    expect(barrierOf(sim)).toMatchObject({ leases: {}, failed: 0, succeeded: 5 })
    sim.apply(resumed())
    expect(leasesOn(sim).map(({ attempt, ordinal }) => [attempt, ordinal])).toEqual(leasesOn(sim).map(() => [1, 2]))
    expect(leasesOn(sim).reduce((sum, { from, to }) => sum + to - from, 0)).toBe(11)
    workOff(sim, () => 'ok')
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed', succeeded: 16 } }])
  })

  it('keeps retries until it is resumed, with what is left of their wait', () => {
    const sim = scattered([2])
    sim.apply(paused())
    expect(
      fed(
        sim.apply(
          outcomes(
            '0-2-1',
            [
              [0, 'error'],
              [1, 'ok'],
            ],
            { heldMs: 1 },
          ),
        ),
      ),
    ).toBe(0)
    expect(barrierOf(sim).requeued).toMatchObject([{ from: 0, to: 1, failures: 1 }])
    sim.nowMs += 5000
    const [again] = sim.apply(resumed())
    expect(again).toMatchObject({ do: 'task', task: { lease: '0-1-2', attempt: 2 } })
    // Its wait was over long ago.
    expect(again).not.toHaveProperty('dueMs')
  })

  it('that has nothing more to do closes without being resumed, and can be paused and resumed twice over', () => {
    const sim = scattered([3])
    for (let k = 0; k < 2; k++) {
      sim.apply(paused())
      sim.apply(paused())
      sim.apply(resumed())
      sim.apply(resumed())
    }
    sim.apply(paused())
    sim.apply(outcomes('0-3-1', all(0, 3), { heldMs: 1 }))
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed' } }])
    expect(barrierOf(sim).paused).toBeUndefined()
    sim.apply(paused())
    expect(barrierOf(sim).paused).toBeUndefined()
  })

  it('feeds at once what comes back after it was resumed', () => {
    const sim = scattered([8])
    sim.apply(paused())
    sim.apply(resumed())
    expect(fed(sim.apply(handBack('0-8-1', 0)))).toBe(1)
    expect(leasesOn(sim).at(-1)).toMatchObject({ lease: '0-8-2', attempt: 1 })
  })

  it('keeps apart what goes on as a whole and what goes on one by one, over what is done between them', () => {
    const sim = scattered([8, 8])
    sim.apply(paused())
    sim.apply(handBack('0-8-1', 4))
    sim.apply(outcomes('0-8-1', all(0, 4)))
    sim.apply(outcomes('8-16-1', [[8, 'ok']]))
    sim.apply(split('8-16-1', 'returned'))
    sim.work.clear()
    sim.apply(resumed())
    const fedAgain = leasesOn(sim).flatMap(({ from, to }) => Array.from({ length: to - from }, (_, k) => from + k))
    expect(fedAgain).not.toContain(8)
    workOff(sim, () => 'ok')
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed', succeeded: 16 } }])
  })

  it('feeds no more after a pause than what lies in the documents that are loaded', () => {
    const sim = scattered([4000, 4000])
    sim.apply(paused())
    const barrier = barrierOf(sim)
    const behind = { keyChunk: 0, ordinal: 2, failures: 0 } as const
    const far = SEGMENT_INSTANCES + 5
    barrier.requeued = [
      ...[0, 10, 20, 30].map((from) => ({ ...behind, from, to: from + 2, unstarted: true as const })),
      // Its bits are in another segment than those of the first four. Reading them unloaded throws
      // here.
      { ...behind, from: far, to: far + 2 },
    ]
    barrier.window = 4096
    sim.docs.put(stateKey.barrier(RUN, 's'), barrier)
    sim.docs = new Docs(sim.docs.checkpoint())
    expect(fed(sim.apply(resumed()))).toBe(4)
    expect(barrierOf(sim).requeued).toHaveLength(1)
  })

  it('of a success that comes late out of what waits as a whole leases the rest around it', () => {
    const sim = scattered([8])
    sim.apply(paused())
    sim.apply(handBack('0-8-1', 0))
    sim.apply(outcomes('0-8-1', [[4, 'ok']]))
    sim.work.clear()
    sim.apply(resumed())
    expect(leasesOn(sim).map(({ lease }) => lease)).toEqual(['0-4-2', '5-8-2'])
    workOff(sim, () => 'ok')
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed', succeeded: 8 } }])
  })
})

describe('a lease of which a part is handed back', () => {
  const due = (sim: Sim): number[] =>
    barrierOf(sim).requeued.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, k) => from + k))
  const toEnd = (sim: Sim): void => {
    sim.work.clear()
    sim.apply(resumed())
    workOff(sim, () => 'ok')
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'completed', succeeded: 16 } }])
  }

  it('leaves out what is done, what waits for a retry, and what is leased by itself', () => {
    const sim = scattered([8, 8])
    sim.apply(
      outcomes('0-8-1', [
        [4, 'error'],
        [5, 'ok'],
        [6, 'now'],
      ]),
    )
    expect(Object.keys(barrierOf(sim).leases)).toEqual(['0-8-1', '8-16-1', '4-5-2', '6-7-2'])
    sim.apply(paused())
    sim.apply(handBack('0-8-1', 3))
    expect(due(sim)).toEqual([3, 7])
    expect(barrierOf(sim).leases['0-8-1']).toMatchObject({ left: 3, to: 3 })
    sim.apply(outcomes('0-8-1', all(0, 3)))
    for (const lease of ['4-5-2', '6-7-2']) sim.apply(outcomes(lease, all(Number(lease[0]), Number(lease[2]))))
    sim.apply(outcomes('8-16-1', all(8, 16)))
    expect(barrierOf(sim)).toMatchObject({ leases: {}, saturated: 0 })
    toEnd(sim)
  })

  it('leaves out what waits at a gate', () => {
    const sim = scattered([8, 8])
    const ids = { run: RUN, asset: assetName('s'), gate: 'i5a1n1' }
    const gate = { kind: 'signal', attempt: 1, index: 5, keyChunk: 0, worker: 'w', keyId: 'k', tokenHash: 'h' } as const
    sim.apply({ name: 'gate.created', ids, data: { ...gate, retriesMs: [], afterRetries: 'fail' } })
    const draft = outcomes('0-8-1', [[5, 'ok']])
    sim.apply({ ...draft, data: { ...draft.data, suspended: [[0, 'i5a1n1']] } })
    sim.apply(paused())
    sim.apply(handBack('0-8-1', 3))
    expect(due(sim)).toEqual([3, 4, 6, 7])
    expect(barrierOf(sim)).toMatchObject({ suspended: 1, leases: { '0-8-1': { left: 3 } } })
  })

  it('takes no word that comes after one that handed back more, and counts as kept once', () => {
    const sim = scattered([8, 8])
    sim.apply(paused())
    sim.apply(handBack('0-8-1', 6))
    sim.apply(handBack('0-8-1', 3))
    expect(barrierOf(sim)).toMatchObject({ saturated: 1, leases: { '0-8-1': { left: 3, to: 3 } } })
    const before = structuredClone(barrierOf(sim).requeued)
    sim.apply(handBack('0-8-1', 5))
    // Nor one that means another lease.
    sim.apply(handBack('8-16-1', 7))
    expect(barrierOf(sim).leases).toMatchObject({ '0-8-1': { left: 3, to: 3 }, '8-16-1': { left: 8 } })
    expect(barrierOf(sim).leases['8-16-1']).not.toHaveProperty('to')
    expect(barrierOf(sim).requeued).toEqual(before)
    sim.apply(outcomes('0-8-1', all(0, 3)))
    sim.apply(outcomes('8-16-1', all(8, 16)))
    expect(barrierOf(sim)).toMatchObject({ leases: {}, saturated: 0 })
    toEnd(sim)
  })
})

describe('the time limit of a whole scatter', () => {
  const limited = { scatter: { ...plainScatter, totalTimeoutMs: 5000 } }

  it('is a timer of the server from its start on, which closes it as failed', () => {
    const sim = scattered([4], limited)
    const { startedMs } = barrierOf(sim)
    expect(sim.timers).toEqual([{ fact: timerFired(5000), dueMs: startedMs + 5000 }])
    sim.apply(outcomes('0-4-1', [[0, 'ok']]))
    sim.apply(timerFired(5000), startedMs + 5000)
    const message = 'the scatter ran longer than its totalTimeout of 5000 ms; 1 of 4 instances were done'
    expect(sim.facts('scatter.closed')).toMatchObject([
      { data: { status: 'failed', succeeded: 1, failed: 0, error: { code: 'timeout', message } } },
    ])
    expect(sim.facts('asset.failed')).toMatchObject([{ data: { error: { code: 'timeout' } } }])
  })

  it('holds also while its scatter function still gives keys, and while it is paused', () => {
    const sim = scatterRun(limited)
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 10))
    sim.apply(paused())
    sim.apply(timerFired(5000))
    expect(sim.facts('scatter.closed')).toMatchObject([{ data: { status: 'failed', error: { code: 'timeout' } } }])
    expect(sim.facts('scatter.closed')[0]?.data.error?.message).toContain('0 of 10 or more instances')
  })

  it('is nothing to a scatter that is closed, whose end takes the timer away', () => {
    const sim = scattered([1], limited)
    const effects = sim.apply(outcomes('0-1-1', [[0, 'ok']], { heldMs: 1 }))
    expect(effects).toMatchObject([{ do: 'fact', fact: { name: 'scatter.closed' }, stops: timerFired(5000) }])
    expect(sim.apply(timerFired(5000))).toEqual([])
    expect(barrierOf(sim).status).toBe('completed')
  })
})
