import { errors } from '@nats-io/nats-core'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { gateSettings } from '../../src/gates/settings.ts'
import { asset } from '../../src/index.ts'
import { Io } from '../../src/io/manager.ts'
import { Connection } from '../../src/log/connection.ts'
import type { Entry } from '../../src/log/nats.ts'
import { asAway, isAway } from '../../src/log/unreachable.ts'
import { runAttempt } from '../../src/worker/attempt/attempt.ts'
import { failureOf } from '../../src/worker/attempt/run-code.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { Deps } from '../../src/worker/attempt/values.ts'
import { GateOpener, type GateOpenerDeps } from '../../src/worker/gates/opener.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { ConflictError, FlowStoneError, TimeoutError } from '../../streams/errors.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { AttemptTask } from '../../streams/tasks.ts'
import { GATES } from '../gates/kit.ts'
import { rejection } from '../kit/stage.ts'

const names = namesOf('ns')
const run = runId(0, 'away')
const away = asAway(new FlowStoneError('unreachable', 'the server is away'))
const elsewhere = new FlowStoneError('unreachable', 'a server of the code is away')

afterEach(() => void vi.useRealTimers())

/** What an attempt of a plain asset puts on the log. */
async function attempt(deps: () => Promise<Deps>, execute: () => unknown) {
  const stored: string[] = []
  const log = {
    append: async ({ subject }: Entry) => ({ seq: stored.push(subject) }),
    appendOnce: async ({ subject }: Entry) => stored.push(subject) && 'stored',
  }
  const shared = {
    ...{ id: 'worker', names, resources: {}, logs: { of: () => ({}) }, logOf: () => log, connection: { nc: {} } },
    ...{ values: { deps }, io: { store: async () => ({ json: 1 }) }, gates: gateSettings(GATES) },
  } as unknown as WorkerShared
  const held = { shard: 0, abort: new AbortController(), stores: () => undefined } as unknown as InFlightTask
  const task = {
    ...{ kind: 'execute', id: 'id', run, asset: 'a', pipeline: 'p', version: '1', shape: 's', deps: {} },
    ...{ attempt: 1, attemptsLeft: 2, timeoutMs: 60_000 },
  } as AttemptTask
  const ran = await runAttempt(shared, held, task, asset('a', { execute })).catch((error: unknown) => error)
  return { ran, ends: stored.filter((subject) => !subject.includes('started')) }
}

describe('an attempt of a plain asset', () => {
  const none = async (): Promise<Deps> => new Deps([])

  it('is delivered again, at no cost, when its dependency cannot be read now', async () => {
    const { ran, ends } = await attempt(async () => await Promise.reject(away), vi.fn())
    expect(ran).toBe(away)
    expect(ends).toEqual([])
  })

  it('is announced by who gets it next, when it is delivered again', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    await attempt(async () => await Promise.reject(away), vi.fn())
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is delivered again, at no cost, when its code got that the server is away', async () => {
    const { ran, ends } = await attempt(none, () => Promise.reject(away))
    expect(ran).toBe(away)
    expect(ends).toEqual([])
  })

  it('fails when its code throws the same of another server', async () => {
    const { ran, ends } = await attempt(none, () => Promise.reject(elsewhere))
    expect(ran).toBeUndefined()
    expect(ends).toEqual([expect.stringContaining('.attempt_ended.')])
  })
})

it('an instance whose code got that the server is away is given back for a while', () => {
  expect(failureOf(away)).toMatchObject({ outcome: 'returned', retryAfterMs: 1000, error: { code: 'unreachable' } })
  expect(failureOf(elsewhere)).toMatchObject({ outcome: 'error' })
})

it('an I/O manager says that its place is away by its error', async () => {
  let error: Error = elsewhere
  const manager = { store: async () => ({}), load: async () => await Promise.reject(error) }
  const io = new Io({ share: () => 1 }, new Map([['s3', manager]]))
  const load = (): Promise<unknown> => rejection(io.loadShared({ manager: 's3', ref: {} }))
  expect(isAway(await load())).toBe(true)
  error = new Error('no such key')
  expect(isAway(await load())).toBe(false)
})

describe('openGate', () => {
  const opener = (answers: (Error | 'stored')[], nowMs = 0) => {
    const created: Entry[] = []
    const log = {
      appendOnce: async (entry: Entry) => {
        created.push(entry)
        const answer = answers.shift()
        if (answer instanceof ConflictError) return 'exists'
        if (answer instanceof Error) throw answer
        return 'stored'
      },
    }
    const deps = {
      ...{ id: 'worker', names, clock: { now: () => nowMs + created.length * 1000 }, gates: gateSettings(GATES) },
      ...{ logOf: () => log },
      connection: {
        isClosed: false,
        ready: async () => undefined,
        read: async () => ({
          ...created[0],
          seq: 1,
          timeMs: 0,
          headers: new Map([['Content-Type', 'application/json']]),
        }),
      },
    } as unknown as GateOpenerDeps
    const at = { shard: 0, run, pipeline: 'p', asset: 'a', prefix: 'a1', attempt: 1 }
    return { opener: new GateOpener(deps, at), created }
  }
  const late = asAway(new TimeoutError('no answer'))
  const wanted = new AbortController()

  it('waits while the server is away, and opens one gate that is new', async () => {
    const { opener: gates, created } = opener([late, late, 'stored'])
    expect(await gates.open({}, wanted)).toMatchObject({ id: `${run}.a.a1n1`, isNew: true })
    expect(created).toHaveLength(3)
  })

  it.each(['1h', Number.POSITIVE_INFINITY] as const)(
    'opens a gate that is new, though only the answer was lost (timeout %s)',
    async (timeout) => {
      const { opener: gates } = opener([late, new ConflictError('exists')])
      expect(await gates.open({ timeout }, wanted)).toMatchObject({ id: `${run}.a.a1n1`, isNew: true })
    },
  )

  it('finds a gate without a time limit that another execution opened, though the server was away', async () => {
    const { opener: gates } = opener([late, new ConflictError('exists')], 60_000)
    expect(await gates.open({ timeout: Number.POSITIVE_INFINITY }, wanted)).toMatchObject({ isNew: false })
  })

  it('finds the gate of the execution before', async () => {
    const { opener: gates } = opener([new ConflictError('exists')])
    expect(await gates.open({}, wanted)).toMatchObject({ id: `${run}.a.a1n1`, isNew: false })
  })

  it('waits no longer than its code is wanted', async () => {
    const cancelled = new Error('cancelled')
    const { opener: gates } = opener([late, late])
    expect(await rejection(gates.open({}, { signal: AbortSignal.abort(cancelled) }))).toBe(cancelled)
  })
})

it('a read that had no answer for a minute says that the server is away, whatever it got', async () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const read = async (answer: Error): Promise<unknown> => {
    const broken = { isClosed: false, suspect: () => undefined, explained: async (error: unknown) => error }
    const at = { ...broken, untilDisconnect: async (ask: () => Promise<unknown>) => await ask() }
    const asked = async (): Promise<never> => {
      vi.advanceTimersByTime(61_000)
      throw answer
    }
    return await rejection(Connection.prototype.read.call(at as unknown as Connection, asked))
  }
  const error = await read(new errors.TimeoutError())
  expect(error).toMatchObject({ code: 'unreachable', message: expect.stringContaining('no answer in 60 s') })
  expect(isAway(error)).toBe(true)
  const mistake = new TypeError('x is not a function')
  expect(await read(mistake)).toBe(mistake)
})
