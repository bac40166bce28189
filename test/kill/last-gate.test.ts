/**
 * The moment in which the outside job knows its token, and nothing says yet that anybody waits for
 * it.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { gatesOf } from '../gates/kit.ts'
import { collect } from '../kit/collect.ts'
import { rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { gated, gatedKills, lastGate } from './programs/gated.ts'
import { startRig } from './rig.ts'

const env = { KILL_GATES: '1' }

afterEach(() => {
  vi.unstubAllEnvs()
})
beforeEach(() => {
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `k1:${'s'.repeat(32)}`)
})

describe.each([
  { where: 'execute', before: 0 },
  { where: 'onSignal', before: 1 },
  { where: 'onTimeout', before: 1 },
])('a worker that dies between the last gate of $where and its outcome', ({ where, before }) => {
  it.each(['before', 'after'])('is followed by one that waits there; the signal comes %s that', async (order) => {
    await using rig = await startRig()
    await rig.engine()
    const victim = await rig.start('worker', {}, { ...env, KILL_AT_LAST_GATE: '1' })
    const run = await rig.flow.materialize(lastGate, { pipeline: gatedKills, partition: where })
    const kinds = async (): Promise<string[]> => (await collect(rig.flow.history(run.id))).map(({ kind }) => kind)
    const count = async (kind: string): Promise<number> => (await kinds()).filter((one) => one === kind).length
    if (where === 'onSignal') {
      const [first] = await gatesOf(rig.flow, run.id)
      await rig.flow.gates.signalById(first?.id ?? '', 1)
    }
    await victim.ended
    const opened = (): string[] => rig.noted().filter((line) => line.startsWith('opened'))
    const token = opened()[0]?.split(' ')[3] ?? ''
    expect(opened()).toEqual([`opened true true ${token}`])
    expect(await count('gate.created')).toBe(before + 2)
    expect(await count('asset.suspended')).toBe(before)

    if (order === 'before') await rig.flow.gates.signal(token, 42)
    await rig.start('worker', {}, env)
    if (order === 'after') {
      await until('it waits', async () => (await count('asset.suspended')) > before)
      await until('what it does not wait at has ended', async () => (await count('gate.resolved')) === before + 1)
      await rig.flow.gates.signal(token, 42)
    }
    expect(await run.result({ signal: within(20_000) })).toBe(42)
    expect(opened()).toEqual([`opened true true ${token}`, `opened false false ${token}`])
    expect(rig.noted().filter((line) => line === 'signalled last 42')).toHaveLength(1)
    expect(await rejection(rig.flow.gates.signal(token, 43))).toMatchObject({ reason: 'already_signaled' })
    await until('all gates have ended', async () => (await count('gate.resolved')) === before + 2)
    const ends = (await rig.flow.gates.list(run.id)).map(({ metadata, status }) => `${metadata} ${status}`)
    const first = { execute: [], onSignal: ['first signaled'], onTimeout: ['first timed_out'] }[where] ?? []
    expect(ends.toSorted()).toEqual([...first, 'spare cancelled', 'last signaled'].toSorted())
    expect(await count('asset.suspended')).toBe(before + 1)
    await rig.expectStateIsFold()
  })
})

it('a worker that dies before openGate has returned is followed by one that finds the gate, and does not take it for new', async () => {
  await using rig = await startRig()
  await rig.engine()
  const victim = await rig.start('worker', {}, { ...env, KILL_IN_OPEN_GATE: '1' })
  const run = await rig.materialize(gated, undefined, gatedKills)
  await victim.ended
  const [gate] = await gatesOf(rig.flow, run.id)
  expect(rig.noted()).toEqual([])
  await rig.start('worker', {}, env)
  await until('it is open again', () => rig.noted().length === 1)
  expect(rig.noted()).toEqual([`opened false ${await rig.flow.gates.token(gate?.id ?? '')}`])
  await rig.flow.gates.signalById(gate?.id ?? '', 5)
  expect(await run.result({ signal: within(20_000) })).toBe(5)
  expect(await rig.flow.gates.list(run.id)).toHaveLength(1)
  await rig.expectStateIsFold()
})
