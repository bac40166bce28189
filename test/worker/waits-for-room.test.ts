import { describe, expect, it } from 'vitest'
import { asset } from '../../src/index.ts'
import type { Connection } from '../../src/log/connection.ts'
import { LimitWaiters, runLimited } from '../../src/worker/attempt/limits.ts'
import { Performer } from '../../src/worker/attempt/perform.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { Deps, KeyChunk } from '../../src/worker/attempt/values.ts'
import { LeaseRun } from '../../src/worker/lease/lease-run.ts'
import { Report } from '../../src/worker/lease/report.ts'
import { HandBack } from '../../src/worker/pull/disposition.ts'
import { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import type { Delivery } from '../../src/worker/pull/puller.ts'
import { Slots } from '../../src/worker/pull/slots.ts'
import { decode } from '../../streams/codec.ts'
import { CancelledError } from '../../streams/errors.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { ListWriter, readList } from '../../streams/list.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { Task } from '../../streams/tasks.ts'
import { until } from '../kit/until.ts'

const run = runId(0, 'waits')
const never = (): number => {
  throw new Error('there is no room for it')
}
const common = { id: 'task', run, pipeline: 'p', version: '1', shape: 's', deps: {}, attempt: 1 }
const plain = { ...common, kind: 'execute', asset: 'one', attemptsLeft: 0 } as Task
const lease = {
  ...{ ...common, kind: 'lease', asset: 'many', from: 0, to: 1, keyChunk: 0 },
  ...{ lease: '0-1', ordinal: 1, maxAttempts: 1 },
} as Task & { kind: 'lease' }

/** A worker all of whose slots are taken, for as long as a test lasts. */
function fullWorker(task: Task) {
  const slots = new Slots(1)
  slots.tryTake()
  const told: string[] = []
  const stored: unknown[] = []
  const append = async ({
    subject,
    payload,
    contentType,
  }: {
    subject: string
    payload: Uint8Array
    contentType: string
  }) =>
    void stored.push(
      subject.includes('.work.') ? 'requeued' : Reflect.get(Object(decode(payload, contentType)), 'fact'),
    )
  const connection = {
    ...{ nc: {}, isClosed: false, share: (most: number) => most },
    tell: (_: string, text: string) => void told.push(text),
  } as unknown as Connection
  const log = { append, appendOnce: append }
  const shared = {
    ...{ id: 'worker', names: namesOf('ns'), connection, slots, clock: { now: () => 0 }, resources: {} },
    ...{ logs: { of: () => ({}) }, logOf: () => log, workOf: () => log },
  } as unknown as WorkerShared
  const delivery = { shard: 0, streamSeq: 1, count: 1, timeMs: 0, reply: 'r', subject: 'work', headers: new Map() }
  const held = new InFlightTask(connection, task, delivery as unknown as Delivery, 0)
  return { slots, told, stored, shared, held }
}

describe.each([
  ['is cancelled', new CancelledError('its run is cancelled'), [], ['+ACK']],
  ['goes back as the worker stops', new HandBack(), ['requeued'], ['+ACK']],
])('what waits for room and %s', (_, reason, kept, answers) => {
  it.each([
    ['', {}],
    [' of an asset with limits', { slots: { bucket: 'b', max: 1 } }],
  ])('leaves its worker at once as an attempt%s, and leaves no place taken', async (_title, limits) => {
    const { slots, told, stored, shared, held } = fullWorker(plain)
    const one = asset('one', { ...limits, execute: never })
    const parts = {
      code: { of: () => one },
      watch: { wanted: async () => 'wanted' },
      alone: { beside: (work: () => unknown) => work() },
      liveness: { ended: () => undefined },
    } as unknown as ConstructorParameters<typeof Performer>[1]
    const performing = new Performer(shared, parts).perform(held, plain)
    await until('it waits', () => slots.waiting === 1)
    held.abort.abort(reason)
    await performing
    expect([stored, told, slots.waiting]).toEqual([kept, answers, 0])
  })

  it('ends as a lease, which says nothing of how long it lasted', async () => {
    const { slots, stored, shared, held } = fullWorker(lease)
    const keys = new ListWriter()
    keys.add(0)
    const report = new Report(shared, { shard: 0, run, asset: assetName('many') }, lease)
    const many = asset('many', { scatter: () => [0], execute: never })
    const keyChunk = new KeyChunk(0, readList(keys.list().slice(), undefined))
    const parts = { shared, held, task: lease, asset: many, report, keyChunk, deps: new Deps([]) }
    const running = new LeaseRun({ ...parts, startedMs: performance.now() }, undefined).run()
    await until('it waits', () => slots.waiting === 1)
    held.abort.abort(reason)
    await running
    expect([stored, slots.waiting]).toEqual([reason instanceof HandBack ? ['lease.returned'] : [], 0])
  })

  it('ends as an instance whose turn at a limit has come', async () => {
    const { slots, held } = fullWorker(lease)
    const { signal } = held.abort
    const limiter = { take: async () => undefined }
    const start = {
      ...{
        limits: { rate: { rate: { limit: 1, periodMs: 1000 }, option: 'r' } },
        limiter,
        waiters: new LimitWaiters(1),
      },
      ...{ local: slots, key: 0, ownBucket: 'b', by: 'b', ordinal: 1, alone: false, signal, waiting: signal },
      ahead: { most: 1 },
    } as unknown as Parameters<typeof runLimited>[0]
    const limited = runLimited(start, never)
    await until('it waits', () => slots.waiting === 1)
    held.abort.abort(reason)
    await expect(limited).rejects.toBe(reason)
    expect(slots.waiting).toBe(0)
  })
})
