import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { Watch } from '../../src/worker/control/watch.ts'
import { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import type { Delivery } from '../../src/worker/pull/puller.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { AttemptTask } from '../../streams/tasks.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** A watch over one attempt, whose asset has an end on the log from `hasEnded` on. */
function watchOne() {
  const heard = new Map<string, (error: null, message: object) => void>()
  const at = { hasEnded: false, looks: 0 }
  const read = async (): Promise<object | undefined> => {
    at.looks += 1
    return at.hasEnded ? { subject: 'end' } : undefined
  }
  const nc = {
    subscribe: (subject: string, { callback }: { callback: (error: null, message: object) => void }) => {
      heard.set(subject, callback)
      return { unsubscribe: () => undefined }
    },
  }
  const connection = { nc, read, isClosed: false }
  const names = namesOf('ns')
  const run = runId(0, 'watched')
  const task = {
    ...{ kind: 'gather', id: 'id', run, asset: 'made', pipeline: 'p', version: '1', shape: 's', deps: {} },
    ...{ attempt: 1, attemptsLeft: 1 },
  } as AttemptTask
  const delivery = { shard: 0, count: 1, streamSeq: 1, timeMs: 0, reply: '', headers: new Map() }
  const shared = { connection, names } as unknown as WorkerShared
  const held = new InFlightTask(shared.connection, task, delivery as unknown as Delivery, 0)
  const watch = new Watch(shared, new Map([[task.id, held]]))
  watch.start()
  const note = (asset: string): void =>
    heard.get(names.notification('abort', '*'))?.(null, {
      subject: names.notification('abort', run),
      string: () => asset,
    })
  return { at, held, watch, task, note }
}

it('an attempt whose asset has ended is aborted while its code runs', async () => {
  const { at, held, watch } = watchOne()
  at.hasEnded = true
  await vi.advanceTimersByTimeAsync(2100)
  expect(held.abort.signal.aborted).toBe(true)
  watch.stop()
})

it('an attempt is not aborted by the outcome that it stores itself: what is chained to it goes on', async () => {
  const { at, held, watch, task, note } = watchOne()
  await vi.advanceTimersByTimeAsync(1100)
  const { looks } = at
  held.stores()
  // Stored, and the answer to that is on its way.
  at.hasEnded = true
  await vi.advanceTimersByTimeAsync(1100)
  note('made')
  expect(at.looks).toBeGreaterThan(looks)
  expect(held.abort.signal.aborted).toBe(false)
  held.goOn({ ...task, asset: 'next' })
  note('')
  expect(held.abort.signal.aborted).toBe(true)
  watch.stop()
})
