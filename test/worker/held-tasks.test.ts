import { expect, it } from 'vitest'
import type { Connection } from '../../src/log/connection.ts'
import { Performer } from '../../src/worker/attempt/perform.ts'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { HeldTasks } from '../../src/worker/pull/held-tasks.ts'
import { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import type { Delivery } from '../../src/worker/pull/puller.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import type { AttemptTask } from '../../streams/tasks.ts'

const task = { kind: 'execute', id: 'task', run: runId(0, 'held'), asset: 'one', attempt: 1 } as unknown as AttemptTask

/** A worker that has one task, by message 1. */
function workerOf() {
  const told: string[] = []
  const connection = { isClosed: false, tell: (reply: string, text: string) => void told.push(`${reply} ${text}`) }
  const deliver = (streamSeq: number, reply: string): Delivery =>
    ({ shard: 0, streamSeq, count: 1, timeMs: 0, reply, subject: 'work', headers: new Map() }) as unknown as Delivery
  const inHand = (delivery: Delivery): InFlightTask =>
    new InFlightTask(connection as unknown as Connection, task, delivery, 0)
  const tasks = new HeldTasks()
  const held = inHand(deliver(1, 'first'))
  tasks.add(held)
  return { tasks, held, deliver, inHand, told, connection }
}

it('a message that comes again is the same task, also while that goes back to its queue', () => {
  const { tasks, held, deliver } = workerOf()
  expect(tasks.meet('task', deliver(1, 'second'))).toBe('again')
  held.isLeaving = true
  expect(tasks.meet('task', deliver(1, 'third'))).toBe('again')
  expect(held.reply).toBe('third')
})

it('another message of a task is a repeat, and while that goes back to its queue the task anew', () => {
  const { tasks, held, deliver, inHand } = workerOf()
  expect(tasks.meet('task', deliver(2, 'other'))).toBe('repeat')
  held.isLeaving = true
  expect(tasks.meet('task', deliver(2, 'other'))).toBe('new')
  const anew = inHand(deliver(2, 'other'))
  tasks.add(anew)
  // The old message may still come again, and is nobody else's.
  expect(tasks.meet('task', deliver(1, 'second'))).toBe('again')
  tasks.delete(held)
  expect([tasks.has('0.1'), tasks.has('0.2'), tasks.size]).toEqual([false, true, 1])
  expect(tasks.meet('task', deliver(3, 'third'))).toBe('repeat')
  tasks.delete(anew)
  expect([tasks.size, tasks.meet('task', deliver(3, 'third'))]).toEqual([0, 'new'])
})

it('a message of a queue that was made anew is not taken for the one whose number it has', () => {
  const { tasks, held, deliver, connection } = workerOf()
  const other = { ...task, id: 'other' } as AttemptTask
  expect(tasks.meet('other', deliver(1, 'anew'))).toBe('new')
  expect(held.reply).toBe('first')
  tasks.add(new InFlightTask(connection as unknown as Connection, other, deliver(1, 'anew'), 0))
  expect(tasks.size).toBe(2)
  tasks.delete(held)
  expect([tasks.size, tasks.has('0.1')]).toEqual([1, true])
})

it.each([
  ['is acknowledged where it came last, and known to be done with', true],
  ['and cannot be stored is left to its next delivery', false],
])('a task that goes back to its queue %s', async (_, isStored) => {
  const { tasks, held, deliver, told, connection } = workerOf()
  const ended: string[] = []
  const append = async (): Promise<void> => {
    expect(tasks.meet('task', deliver(1, 'second'))).toBe('again')
    if (!isStored) throw new Error('no room')
  }
  const shared = {
    ...{ connection, names: namesOf('ns'), clock: { now: () => 0 }, logger: { warn: () => undefined } },
    workOf: () => ({ append }),
  } as unknown as WorkerShared
  const liveness = { ended: (message: string) => void ended.push(message) }
  await new Performer(shared, { liveness } as unknown as ConstructorParameters<typeof Performer>[1]).putBack(held, 0)
  expect([told, ended]).toEqual(isStored ? [['second +ACK'], ['0.1']] : [[], []])
})
