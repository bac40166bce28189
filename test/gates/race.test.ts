import { describe, expect, it } from 'vitest'
import { asset, ConflictError, type Flow, pipeline, SignalRejectedError } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gatesOf } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const COUNT = 200
const DELAY_MS = 5000

/** They wait for long, so that their signals come in time wherever the machine is slow. */
const isPatient = (index: number): boolean => index % 15 === 1

/** All wait, and all the others time out at about the same time. */
const raced = asset('raced', {
  scatter: () => Array.from({ length: COUNT }, (_, i) => i),
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
  execute: (ctx) => ctx.signalGate({ timeout: isPatient(ctx.index) ? '1h' : DELAY_MS + 5 * (ctx.index % 20) }),
  onSignal: (_, payload: string) => payload,
  gather: async (results) => {
    const all: string[] = []
    for await (const result of results) all.push(result.status === 'ok' ? result.value : result.error.code)
    return all
  },
})

/** The outcome that the answer to a caller implies. */
async function told(asking: Promise<unknown>): Promise<string> {
  try {
    await asking
    return 'mine'
  } catch (error) {
    if (error instanceof SignalRejectedError) return error.reason
    if (error instanceof ConflictError) return 'conflict'
    throw error
  }
}

describe('signals, a timeout and a cancel at the same moment', () => {
  it('signals, a timeout and a cancel at the same moment are decided once: the log has one end, all callers learn it, and the asset uses it', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, pipeline('races', [raced]), {
      gates: GATES,
      worker: { concurrency: 50 },
    })
    const flows: Flow[] = [stage.flow, await stage.connect({ gates: GATES }), await stage.connect({ gates: GATES })]
    const run = await stage.flow.materialize(raced)
    const open = await gatesOf(stage.flow, run.id, COUNT)
    const answers = await Promise.all(
      open.map(async ({ id, deadline, index }) => {
        const token = await stage.flow.gates.token(id)
        // When several timers are due, the server takes up to a quarter of a second for some of
        // them.
        const atMs = (deadline?.getTime() ?? 0) + 34 * ((index ?? 0) % 15) - 4
        // The first ones come in time, and the others at about the deadline.
        if ((index ?? 0) % 15 !== 0 && !isPatient(index ?? 0))
          await until('its deadline is near', () => Date.now() >= atMs - 3)
        // The last ones come too late for certain.
        if ((index ?? 0) % 15 === 14)
          await until('it has ended', async () => (await stage.flow.gates.get(id))?.status !== 'waiting')
        const callers = flows.map((flow, n) => told(flow.gates.signal(token, `${id} by ${n}`)))
        const cancel = (index ?? 0) % 3 === 0 ? told(stage.flow.gates.cancel(id)) : undefined
        return { id, signals: await Promise.all(callers), cancel: await cancel }
      }),
    )
    const values = await run.result()
    const ends = new Map<string, { outcome: string }[]>()
    for await (const { kind, ids, data } of stage.flow.history(run.id)) {
      if (kind !== 'gate.resolved' || !('outcome' in data)) continue
      const id = `${ids.run}.${ids.asset}.${ids.gate}`
      ends.set(id, [...(ends.get(id) ?? []), { outcome: data.outcome }])
    }
    const outcomes = new Map<string, number>()
    for (const { id, signals, cancel } of answers) {
      const [end, ...more] = ends.get(id) ?? []
      expect(more, id).toEqual([])
      const outcome = end?.outcome ?? ''
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      const view = await stage.flow.gates.get(id)
      expect(view?.status).toBe(outcome)
      const index = view?.index ?? -1
      const winners = signals.flatMap((answer, n) => (answer === 'mine' ? [n] : []))
      if (outcome === 'signaled') {
        expect(winners).toHaveLength(1)
        expect(signals.filter((answer) => answer !== 'mine')).toEqual(['already_signaled', 'already_signaled'])
        expect(view?.signal?.payload).toBe(`${id} by ${winners[0]}`)
        expect(values[index]).toBe(`${id} by ${winners[0]}`)
        expect([undefined, 'conflict']).toContain(cancel)
      } else if (outcome === 'timed_out') {
        expect(signals).toEqual(['expired', 'expired', 'expired'])
        expect([undefined, 'conflict']).toContain(cancel)
        expect(values[index]).toBe('gate_timeout')
      } else {
        expect(signals).toEqual(['cancelled', 'cancelled', 'cancelled'])
        expect(cancel).toBe('mine')
        expect(values[index]).toBe('gate_cancelled')
      }
    }
    console.info(`of ${COUNT} races: ${[...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ')}`)
    expect(outcomes.get('signaled')).toBeGreaterThan(0)
    expect(outcomes.get('timed_out')).toBeGreaterThan(0)
  })
})
