/** Facts, timers and tasks as messages. */
import type { Effect } from '../../projections/effects.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { encodeFact, type FactDraft, factPath, isRepeatable, timerPath } from '../../streams/facts.ts'
import { placeOf } from '../../streams/places.ts'
import type { Names } from '../../streams/subjects.ts'
import { encodeTask } from '../../streams/tasks.ts'
import type { Entry } from './nats.ts'

/**
 * A fact as a message for a shard. Every fact that can occur once is stored only if its place is
 * free. `by`: who caused it, where that is somebody outside.
 */
export function factEntry(names: Names, shard: number, fact: FactDraft, by?: string): Entry {
  const path = factPath(fact.name, fact.ids)
  const { payload, contentType } = encodeFact(fact, by)
  const subject = names.fact(shard, path)
  if (isRepeatable(fact.name)) return { subject, payload, contentType }
  const filter = names.fact(shard, placeOf(fact))
  return { subject, payload, contentType, expect: { seq: 0, ...(filter === subject ? {} : { subject: filter }) } }
}

/**
 * A schedule on the log: at `dueMs` the server appends the fact. The subject of the schedule
 * belongs to it alone, so the log holds it once.
 */
export function timerEntry(names: Names, shard: number, fact: FactDraft, dueMs: number): Entry {
  const { payload, contentType } = encodeFact(fact)
  const headers = {
    'Nats-Schedule': `@at ${new Date(dueMs).toISOString()}`,
    'Nats-Schedule-Target': names.fact(shard, factPath(fact.name, fact.ids)),
  }
  return { subject: timerSubject(names, shard, fact), payload, contentType, expect: { seq: 0 }, headers }
}

/**
 * The same entry, which also takes away the timer that was to bring `fact`. No error when it has
 * fired, or was never there.
 */
export function stoppingTimer(names: Names, shard: number, entry: Entry, fact: FactDraft): Entry {
  const headers = { 'Nats-Scheduler': timerSubject(names, shard, fact), 'Nats-Schedule-Next': 'purge' }
  return { ...entry, headers: { ...entry.headers, ...headers } }
}

function timerSubject(names: Names, shard: number, fact: FactDraft): string {
  const path = timerPath(factPath(fact.name, fact.ids))
  if (path === undefined) throw new FlowStoneError('internal', `no timer brings ${fact.name}`)
  return names.fact(shard, path)
}

/**
 * Marks a task that may be older than its message: what led to it happened a while before it was
 * stored. Its scatter may have been paused or closed in between, so its worker looks at the log
 * first.
 */
export const STALE_HEADER = 'Fs-Stale'

export function markStale(entry: Entry): Entry {
  return { ...entry, headers: { ...entry.headers, [STALE_HEADER]: '1' } }
}

/**
 * A task as a message: on its queue, or as a schedule that enqueues it at `dueMs`. `repair`
 * distinguishes a task that is enqueued again from the first one, which was lost.
 */
export function taskEntry(
  names: Names,
  shard: number,
  command: Extract<Effect, { do: 'task' }>,
  nowMs: number,
  repair = '',
): Entry {
  const { task, queue, priority, dueMs } = command
  const { payload, contentType } = encodeTask(task)
  const name = { pipeline: task.pipeline, queue, priority, run: task.run, asset: task.asset }
  const target = command.limitedQueue
    ? names.limitedQueueTask(shard, name)
    : names.task(shard, task.pipeline, queue, priority)
  const msgId = `${task.id}${repair}`
  const headers = { 'Fs-Task': task.id }
  if (dueMs === undefined || dueMs <= nowMs) return { subject: target, payload, contentType, msgId, headers }
  return {
    subject: names.taskSchedule(shard, task.id),
    payload,
    contentType,
    msgId,
    headers: { ...headers, 'Nats-Schedule': `@at ${new Date(dueMs).toISOString()}`, 'Nats-Schedule-Target': target },
  }
}
