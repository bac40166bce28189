/**
 * Runs that assets and instances wait for, at every step, and one process after the other that is
 * killed and started again just then.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { childKills, parent, parents, STEPS } from './programs/parents.ts'
import { startRig } from './rig.ts'

describe('runs that others wait for, at every step', () => {
  it.each(['nats-server', 'engine', 'worker'])('outlive a kill of the %s', async (what) => {
    await using rig = await startRig({ killsServer: true, shards: 2 })
    const hold = `${rig.notes}.hold`
    writeFileSync(hold, '')
    const env = { KILL_CHILDREN: '1', KILL_HOLD: hold }
    const engine = await rig.engine()
    const worker = await rig.start('worker', {}, env)
    const { flow } = rig
    const plain = await Promise.all(
      STEPS.map((partition) => flow.materialize(parent, { partition, pipeline: childKills })),
    )
    const many = await flow.materialize(parents, { pipeline: childKills })
    await until('all are at their step', () =>
      STEPS.every((step) => rig.noted().filter((line) => line === `${step} ${step}`).length === 2),
    )
    if (what === 'nats-server') {
      await rig.killServer()
      await rig.startServer()
    } else if (what === 'engine') {
      // What is appended meanwhile is folded by the next one.
      engine.signal('SIGSTOP')
      rmSync(hold)
      await until('those that asked wait', async () => {
        const facts = await Promise.all([...plain, many].map(({ id }) => collect(flow.history(id))))
        return facts.flat().filter(({ kind }) => kind === 'child.requested').length === 2 * STEPS.length
      })
      await engine.kill()
      await rig.engine()
    } else {
      await worker.kill()
      await rig.start('worker', {}, env)
    }
    rmSync(hold, { force: true })
    const results = [...plain, many].map((run) => run.result({ signal: within(20_000) }))
    const values = await Promise.all(results)
    const wanted = STEPS.map((step) => `made for ${step}`)
    expect(values.slice(0, -1)).toEqual(wanted)
    expect(values.at(-1)).toEqual(STEPS.map((key, i) => ({ key, value: wanted[i] })))
    const facts = (await Promise.all([...plain, many].map(({ id }) => collect(flow.history(id))))).flat()
    for (const kind of ['child.requested', 'gate.resolved'])
      expect(facts.filter((fact) => fact.kind === kind)).toHaveLength(2 * STEPS.length)
    await until('all are listed, and none is open', async () => {
      const [all, open] = [await flow.runs(), await flow.runs({ open: true })]
      return open.length === 0 && all.length === plain.length + 1 + 2 * STEPS.length
    })
    const runs = await flow.runs()
    expect(runs.filter(({ target }) => target === 'made')).toHaveLength(2 * STEPS.length)
    expect(runs.every(({ status }) => status === 'succeeded')).toBe(true)
    await rig.expectStateIsFold()
  })
})
