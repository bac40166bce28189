import { describe, expect, it } from 'vitest'
import { asset, InvalidError, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { GATES, gateOf, untilSuspended } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const waits = asset('waits', { execute: (ctx) => ctx.signalGate() })

/** What somebody without types, or with a value from elsewhere, may hand over. */
function odd<T>(value: unknown): T {
  return value as T
}

describe('what is asked of a gate', () => {
  it('what is asked of a gate is checked before anything is written: the gate stays as it was, and can be read', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(waits)
    const before = await gateOf(stage.flow, run.id)
    const { id } = before
    await untilSuspended(stage.flow, run.id, 'waits')
    for (const [asking, message] of [
      [() => gates.extend(id, '99999999d'), 'duration must be more than 0 and at most 10 years'],
      [() => gates.extend(id, 0), 'duration must be more than 0'],
      [() => gates.extend(id, '1h', { by: odd(5) }), 'by must be text'],
      [() => gates.cancel(id, odd(5)), 'reason must be text'],
      [() => gates.signalById(id, 1, { headers: odd(new Headers({ a: 'b' })) }), 'headers must be a plain object'],
      [() => gates.signalById(id, 1, { source: odd(5) }), 'source must be text'],
      [() => gates.signalByCorrelationKey(odd(undefined), 1), 'a correlation key must be text'],
      [() => gates.signalByCorrelationKey('', 1, { keepFor: '1m' }), 'a correlation key must be text'],
      [() => gates.getByCorrelationKey('x'.repeat(1025)), 'a correlation key must be text of 1 to 1024 bytes'],
      [() => gates.waiting({ after: { id, deadline: odd('2030-01-01') } }), 'after: deadline must be a Date'],
    ] as const) {
      const error = await rejection(asking())
      expect(error).toBeInstanceOf(InvalidError)
      expect(error.message).toContain(message)
    }
    expect(await gates.get(id)).toEqual(before)
    await gates.signalById(id, 'fine')
    expect(await run.result()).toBe('fine')
  })

  it('what is asked of a gate is counted in bytes, also where a character takes several: a payload over 1 MiB is refused', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(waits)
    const { id } = await gateOf(stage.flow, run.id)
    const euros = (bytes: number): string => '€'.repeat(Math.ceil(bytes / 3))
    expect(await rejection(gates.signalById(id, euros(1_048_576)))).toMatchObject({ reason: 'invalid_payload' })
    const early = gates.signalByCorrelationKey('nobody', { text: euros(65_536) }, { keepFor: '1m' })
    expect(await rejection(early)).toMatchObject({ reason: 'invalid_payload' })
    await gates.signalById(id, euros(1_040_000))
    expect(await run.result()).toBe(euros(1_040_000))
  })

  it('what is asked of a gate is refused at once where the log has no such shard', { timeout: 10_000 }, async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const { gates } = stage.flow
    const id = '7-abc.waits.a1n1'
    expect(await gates.get(id)).toBeUndefined()
    expect(await gates.list('7-abc')).toEqual([])
    expect(await rejection(gates.signalById(id))).toMatchObject({ reason: 'not_found' })
    for (const asking of [gates.cancel(id), gates.extend(id, '1h'), gates.token(id), gates.callbackUrl(id)])
      expect(await rejection(asking)).toMatchObject({ code: 'not_found' })
  })
})
