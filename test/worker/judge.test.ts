import { expect, it } from 'vitest'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import type { Heard, Liveness, WorkerSeen } from '../../src/worker/control/liveness.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { isWaitedFor, Judge } from '../../src/worker/pull/judge.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

const NOW_MS = 1_000_000_000

/** What becomes of message 7, `ageMs` old, beside a worker that was seen last `silentMs` ago. */
async function judged(ageMs: number, silentMs: number, answers: Partial<Heard> = {}) {
  const asked: string[][] = []
  const seen: WorkerSeen = { id: 'other', seenMs: NOW_MS - silentMs, beatMs: 1000, pipelines: ['p'] }
  const none = new Set<string>()
  const liveness = {
    seen: async () => [seen],
    ask: async (_: string, __: readonly string[], expected: ReadonlySet<string>) => {
      asked.push([...expected])
      return { alive: none, held: none, ended: none, ...answers }
    },
  } as unknown as Liveness
  const shared = {
    ...{ id: 'own', names: namesOf('ns'), clock: { now: () => NOW_MS }, connection: { read: async () => undefined } },
  } as unknown as WorkerShared
  const task = { kind: 'execute', run: runId(0, 'judged'), asset: 'one', pipeline: 'p', attempt: 1 }
  const held = { shard: 0, streamSeq: 7, task, delivery: { timeMs: NOW_MS - ageMs } } as unknown as InFlightTask
  const verdict = await new Judge(shared, liveness).verdict(held)
  return { verdict, asked }
}

it.each([
  ['as long as its answer may take, where its sign of life is fresh', 500, 500, ['other'], 'lost'],
  [
    'as long, where its sign of life is as old as the message: the server may have been away',
    61_000,
    60_000,
    ['other'],
    'lost',
  ],
  ['not at all, where it was gone before the message came', 1000, 60_000, [], 'fresh'],
])('of what is delivered again another worker is waited for %s', async (_, ageMs, silentMs, expected, verdict) => {
  expect(await judged(ageMs, silentMs)).toEqual({ verdict, asked: [expected] })
  const own = { alive: new Set(['other']), held: new Set(['0.7']) }
  expect((await judged(ageMs, silentMs, own)).verdict).toBe('elsewhere')
})

const run = runId(0, 'behind')
const asset = { run, asset: 'one', pipeline: 'p' }
const attempt = (kind: string, n: number) => ({ ...asset, kind, attempt: n })
const lease = { ...asset, kind: 'lease', lease: '2-3-2', from: 2, to: 3 }

/** Whether a task is waited for, by what the state says of its asset or scatter now, and later. */
async function waitedFor(task: object, now: object, later?: object): Promise<boolean> {
  const isLease = 'lease' in task
  const read = async (_: number, key: string): Promise<unknown> =>
    key.startsWith('run.') ? { id: run, assets: isLease ? {} : { one: now } } : now
  return await isWaitedFor({ shard: 0, task } as InFlightTask, { read, readFolded: async () => later })
}

it.each([
  ['a signal, of which the state has the gate before it', attempt('signal', 2), { status: 'suspended', attempt: 1 }],
  ['a gather, of which the state has the scatter', attempt('gather', 2), { status: 'scattering', attempt: 1 }],
  ['an attempt that the state has, too', attempt('execute', 2), { status: 'queued', attempt: 2 }],
])('of what is delivered again is waited for: %s', async (_, task, now) => {
  expect(await waitedFor(task, now)).toBe(true)
})

it.each([
  ['an attempt behind which its asset waits at a gate', attempt('execute', 1), { status: 'suspended', attempt: 1 }],
  ['an attempt behind which there is another one', attempt('execute', 1), { status: 'queued', attempt: 2 }],
  ['an attempt of an asset that has ended', attempt('execute', 2), { status: 'cancelled', attempt: 1 }],
])('of what is delivered again is over: %s', async (_, task, now) => {
  expect(await waitedFor(task, now)).toBe(false)
})

it('of what is delivered again a lease that the state does not have is over only when the state has all of the log', async () => {
  const open = { status: 'open', fedTo: 8, leases: {} }
  expect(await waitedFor(lease, { ...open, leases: { '2-3-2': {} } })).toBe(true)
  expect(await waitedFor(lease, { ...open, fedTo: 2 })).toBe(true)
  expect(await waitedFor(lease, open, { ...open, leases: { '2-3-2': {} } })).toBe(true)
  expect(await waitedFor(lease, open, open)).toBe(false)
  expect(await waitedFor(lease, { ...open, status: 'completed' }, open)).toBe(false)
})
