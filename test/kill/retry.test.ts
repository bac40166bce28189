/** `flow.retry` while those who take part in it die: clients that ask, and engines that plan. */
import { rmSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { collect } from '../kit/collect.ts'
import { rejection } from '../kit/stage.ts'
import { within } from '../kit/within.ts'
import { letter, retriedKills } from './programs/retried.ts'
import { startRig } from './rig.ts'

it('a retry is one run with the right values when clients and engines die before and after they store its facts', async () => {
  await using rig = await startRig()
  const { flow } = rig
  const broken = `${rig.notes}.broken`
  writeFileSync(broken, '')
  const env = { KILL_RETRIED: '1', KILL_BROKEN: broken }
  const [engine] = await Promise.all([rig.engine(), rig.start('worker', {}, env)])
  const first = await flow.materialize(letter, { pipeline: retriedKills })
  await rejection(first.result())
  rmSync(broken)
  await engine.stop()
  const made = rig.noted()
  expect(made.toSorted()).toEqual(['bill', 'work 0', 'work 1', 'work 2', 'work 3'])

  const asks = async (killAt: string): Promise<void> => rig.dies('retrier', { KILL_AT: killAt }, { run: first.id })
  await asks('before [.]requested')
  expect(await rig.facts('run.*.requested')).toBe(1)
  await asks('after [.]requested')
  expect(await rig.facts('run.*.requested')).toBe(2)
  const planned = await rig.facts('run.*.planned')
  await rig.dies('engine', { KILL_AT: 'before [.]planned' })
  expect(await rig.facts('run.*.planned')).toBe(planned)
  await rig.dies('engine', { KILL_AT: 'after [.]planned' })
  expect(await rig.facts('run.*.planned')).toBe(planned + 1)

  const retry = await flow.retry(first.id)
  expect(retry.isNew).toBe(false)
  await rig.engine()
  expect(await retry.result({ signal: within(20_000) })).toBe('bill: 0,10,20,30')
  expect(rig.noted().slice(made.length)).toEqual(['work 2', 'letter'])
  const kinds = (await collect(flow.history(retry.id))).map(({ kind }) => kind)
  for (const kind of ['run.requested', 'run.planned', 'run.finished'])
    expect(kinds.filter((one) => one === kind)).toHaveLength(1)
  expect(await flow.retry(first.id)).toMatchObject({ id: retry.id, isNew: false })
  expect(await rig.facts('run.*.requested')).toBe(2)
  await rig.expectStateIsFold()
})
