import { expect, it } from 'vitest'
import type { WorkerShared } from '../../src/worker/attempt/shared.ts'
import { lastWordsOf } from '../../src/worker/control/last-words.ts'
import type { InFlightTask } from '../../src/worker/pull/in-flight-task.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

const shared = { id: 'worker', names: namesOf('ns'), connection: { nc: {} } } as unknown as WorkerShared

it.each([
  ['whose code has not begun is handed back', { begun: false, waitsAtGate: false }, 0],
  ['whose code runs is reported', { begun: true, waitsAtGate: false }, 1],
  ['that waits at its gate is handed back: a signal may be kept for it', { begun: true, waitsAtGate: true }, 0],
])('when its process ends, an attempt %s', (_, state, facts) => {
  const task = { kind: 'execute', run: runId(0, 'words'), asset: 'one', pipeline: 'p', attempt: 1 }
  const held = { ...state, task, shard: 0, reply: 'reply' } as unknown as InFlightTask
  const ending = { culprit: undefined, error: { code: 'worker_lost', message: 'it ended' } }
  const words = lastWordsOf(shared, [held], ending, 'name')
  expect([words.facts.length, words.replies]).toEqual([facts, [{ reply: 'reply', facts }]])
})
