/**
 * Appends that an engine takes for stored and that are not there: the start of runs that others
 * wait for, and their wake-ups. The next engine finds who waits in vain.
 */
import { expect, it } from 'vitest'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { childKills, parent, parents, STEPS } from './programs/parents.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const WAITING = 1 + STEPS.length

async function losingEngine(rig: Rig, pattern: string): Promise<Child> {
  return await rig.start('engine', {}, { KILL_AT: `lose ${pattern}` })
}

const repairedBy = (engine: Child): unknown[] => engine.of('engine.repaired').flatMap(({ gates }) => gates)

it('executions whose runs were never started, and whose wake-ups were lost, are found by the next engine', async () => {
  await using rig = await startRig({ shards: 2 })
  const { flow } = rig
  const first = await losingEngine(rig, 'run[.].*[.]requested .*"parent":')
  await rig.start('worker', {}, { KILL_CHILDREN: '1' })
  const plain = await flow.materialize(parent, { partition: 'plain', pipeline: childKills })
  const many = await flow.materialize(parents, { pipeline: childKills })
  await until('all wait', async () => {
    const isOne = (await plain.view())?.assets.parent?.waitsForRun !== undefined
    return isOne && (await rig.barrier(many, 'parents'))?.suspended === STEPS.length
  })
  await first.stop()
  expect(await flow.runs()).toHaveLength(2)

  const second = await losingEngine(rig, 'gate[.].*[.]resolved')
  const ended = async (): Promise<number> => (await flow.runs()).filter(({ finishedAt }) => finishedAt).length
  await until('the runs are started, and have ended', async () => (await ended()) === WAITING)
  await second.stop()
  expect(new Set(repairedBy(second)).size).toBe(WAITING)
  expect(await flow.runs({ open: true })).toHaveLength(2)

  const third = await rig.engine()
  const values = await Promise.all([plain, many].map((run) => run.result({ signal: within(30_000) })))
  expect(values).toEqual(['made for plain', STEPS.map((key) => ({ key, value: `made for ${key}` }))])
  expect(new Set(repairedBy(third))).toEqual(new Set(repairedBy(second)))
  const facts = (await Promise.all([plain, many].map(({ id }) => collect(flow.history(id))))).flat()
  expect(facts.filter(({ kind }) => kind === 'gate.resolved')).toHaveLength(WAITING)
  await until('no run is open', async () => (await flow.runs({ open: true })).length === 0)
  expect(await flow.runs()).toHaveLength(2 + WAITING)
  await rig.expectStateIsFold()
})
