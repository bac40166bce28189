import { describe, expect, it } from 'vitest'
import { type GateState, stateKey } from '../../projections/state.ts'
import { assetName, type RunId, runId } from '../../streams/ids.ts'
import type { AttemptTask } from '../../streams/tasks.ts'
import {
  cancel,
  Docs,
  type DraftOf,
  errored,
  foldOne,
  materialized,
  printed,
  RUN,
  registered,
  requested,
  Sim,
  spec,
} from './harness.ts'

const CHILD = runId(0, 'child')
const OTHER = runId(0, 'other')
const at = (run: RunId, gate = 'a1n1') => ({ run, asset: assetName('parent'), gate })

function asked(run: RunId = RUN): DraftOf<'child.requested'> {
  const request = { ...requested('made').data, parent: at(run) }
  return { name: 'child.requested', ids: at(run), data: { attempt: 1, worker: 'w', child: CHILD, request } }
}

function suspended(run: RunId = RUN): DraftOf<'asset.suspended'> {
  const ids = { pipeline: 'p', run, asset: assetName('parent'), attempt: '1' }
  return { name: 'asset.suspended', ids, data: { gate: 'a1n1', worker: 'w' } }
}

/** A run of `parent`, which waits for a run of `made`. */
function waiting(): Sim {
  const sim = new Sim()
  sim.apply(registered([spec('parent', { onRun: true }), spec('made')]))
  sim.apply(requested('parent'))
  sim.apply(asked())
  sim.apply(suspended())
  return sim
}

const gateOf = (sim: Sim, run: RunId = RUN): GateState | undefined =>
  sim.docs.peek(stateKey.gates({ run, asset: 'parent', gate: 'a1n1' }))?.gates.a1n1
const marks = (sim: Sim): string[] => [...sim.docs.checkpoint().keys()].filter((key) => key.startsWith('child.'))

/** Folded again from nothing, it is the same. */
function expectReplays(sim: Sim): void {
  const again = new Docs()
  for (const fact of sim.log) foldOne(again, fact)
  expect(printed(again.checkpoint())).toEqual(printed(sim.docs.checkpoint()))
}

describe('a run that an asset waits for', () => {
  it('is requested when its gate is folded, and the asset goes on with its end', () => {
    const sim = waiting()
    expect(sim.facts('run.requested').map(({ ids }) => ids.run)).toEqual([RUN, CHILD])
    expect(sim.run(CHILD)).toMatchObject({ parent: at(RUN), waiters: [at(RUN)] })
    expect(sim.run(RUN).assets.parent).toMatchObject({ status: 'suspended', gate: 'a1n1', child: CHILD })
    expect(marks(sim)).toHaveLength(1)
    sim.apply(materialized('made', CHILD))
    expect(sim.run(CHILD)).toMatchObject({ status: 'succeeded' })
    expect(sim.run(CHILD).waiters).toBeUndefined()
    expect(sim.facts('gate.resolved')[0]?.data.child).toMatchObject({ status: 'succeeded' })
    expect(sim.run(RUN).assets.parent).toMatchObject({ status: 'queued', phase: 'signal', attempt: 2 })
    expect(sim.run(RUN).assets.parent?.child).toBeUndefined()
    expect(marks(sim)).toEqual([])
    const task = sim.work.get(`${RUN}.parent.2`)?.task as AttemptTask
    expect(task).toMatchObject({ kind: 'signal', from: { gate: 'a1n1' } })
    expectReplays(sim)
  })

  it('fails the asset with its error, whatever attempts are left', () => {
    const sim = waiting()
    const ended = errored('made', 1, { outcome: 'terminal', error: { code: 'boom', message: 'no paper' } })
    sim.apply({ ...ended, ids: { ...ended.ids, run: CHILD } })
    expect(sim.run(RUN)).toMatchObject({ status: 'failed', error: { code: 'child_failed', cause: { code: 'boom' } } })
    expect(sim.run(RUN).error?.message).toBe(`run ${CHILD} of p/made, which it waited for, failed at made: no paper`)
    expect(sim.run(RUN).assets.parent?.attempt).toBe(1)
    expectReplays(sim)
  })

  it('is cancelled with the run that started it, and not before it was requested', () => {
    const sim = waiting()
    sim.apply(cancel('not needed'))
    expect(gateOf(sim)).toMatchObject({ status: 'cancelled' })
    expect(sim.facts('run.abandoned')).toHaveLength(1)
    expect(sim.run(CHILD)).toMatchObject({ status: 'cancelled' })
    expect(sim.run(RUN)).toMatchObject({ status: 'cancelled' })
    expectReplays(sim)
  })

  it('is not requested for an attempt that was given up', () => {
    const sim = new Sim()
    sim.apply(registered([spec('parent'), spec('made')]))
    sim.apply(requested('parent'))
    sim.apply(errored('parent', 1))
    sim.apply(asked())
    expect(sim.facts('run.requested')).toHaveLength(1)
    expect(sim.facts('run.abandoned')).toHaveLength(0)
    expect(gateOf(sim)).toMatchObject({ status: 'cancelled' })
    expectReplays(sim)
  })

  it('wakes all that wait for it, goes on while one does, and wakes who comes after its end', () => {
    const sim = waiting()
    sim.apply(requested('parent', { run: OTHER }))
    sim.apply(asked(OTHER))
    sim.apply(suspended(OTHER))
    expect(sim.run(CHILD).waiters).toEqual([at(RUN), at(OTHER)])
    sim.apply(cancel())
    expect(sim.run(CHILD)).toMatchObject({ status: 'running', waiters: [at(OTHER)] })
    sim.apply(materialized('made', CHILD))
    expect(sim.run(OTHER).assets.parent).toMatchObject({ status: 'queued', phase: 'signal' })
    const late = runId(0, 'late')
    sim.apply(requested('parent', { run: late }))
    sim.apply(asked(late))
    expect(gateOf(sim, late)).toMatchObject({ status: 'signaled', child: { end: { status: 'succeeded' } } })
    sim.apply(suspended(late))
    expect(sim.run(late).assets.parent).toMatchObject({ status: 'queued', phase: 'signal' })
    expectReplays(sim)
  })

  it('that somebody else started goes on when nobody waits for it any more', () => {
    const sim = new Sim()
    sim.apply(registered([spec('parent'), spec('made')]))
    sim.apply(requested('made', { run: CHILD }))
    sim.apply(requested('parent'))
    sim.apply(asked())
    sim.apply(suspended())
    sim.apply(cancel())
    expect(sim.facts('run.abandoned')).toHaveLength(1)
    expect(sim.run(CHILD)).toMatchObject({ status: 'running' })
    expectReplays(sim)
  })

  it('is started and ended once, wherever an engine dies', () => {
    for (const back of [0, 1]) {
      const sim = waiting()
      sim.checkpoint()
      sim.apply(materialized('made', CHILD))
      sim.crash(back, true)
      sim.settle()
      expect(sim.facts('run.requested')).toHaveLength(2)
      expect(sim.facts('gate.resolved')).toHaveLength(1)
      expect(sim.run(RUN).assets.parent).toMatchObject({ phase: 'signal', attempt: 2 })
    }
  })
})
