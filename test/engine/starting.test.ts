import { expect, it } from 'vitest'
import type { Effect } from '../../projections/effects.ts'
import { type DispatchContext, dispatch } from '../../src/engine/shard/dispatch.ts'
import { Starting } from '../../src/engine/shard/starting.ts'
import type { Entry } from '../../src/log/nats.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

const names = namesOf('ns')
const run = runId(0, 'one')
const cancel: Effect = {
  do: 'fact',
  fact: { name: 'run.cancel_requested', ids: { run }, data: { reason: 'the next one is due' } },
}

/** Decisions for a log, and what is stored there. No run starts before `mayStart` resolves. */
function engine() {
  const stored: string[] = []
  const mayStart = Promise.withResolvers<void>()
  const read = async (): Promise<undefined> => await mayStart.promise.then(() => undefined)
  const appendOnce = async (...entries: Entry[]): Promise<string> => {
    stored.push(...entries.map(({ subject }) => names.factPath(subject) ?? ''))
    return 'stored'
  }
  const context = { connection: { read }, names, shard: 0, log: { appendOnce }, starting: new Starting() }
  return { context: context as unknown as DispatchContext, stored, mayStart }
}

const schedule = { name: 's', occurrence: '1000', atMs: 1000 }
const data = { pipeline: 'p', version: 'v', target: 't', upstream: 'all', schedule } as const
const request = { name: 'run.requested', ids: { run }, data } as const
const of = { pipeline: 'p', schedule: 's', occurrence: '1000' }
const fired = { name: 'schedule.fired', ids: of, data: { run, atMs: 1000 } } as const

it.each([
  ['of a schedule', { do: 'start_run', fired, request } as Effect],
  ['that says what a run is asked for with', { do: 'fact', fact: request } as Effect],
])('the cancel of a run %s stands behind its request, however long that takes', async (_, start) => {
  const { context, stored, mayStart } = engine()
  const done = [dispatch(context, start, 0), dispatch(context, cancel, 0)]
  await new Promise((resolve) => setImmediate(resolve))
  expect(stored).toEqual([])
  mayStart.resolve()
  await Promise.all(done)
  expect(stored.at(-1)).toBe(`run.${run}.cancel_requested`)
  expect(stored).toContain(`run.${run}.requested`)
})

it('the cancel of a run that cannot be started is not stored, and fails with it', async () => {
  const { context, stored, mayStart } = engine()
  const done = [dispatch(context, { do: 'fact', fact: request }, 0), dispatch(context, cancel, 0)]
  mayStart.reject(new Error('away'))
  expect((await Promise.allSettled(done)).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  expect(stored).toEqual([])
  await dispatch(context, cancel, 0)
  expect(stored).toEqual([`run.${run}.cancel_requested`])
})
