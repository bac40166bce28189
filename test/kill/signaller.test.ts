/**
 * A client dies while it answers a gate, and does not know whether its answer counts. A client that
 * asks again gets to know.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Run, SignalRejectedError } from '../../src/index.ts'
import { gatesOf } from '../gates/kit.ts'
import { ANSWERED, answerBy, answered, gatedKills } from './programs/gated.ts'
import { type Rig, startRig } from './rig.ts'

const SHARE = 24
const TROUBLES = 3

afterEach(() => {
  vi.unstubAllEnvs()
})
beforeEach(() => {
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `k1:${'s'.repeat(32)}`)
})

/** Gates with a request, and gates with a reply. */
interface Asked {
  readonly asked: Set<string>
  readonly told: Set<string>
}

/**
 * Clients are killed at random moments, each with a share of the gates, until some had asked and
 * got no reply.
 */
async function killClients(rig: Rig, gates: readonly string[]): Promise<Asked> {
  const asked = new Set<string>()
  const told = new Set<string>()
  let troubles = 0
  for (let from = 0; from < gates.length && troubles < TROUBLES; from += SHARE) {
    const child = await rig.start('signaller', { gates: gates.slice(from, from + SHARE) })
    await sleep(Math.random() * 60)
    await child.kill()
    for (const { gate } of child.of('asks')) asked.add(String(gate))
    for (const { gate } of child.of('answered')) told.add(String(gate))
    if (child.of('asks').length > child.of('answered').length) troubles += 1
  }
  expect(troubles).toBe(TROUBLES)
  return { asked, told }
}

/** Who answered, as the log has it. */
async function answersOf(rig: Rig, run: Run): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for await (const { kind, ids } of rig.flow.history(run.id)) {
    if (kind !== 'gate.resolved') continue
    const id = `${ids.run}.${ids.asset}.${ids.gate}`
    expect(found.has(id), `${id} was answered twice`).toBe(false)
    const payload = (await rig.flow.gates.get(id))?.signal?.payload as { by: string }
    found.set(id, payload.by)
  }
  return found
}

describe('a client that is killed while it signals', () => {
  it('a client that is killed while it signals and asks again with the same key learns that its signal counts; with another key, who was first', async () => {
    await using rig = await startRig()
    await rig.engine()
    await rig.start('worker', {}, { KILL_GATES: '1' })
    const run = (await rig.flow.materialize(answered, { pipeline: gatedKills })) as Run<
      { key: number; value: string }[]
    >
    const gates = (await gatesOf(rig.flow, run.id, ANSWERED)).map(({ id }) => id)
    const { asked, told } = await killClients(rig, gates)
    const before = await answersOf(rig, run)
    for (const gate of gates) {
      if (told.has(gate)) expect(before.get(gate)).toBe('first')
      if (!asked.has(gate)) expect(before.has(gate)).toBe(false)
    }
    const unsure = [...asked].filter((gate) => !told.has(gate))
    const stored = unsure.filter((gate) => before.has(gate))
    console.info(
      `${asked.size} asked for, ${unsure.length} of them not told; of those ${stored.length} were on the log`,
    )

    const ask = async (by: string, gate: string): Promise<string> =>
      await rig.flow.gates.signalById(gate, answerBy(by, gate), { idempotencyKey: `${by} ${gate}` }).then(
        ({ repeated }) => (repeated ? 'repeated' : 'accepted'),
        (error: unknown) => (error instanceof SignalRejectedError ? error.reason : String(error)),
      )
    const winners = await Promise.all(
      gates.map(async (gate, n) => {
        const byFirst = n % 2 === 0
        const told = byFirst
          ? [await ask('first', gate), await ask('other', gate)]
          : [await ask('other', gate), await ask('first', gate)]
        // What a client sent last may reach the server after its death.
        const isThere = before.has(gate) || (unsure.includes(gate) && told[byFirst ? 0 : 1] === 'repeated')
        if (byFirst) expect(told, gate).toEqual([isThere ? 'repeated' : 'accepted', 'already_signaled'])
        else expect(told, gate).toEqual(isThere ? ['already_signaled', 'repeated'] : ['accepted', 'already_signaled'])
        return [gate, byFirst || isThere ? 'first' : 'other'] as const
      }),
    )
    const after = await answersOf(rig, run)
    expect(after).toEqual(new Map(winners))
    const views = await gatesOf(rig.flow, run.id, ANSWERED)
    const wanted = views.map(({ id, index }) => {
      const by = after.get(id) ?? ''
      return { key: index, value: `${by} ${answerBy(by, id).text.length}` }
    })
    expect(await run.result()).toEqual(wanted.toSorted((a, b) => Number(a.key) - Number(b.key)))
    await rig.expectStateIsFold()
  })
})
