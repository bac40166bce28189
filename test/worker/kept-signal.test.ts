import { describe, expect, it } from 'vitest'
import { gateSettings } from '../../src/gates/settings.ts'
import { asset } from '../../src/index.ts'
import type { Entry } from '../../src/log/nats.ts'
import { asAway } from '../../src/log/unreachable.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { GateOpener, type GateOpenerDeps } from '../../src/worker/gates/opener.ts'
import { runReminder, runResume } from '../../src/worker/gates/resume.ts'
import { HandBack } from '../../src/worker/pull/disposition.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { ReminderTask, ResumeTask } from '../../streams/tasks.ts'
import { GATES } from '../gates/kit.ts'
import { rejection } from '../kit/stage.ts'

const names = namesOf('ns')
const run = runId(0, 'kept')
const away = asAway(new FlowStoneError('unreachable', 'the server is away'))
const kept = { payload: encodeJson({ v: 1, payload: { manager: 'nats', ref: {} } }), headers: new Map() }

/** `answers`: what is read, one after the other, and then nothing. An error is thrown. */
async function waitingOpener(reads: unknown[], loads: unknown[]) {
  const stored: string[] = []
  const next = async (answers: unknown[]): Promise<unknown> => {
    const answer = answers.shift()
    if (answer instanceof Error) throw answer
    return answer
  }
  const log = {
    appendOnce: async (...entries: Entry[]) => {
      stored.push(...entries.map(({ subject }) => subject))
      return 'stored'
    },
  }
  const deps = {
    ...{ id: 'worker', names, clock: { now: () => 0 }, gates: gateSettings(GATES), logOf: () => log },
    connection: { isClosed: false, read: () => next(reads), ready: async () => undefined },
    io: { load: () => next(loads), store: async () => ({ json: 1 }) },
  } as unknown as GateOpenerDeps
  const at = { shard: 0, run, pipeline: 'p', asset: 'a', prefix: 'i0a1', attempt: 1 }
  const opener = new GateOpener(deps, at)
  await opener.suspend(opener.signal({ correlationKey: 'order' }), () => [])
  const opened = stored.length
  return { opener, ends: () => stored.slice(opened) }
}

describe('a signal that was kept for the gate of an instance', () => {
  it('is asked for again while the server or its object store is away', async () => {
    const { opener, ends } = await waitingOpener([away, kept, kept, undefined], [away, { n: 1 }])
    await opener.takeKept(new AbortController().signal)
    expect(ends()).toHaveLength(1)
  })

  it('is asked for no more when the work is not wanted any more', async () => {
    const { opener } = await waitingOpener([away, away, away, away], [])
    const cancelled = new Error('cancelled')
    expect(await rejection(opener.takeKept(AbortSignal.abort(cancelled)))).toBe(cancelled)
  })

  it.each(['missing_value', 'damaged_value'])('answers it although its payload is gone (%s)', async (code) => {
    const { opener, ends } = await waitingOpener([kept, undefined], [new FlowStoneError(code, 'value abc is gone')])
    await opener.takeKept(new AbortController().signal)
    expect(ends()).toEqual([expect.stringContaining(`gate.${run}.a.i0a1n1.resolved`)])
  })

  it('is an error that names the gate when it may not be read', async () => {
    const { opener, ends } = await waitingOpener([kept], [new FlowStoneError('denied', 'no permission')])
    expect(await rejection(opener.takeKept(new AbortController().signal))).toMatchObject({
      code: 'denied',
      message: `the signal that was kept for gate ${run}.a.i0a1n1 cannot be read: no permission`,
    })
    expect(ends()).toEqual([])
  })
})

it('an instance whose gate has ended is charged no attempt when what it needs cannot be read now', async () => {
  const reports: unknown[] = []
  const shared = {
    ...{ id: 'worker', names, resources: {}, logs: { of: () => ({}) } },
    connection: { nc: {}, share: (most: number) => most },
    values: { keyChunk: async () => await Promise.reject(away), deps: async () => ({}) },
    logOf: () => ({ append: async () => reports.push(1) }),
  } as unknown as WorkerShared
  const held = { shard: 0, abort: new AbortController(), stores: () => undefined } as unknown as InFlightTask
  const task = {
    ...{ kind: 'resume', id: 'id', run, asset: 'a', pipeline: 'p', version: '1', shape: 's', deps: {}, ordinal: 1 },
    ...{ index: 0, keyChunk: 0, how: 'signal', from: { gate: 'i0a1n1', seq: 1, timeouts: 0 }, timeoutMs: 60_000 },
  } as unknown as ResumeTask
  const many = asset('a', { scatter: () => [0], execute: ({ signalGate }) => signalGate() })
  expect(await rejection(runResume(shared, held, task, many))).toBe(away)
  expect(reports).toEqual([])
})

describe('onTimeout of a gate that waits on', () => {
  const reminded = async (count: number, deps: () => Promise<unknown>, abort = new AbortController()) => {
    const warnings: string[] = []
    const shared = {
      ...{ id: 'worker', names, resources: {}, logs: { of: () => ({}) } },
      logger: { warn: (text: string) => warnings.push(text) },
      values: { deps },
    } as unknown as WorkerShared
    const held = { shard: 0, count, abort } as unknown as InFlightTask
    const task = {
      ...{ kind: 'reminder', id: 'id', run, asset: 'a', pipeline: 'p', version: '1', shape: 's', deps: {} },
      ...{ retriesLeft: 1, from: { gate: 'a1n1', timeouts: 1 } },
    } as unknown as ReminderTask
    const asked = asset('a', { execute: ({ signalGate }) => signalGate(), onTimeout: () => 1 })
    return { thrown: await runReminder(shared, held, task, asked).catch((error: unknown) => error), warnings }
  }

  it('is delivered again, at most twice, when what it needs cannot be read now', async () => {
    const gone = async (): Promise<never> => await Promise.reject(away)
    expect(await reminded(1, gone)).toEqual({ thrown: away, warnings: [] })
    expect(await reminded(3, gone)).toEqual({ thrown: undefined, warnings: [expect.stringContaining('is away')] })
  })

  it('is delivered again when its worker stops, and not when it is cancelled', async () => {
    const [stops, cancelled] = [new HandBack(), new Error('cancelled')]
    const aborted = async (reason: Error): Promise<unknown> => {
      const abort = new AbortController()
      abort.abort(reason)
      return (await reminded(1, async () => await Promise.reject(reason), abort)).thrown
    }
    expect(await aborted(stops)).toBe(stops)
    expect(await aborted(cancelled)).toBeUndefined()
  })
})
