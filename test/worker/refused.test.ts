import { describe, expect, it } from 'vitest'
import { asset } from '../../src/index.ts'
import type { Entry } from '../../src/log/nats.ts'
import { runAttempt } from '../../src/worker/attempt/attempt.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { Report } from '../../src/worker/lease/report.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { decode } from '../../streams/codec.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { assetName, hash64, runId } from '../../streams/ids.ts'
import { readList } from '../../streams/list.ts'
import type { ScatterOutcomes } from '../../streams/scatter-schemas.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { AttemptTask } from '../../streams/tasks.ts'

const run = runId(0, 'refused')

/** A worker whose log refuses messages of more than `most` bytes, for good. */
function workerWhere(most: number, refusal: (bytes: number) => Error) {
  const stored: Record<string, unknown>[] = []
  const append = async ({ payload, contentType }: Entry): Promise<{ seq: number }> => {
    if (payload.length > most) throw refusal(payload.length)
    stored.push(decode(payload, contentType) as Record<string, unknown>)
    return { seq: stored.length }
  }
  const shared = {
    ...{
      id: 'worker',
      names: namesOf('ns'),
      resources: {},
      gates: {},
      connection: { nc: {}, share: (n: number) => n },
    },
    values: { deps: async () => ({ get: async () => ({}) }) },
    logs: { of: () => ({}) },
    io: { store: async (_: string, value: unknown) => ({ json: value }) },
    logOf: () => ({ append, appendOnce: async (entry: Entry) => (await append(entry)) && 'stored' }),
  } as unknown as WorkerShared
  return { shared, stored }
}

const WHY = /refused the append|over max_payload/
const refusals: [string, (bytes: number) => Error][] = [
  ['by the server', () => new FlowStoneError('refused', 'LOG refused the append: too large (10054)')],
  ['as larger than a message', (bytes) => new InvalidError(`a message of ${bytes} bytes is over max_payload`)],
]

describe.each(refusals)('what the log refuses %s', (_, refusal) => {
  const attempt = async (most: number, execute: () => unknown): Promise<Record<string, unknown>[]> => {
    const { shared, stored } = workerWhere(most, refusal)
    const task = {
      ...{ kind: 'execute', id: 'id', run, asset: 'one', pipeline: 'p', version: '1', shape: 's', deps: {} },
      ...{ attempt: 1, attemptsLeft: 2 },
    } as AttemptTask
    const held = { shard: 0, abort: new AbortController(), slot: -1, stores: () => undefined, heldMs: 0, count: 1 }
    expect(await runAttempt(shared, held as unknown as InFlightTask, task, asset('one', { execute }))).toBe(undefined)
    return stored
  }

  it('as the value of an attempt ends it with that as its error, and is not tried again for ever', async () => {
    const stored = await attempt(2000, () => 'x'.repeat(2000))
    expect(stored).toMatchObject([{ fact: 'attempt.ended', error: { message: expect.stringMatching(WHY) } }])
  })

  it.each([2000, 700])('as the error of an attempt is stored in fewer words, of %i bytes at the most', async (most) => {
    const stored = await attempt(most, () => {
      throw new Error('first words '.repeat(200), { cause: new Error('cause '.repeat(100)) })
    })
    expect(stored).toMatchObject([{ fact: 'attempt.ended', outcome: 'error' }])
    const { error } = stored[0] as { error: { message: string; cause?: unknown } }
    expect(error.message).toMatch(/^first words first words /)
    expect(error.cause !== undefined).toBe(most === 2000)
  })

  it('as outcomes of a lease is stored in parts, and what is refused by itself fails its instance', async () => {
    const { shared, stored } = workerWhere(1000, refusal)
    const report = new Report(shared, { shard: 0, run, asset: assetName('many') }, { lease: '0-7', ordinal: 1 })
    // Hardly compressed: as hexadecimal digits.
    const text = (index: number): string =>
      Array.from({ length: index === 3 ? 160 : 20 }, (_, i) => hash64(`${index} ${i}`)).join('')
    for (let index = 0; index < 6; index++) {
      if (index === 2) report.leaves(['i2a1n1'])
      if (index === 5)
        report.failure(index, 1, { outcome: 'terminal', error: { code: 'own', message: 'e'.repeat(3000) }, thrown: 0 })
      else report.value(index, 1, report.write(text(index)))
    }
    report.suspended(6, 1, 'i6a1n1')
    await report.end(7)
    const outcomes = stored as unknown as ScatterOutcomes[]
    expect(outcomes.flatMap(({ at }) => at).toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6])
    expect(outcomes.map(({ heldMs }) => heldMs).filter((ms) => ms !== undefined)).toEqual([7])
    const of = <T>(index: number, pick: (part: ScatterOutcomes, k: number) => T): T | undefined => {
      const part = outcomes.find(({ at }) => at.includes(index))
      return part && pick(part, part.at.indexOf(index))
    }
    const kept = (index: number): unknown => of(index, ({ values, encoding }, k) => readList(values, encoding).item(k))
    const failure = (index: number): unknown => of(index, ({ errors }, k) => errors?.find(([at]) => at === k)?.[1])
    expect([0, 1, 2, 4].map(kept)).toEqual([0, 1, 2, 4].map(text))
    expect(failure(3)).toMatchObject({
      outcome: 'error',
      error: { message: expect.stringMatching(WHY) },
    })
    expect(failure(5)).toEqual({ outcome: 'terminal', error: { code: 'own', message: 'e'.repeat(300) } })
    expect(of(2, ({ left }, k) => left?.filter(([at]) => at === k))).toEqual([[expect.any(Number), ['i2a1n1']]])
    expect(of(6, ({ suspended }) => suspended)).toEqual([[expect.any(Number), 'i6a1n1']])
  })
})
