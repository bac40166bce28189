import { expect, it } from 'vitest'
import { asset } from '../../src/index.ts'
import type { Entry } from '../../src/log/nats.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { Deps, KeyChunk } from '../../src/worker/attempt/values.ts'
import { InstanceRunner } from '../../src/worker/lease/instances.ts'
import { LeaseRun } from '../../src/worker/lease/lease-run.ts'
import { Report } from '../../src/worker/lease/report.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { Slots } from '../../src/worker/pull/slots.ts'
import { decode } from '../../streams/codec.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { ListWriter, readList } from '../../streams/list.ts'
import type { ScatterOutcomes } from '../../streams/scatter-schemas.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { LeaseTask } from '../../streams/tasks.ts'

const LARGE = 'x'.repeat(20_000)

/** A lease of `count` instances of `execute`, in a worker without a server. */
function leaseOf(execute: (index: number) => unknown, count: number, store: () => Promise<object>) {
  const stored: ScatterOutcomes[] = []
  const shared = {
    id: 'worker',
    names: namesOf('ns'),
    connection: { nc: {}, share: (most: number) => most },
    slots: new Slots(100),
    resources: {},
    logs: { of: () => ({}) },
    io: { store },
    logOf: () => ({
      append: async ({ payload, contentType }: Entry) => stored.push(decode(payload, contentType) as ScatterOutcomes),
      appendOnce: async () => 'stored',
    }),
  } as unknown as WorkerShared
  const run = runId(0, 'lease')
  const task = {
    ...{ kind: 'lease', id: 'id', run, asset: 'many', pipeline: 'p', version: '1', shape: 's', deps: {} },
    ...{ from: 0, to: count, keyChunk: 0, lease: `0-${count}`, ordinal: 1, attempt: 1, maxAttempts: 3 },
  } as LeaseTask
  const report = new Report(shared, { shard: 0, run, asset: assetName('many') }, task)
  const keys = new ListWriter()
  for (let i = 0; i < count; i++) keys.add(i)
  const abort = new AbortController()
  const held = { shard: 0, abort, slot: -1, running: new Map() } as unknown as InFlightTask
  const parts = {
    ...{ shared, held, task, report, startedMs: performance.now(), deps: new Deps([]) },
    keyChunk: new KeyChunk(0, readList(keys.list().slice(), undefined)),
  }
  const many = asset('many', { scatter: () => [], execute: ({ index }) => execute(index) })
  const runner = new InstanceRunner({ ...parts, asset: many })
  /** The whole lease, which has lasted for so long already. */
  const runAll = (sinceMs: number): Promise<void> =>
    new LeaseRun({ ...parts, asset: many, startedMs: performance.now() - sinceMs }, undefined).run()
  return { runner, report, abort, stored, runAll }
}

it('a value that throws when it is looked at again fails its instance, and moves no value of others', async () => {
  let looks = 0
  const odd = {
    large: LARGE,
    get moody() {
      looks += 1
      if (looks > 2) throw new Error('not again')
      return 1
    },
  }
  const { runner, report, stored } = leaseOf(
    (index) => (index === 0 ? odd : `value ${index}`),
    3,
    async () => ({}),
  )
  for (const index of [0, 1, 2]) await runner.run(index)
  await report.end(1)
  const [outcomes] = stored
  expect(outcomes?.errors).toMatchObject([[0, { error: { message: expect.stringContaining('not again') } }]])
  const values = readList(outcomes?.values ?? [], outcomes?.encoding)
  expect([values.count, values.item(1), values.item(2)]).toEqual([3, 'value 1', 'value 2'])
})

it.each([1, 2, 3, 4, 5, 6])(
  'an end %i turns after a large value is there leaves no rejection unheard',
  async (turns) => {
    const unheard: unknown[] = []
    const hear = (error: unknown): void => void unheard.push(error)
    process.on('unhandledRejection', hear)
    const endIn = async (left: number): Promise<void> => {
      for (let i = 0; i < left; i++) await undefined
      abort.abort(new Error('ended'))
    }
    const execute = (): Promise<string> => {
      void endIn(turns)
      return Promise.resolve(LARGE)
    }
    const { runner, abort } = leaseOf(execute, 1, async () => Promise.reject(new Error('there is no room')))
    await runner.run(0)
    await new Promise((resolve) => setImmediate(resolve))
    expect(runner.wasCut).toBe(true)
    expect(unheard).toEqual([])
    process.off('unhandledRejection', hear)
  },
)

it('a lease of quick instances counts as short, and so does its first one, however long it waited for its keys', async () => {
  const { stored, runAll } = leaseOf(
    (index) => index,
    3,
    async () => ({}),
  )
  await runAll(60_000)
  const [{ heldMs, ms } = {}] = stored
  expect(Math.max(...(ms ?? []))).toBeLessThan(30_000)
  expect(heldMs).toBeLessThan(30_000)
})

it('a lease counts as long as its instances last, while they run side by side', async () => {
  const { stored, runAll } = leaseOf(
    () => new Promise((resolve) => setTimeout(resolve, 60)),
    10,
    async () => ({}),
  )
  const startedMs = performance.now()
  await runAll(0)
  const tookMs = performance.now() - startedMs
  const { heldMs } = stored.at(-1) ?? {}
  expect(heldMs).toBeGreaterThan(55)
  expect(heldMs).toBeLessThan(tookMs + 1)
})
