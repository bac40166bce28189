import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { GateView, Run } from '../../src/index.ts'
import { keyOn } from '../gates/kit.ts'
import { rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { brief, GATED_INSTANCES, gated, gatedKills, gatedMany } from './programs/gated.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const env = { KILL_GATES: '1' }

afterEach(() => {
  vi.unstubAllEnvs()
})
beforeEach(() => {
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `k1:${'s'.repeat(32)}`)
})

async function worker(rig: Rig, more: Record<string, string> = {}): Promise<Child> {
  return await rig.start('worker', {}, { ...env, ...more })
}

const opened = (rig: Rig): string[][] =>
  rig
    .noted()
    .filter((line) => line.startsWith('opened'))
    .map((line) => line.split(' '))

async function gateOf(rig: Rig, run: Run): Promise<GateView> {
  let gate: GateView | undefined
  await until('its gate is open', async () => {
    gate = (await rig.flow.gates.list(run.id))[0]
    return gate !== undefined
  })
  if (!gate) throw new Error('no gate')
  return gate
}

async function untilWaits(run: Run, asset: string): Promise<void> {
  await until(`${asset} waits`, async () => (await run.status())?.assets[asset]?.status === 'suspended')
}

/** How often each kind of fact is on the log of a run. */
async function counts(rig: Rig, run: Run): Promise<Record<string, number>> {
  const found: Record<string, number> = {}
  for await (const { kind } of rig.flow.history(run.id)) found[kind] = (found[kind] ?? 0) + 1
  return found
}

describe('a worker that is killed', () => {
  it('after it opened a gate and before it waits there is followed by one that finds the gate: the outside job is not started twice', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.engine()
    const victim = await worker(rig, { KILL_GATE_MS: '20000' })
    const run = await rig.materialize(gated, undefined, gatedKills)
    await until('the gate is open', () => opened(rig).length === 1)
    // The outside job is quick: its answer comes while nobody is there.
    const token = opened(rig)[0]?.[2] ?? ''
    await victim.kill()
    await rig.flow.gates.signal(token, 42)
    await worker(rig)
    expect(await run.result()).toBe(42)
    expect(opened(rig).map(([, isNew]) => isNew)).toEqual(['true', 'false'])
    expect(opened(rig)[1]?.[2]).toBe(token)
    expect(await counts(rig, run)).toMatchObject({ 'gate.created': 1, 'gate.resolved': 1, 'asset.suspended': 1 })
    await rig.expectStateIsFold()
  })

  it('in onSignal is followed by one that gets the same payload', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.engine()
    const victim = await worker(rig, { KILL_SIGNAL_MS: '20000' })
    const run = await rig.materialize(gated, undefined, gatedKills)
    const gate = await gateOf(rig, run)
    await untilWaits(run, 'gated')
    await rig.flow.gates.signalById(gate.id, 7)
    await until('onSignal runs', () => rig.noted().some((line) => line.startsWith('signalled')))
    await victim.kill()
    await worker(rig)
    expect(await run.result()).toBe(7)
    const calls = rig.noted().filter((line) => line.startsWith('signalled'))
    expect(calls).toEqual(['signalled 2 7', 'signalled 3 7'])
    await rig.expectStateIsFold()
  })

  it('with instances at their gates, and before them, leaves none that is opened or counted twice', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.engine()
    const victim = await worker(rig)
    const run = await rig.materialize(gatedMany, undefined, gatedKills)
    await until(
      'some wait',
      () => rig.noted().filter((line) => line.startsWith('instance')).length > GATED_INSTANCES / 3,
    )
    await victim.kill()
    const second = await worker(rig)
    const waits = async (): Promise<boolean> =>
      (await rig.flow.scatter.status(`${run.id}.gated_many`).catch(() => undefined))?.suspended === GATED_INSTANCES
    await until('all wait', waits)
    const gates = await rig.flow.gates.list(run.id)
    expect(new Set(gates.map(({ index }) => index)).size).toBe(GATED_INSTANCES)
    expect(gates).toHaveLength(GATED_INSTANCES)
    const half = gates.slice(0, GATED_INSTANCES / 2)
    await Promise.all(half.map(({ id, index }) => rig.flow.gates.signalById(id, index)))
    await second.kill()
    await worker(rig)
    await Promise.all(gates.slice(half.length).map(({ id, index }) => rig.flow.gates.signalById(id, index)))
    await rig.expectWhole(run, 'gated_many', GATED_INSTANCES)
    await rig.expectStateIsFold()
  })
})

describe('an engine that is killed', () => {
  it('between a signal and what follows is followed by one that lets the asset go on', async () => {
    await using rig = await startRig({ killsServer: true })
    const victim = await rig.engine()
    await worker(rig)
    const run = await rig.materialize(gated, undefined, gatedKills)
    const gate = await gateOf(rig, run)
    await untilWaits(run, 'gated')
    await victim.kill()
    await rig.flow.gates.signalById(gate.id, 3)
    await rig.engine()
    expect(await run.result()).toBe(3)
    await rig.expectStateIsFold()
  })

  it('with hundreds of instances that are signalled meanwhile loses none and counts none twice', async () => {
    await using rig = await startRig({ killsServer: true })
    const victim = await rig.engine()
    await worker(rig)
    const run = await rig.materialize(gatedMany, undefined, gatedKills)
    const waits = async (): Promise<boolean> =>
      (await rig.flow.scatter.status(`${run.id}.gated_many`).catch(() => undefined))?.suspended === GATED_INSTANCES
    await until('all wait', waits)
    const gates = await rig.flow.gates.list(run.id)
    const signalling = Promise.all(gates.map(({ id, index }) => rig.flow.gates.signalById(id, index)))
    await victim.kill()
    await signalling
    await rig.engine()
    await rig.expectWhole(run, 'gated_many', GATED_INSTANCES)
    await rig.expectStateIsFold()
  })
})

describe('an engine of three shards that is killed', () => {
  it('while their gates are signalled, cancelled and extended is followed by its standby on each', async () => {
    const every = [0, 1, 2]
    await using rig = await startRig({ killsServer: true, shards: 3 })
    const victim = await rig.engine()
    await worker(rig)
    await worker(rig)
    const on = async (asset: typeof gated | typeof gatedMany): Promise<Run[]> =>
      await Promise.all(every.map((shard) => rig.materialize<unknown>(asset, keyOn(shard, 3, asset.name), gatedKills)))
    const [plain, many] = [await on(gated), await on(gatedMany)]
    for (const run of plain) await untilWaits(run, 'gated')
    for (const { id } of many)
      await until(
        'all wait',
        async () => (await rig.flow.scatter.status(`${id}.gated_many`)).suspended === GATED_INSTANCES,
      )
    const heir = await rig.start('engine')
    const gates = (await Promise.all(many.map(({ id }) => rig.flow.gates.list(id)))).flat()
    const [first, second, third] = await Promise.all(plain.map((run) => gateOf(rig, run)))
    if (!first || !second || !third) throw new Error('a gate is missing')
    const signal = ({ id, index }: GateView): Promise<unknown> => rig.flow.gates.signalById(id, index)
    const signalling = Promise.all(gates.filter((_, n) => n % 2 === 0).map(signal))
    await victim.kill()
    await signalling
    await rig.flow.gates.cancel(first.id)
    const deadline = await rig.flow.gates.extend(second.id, '2h')
    await rig.flow.gates.signalById(third.id, 3)
    expect(heir.of('engine.active')).toEqual([])
    await until('its standby is at work on each', () => heir.of('engine.active').length === 3)
    expect(heir.of('engine.active').map(({ shard }) => shard)).toEqual(expect.arrayContaining(every))

    const left = gates.filter((_, n) => n % 2 === 1)
    let waiting: GateView[] = []
    await until('what waits is known', async () => {
      waiting = await rig.flow.gates.waiting({ limit: 1000 })
      return waiting.length === left.length + 1 && waiting.at(-1)?.id === second.id
    })
    expect(new Set(waiting.map(({ id }) => id))).toEqual(new Set([...left, second].map(({ id }) => id)))
    expect(waiting.at(-1)?.deadline).toEqual(deadline)
    await Promise.all(left.map(signal))
    await rig.flow.gates.signalById(second.id, 2)
    expect(await rejection(plain[0]?.result() ?? Promise.resolve())).toMatchObject({ code: 'cancelled' })
    expect(await plain[1]?.result()).toBe(2)
    expect(await plain[2]?.result()).toBe(3)
    for (const run of many) await rig.expectWhole(run, 'gated_many', GATED_INSTANCES)
    await rig.expectStateIsFold()
  })
})

describe('a server that is killed', () => {
  it('with everything else while a gate waits, and is started after its deadline, fires at once', async () => {
    await using rig = await startRig({ killsServer: true })
    const engine = await rig.engine()
    const first = await worker(rig)
    const run = (await rig.flow.materialize(brief, { pipeline: gatedKills, partition: '3000' })) as Run
    const gate = await gateOf(rig, run)
    await untilWaits(run, 'brief')
    await Promise.all([engine.kill(), first.kill(), rig.killServer()])
    const deadline = gate.deadline?.getTime() ?? 0
    await until('its deadline is over', () => Date.now() > deadline + 200)
    await rig.startServer()
    const startedMs = Date.now()
    await rig.engine()
    await worker(rig)
    expect(await run.result()).toBe('in time')
    const ended = (await rig.flow.gates.get(gate.id))?.endedAt?.getTime() ?? 0
    console.info(`timed out ${ended - startedMs} ms after the server was back`)
    expect(ended - deadline).toBeGreaterThan(200)
    await rig.expectStateIsFold()
  })

  it('while signals come in keeps all that were accepted, and no gate has two', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.engine()
    await worker(rig)
    const run = await rig.materialize(gatedMany, undefined, gatedKills)
    const waits = async (): Promise<boolean> =>
      (await rig.flow.scatter.status(`${run.id}.gated_many`).catch(() => undefined))?.suspended === GATED_INSTANCES
    await until('all wait', waits)
    const gates = await rig.flow.gates.list(run.id)
    let accepted = 0
    const signalling = Promise.all(
      gates.map(async ({ id, index }, n) => {
        await until('its turn has come', () => accepted >= n - 20)
        const { repeated } = await rig.flow.gates.signalById(id, index, { idempotencyKey: id })
        expect(repeated).toBe(false)
        accepted += 1
      }),
    )
    await until('some are accepted', () => accepted > 50)
    await rig.killServer()
    await rig.startServer()
    await signalling
    await rig.expectWhole(run, 'gated_many', GATED_INSTANCES)
    expect((await counts(rig, run))['gate.resolved']).toBe(GATED_INSTANCES)
    await rig.expectStateIsFold()
  })
})
