/**
 * Gates of plain assets and of instances at every step of their life, and one process after the
 * other that is killed and started again just then.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { GateView, Run } from '../../src/index.ts'
import { gatesOf } from '../gates/kit.ts'
import { collect } from '../kit/collect.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { gatedKills, STEPS, stepped, steppedMany } from './programs/gated.ts'
import { type Child, type Rig, startRig } from './rig.ts'

afterEach(() => {
  vi.unstubAllEnvs()
})
beforeEach(() => {
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `k1:${'s'.repeat(32)}`)
})

/** A run of a plain asset for each step, and one of a scatter that has an instance for each. */
class Stage {
  readonly #rig: Rig
  readonly #hold: string
  #runs: Run[] = []
  #gates: GateView[] = []

  constructor(rig: Rig) {
    this.#rig = rig
    this.#hold = `${rig.notes}.hold`
    writeFileSync(this.#hold, '')
  }

  async worker(): Promise<Child> {
    return await this.#rig.start('worker', {}, { KILL_GATES: '1', KILL_HOLD: this.#hold })
  }

  /** Code that was held goes on. */
  release(): void {
    rmSync(this.#hold)
  }

  /**
   * Brings every gate to its step. The engine is stopped from here on: signals and timeouts are on
   * the log, but not folded.
   */
  async set(engine: Child): Promise<void> {
    const { flow } = this.#rig
    const plain = await Promise.all(
      STEPS.map((partition) => flow.materialize(stepped, { pipeline: gatedKills, partition })),
    )
    const many = await flow.materialize(steppedMany, { pipeline: gatedKills })
    this.#runs = [...plain, many]
    const opened = await Promise.all([
      ...plain.map(({ id }) => gatesOf(flow, id)),
      gatesOf(flow, many.id, STEPS.length),
    ])
    this.#gates = opened.flat()
    await until('all but those that were just opened wait', async () => {
      const waiting = (await this.kinds()).filter((kind) => kind === 'asset.suspended').length
      const { suspended } = await flow.scatter.status(`${many.id}.${steppedMany.name}`)
      return waiting === STEPS.length - 1 && suspended === STEPS.length - 1
    })
    await this.signal('going on')
    await until('onSignal runs', () => this.#rig.noted().filter((line) => line.includes('goes on')).length === 2)
    engine.signal('SIGSTOP')
    await this.signal('signalled')
    for (const { id } of this.#at('timing out')) await flow.gates.extend(id, '50ms')
    const fired = async (): Promise<number> => (await this.kinds()).filter((kind) => kind === 'gate.timer_fired').length
    await until('their timers have fired', async () => (await fired()) === 2)
  }

  #at(step: (typeof STEPS)[number]): GateView[] {
    const found = this.#gates.filter(({ metadata }) => metadata === step)
    expect(found).toHaveLength(2)
    return found
  }

  async signal(step: (typeof STEPS)[number]): Promise<void> {
    await Promise.all(this.#at(step).map(({ id }) => this.#rig.flow.gates.signalById(id, `answer to ${step}`)))
  }

  async kinds(): Promise<string[]> {
    const all = await Promise.all(this.#runs.map(({ id }) => collect(this.#rig.flow.history(id))))
    return all.flat().map(({ kind }) => kind)
  }

  /** Each has the value it should have, and has opened its gate once. */
  async expectWell(): Promise<void> {
    const wanted = STEPS.map((step) => (step === 'timing out' ? 'nobody answered' : `answer to ${step}`))
    const results = this.#runs.map((run) => run.result({ signal: within(20_000) }))
    const values = await Promise.all(results)
    expect(values.slice(0, -1)).toEqual(wanted)
    expect(values.at(-1)).toEqual(STEPS.map((key, i) => ({ key, value: wanted[i] })))
    const kinds = await this.kinds()
    for (const kind of ['gate.created', 'gate.resolved'])
      expect(kinds.filter((one) => one === kind)).toHaveLength(2 * STEPS.length)
    expect(this.#rig.noted().filter((line) => line === 'opened true')).toHaveLength(2 * STEPS.length)
    for (const { id } of this.#at('timing out'))
      expect(await this.#rig.flow.gates.get(id)).toMatchObject({ status: 'timed_out', timeouts: 2 })
  }
}

describe('gates at every step of their life, plain and of instances', () => {
  it.each(['nats-server', 'engine', 'worker'])('outlive a restart of the %s', async (what) => {
    await using rig = await startRig({ killsServer: true })
    const engine = await rig.engine()
    const stage = new Stage(rig)
    const worker = await stage.worker()
    await stage.set(engine)
    if (what === 'nats-server') {
      await rig.killServer()
      await rig.startServer()
    } else if (what === 'engine') {
      await engine.kill()
      await rig.engine()
    } else {
      await worker.kill()
      await stage.worker()
    }
    if (engine.isAlive) engine.signal('SIGCONT')
    stage.release()
    for (const step of ['opened', 'waiting'] as const) await stage.signal(step)
    await stage.expectWell()
    await rig.expectStateIsFold()
  })
})
