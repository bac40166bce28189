/**
 * What a worker says when its process ends without having been asked to: by an exception that
 * nobody caught, a rejection that nobody handled, or `process.exit()` in user code. Without it,
 * others would wait until `ackWait` has passed, and everything that it held would have lost an
 * attempt. What ends the process is charged with it, where it is known; then what stood beside it
 * is handed back, at no attempt.
 */
import { encodeMsgpack } from '../../../streams/codec.ts'
import { messageOf } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import { storeSubject } from '../../../streams/jetstream.ts'
import type { ErrorInfo } from '../../../streams/schemas.ts'
import { cut } from '../../../streams/text.ts'
import { factEntry } from '../../log/entries.ts'
import { headerText } from '../../log/headers.ts'
import { headersOf } from '../../log/nats.ts'
import { type Execution, running } from '../attempt/executions.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import type { LastWords } from './helper-code.ts'

const WITHIN_MS = 1500
const TEXT_MAX = 4000

export interface Ending {
  readonly culprit: Execution | undefined
  readonly error: ErrorInfo
}

type Speaker = (ending: Ending) => void

const speakers = new Set<Speaker>()
let uncaught: (Ending & { readonly atMs: number }) | undefined
/**
 * A process that lives on after an uncaught error (it has a handler) does not end by that error
 * later.
 */
const UNCAUGHT_MS = 10_000

/** Before the process dies of it; it changes nothing about that. */
function onUncaught(error: unknown, origin: string): void {
  const isError = error instanceof Error
  const what = origin === 'unhandledRejection' ? 'a rejection that nobody handled' : 'an exception that nobody caught'
  uncaught = {
    atMs: performance.now(),
    culprit: running(),
    error: {
      code: 'worker_lost',
      message: cut(`its process ended by ${what}: ${messageOf(error)}`, TEXT_MAX),
      ...(isError && typeof error.stack === 'string' ? { stack: cut(error.stack, TEXT_MAX) } : {}),
    },
  }
}

function onExit(code: number): void {
  const ending =
    uncaught && performance.now() - uncaught.atMs < UNCAUGHT_MS
      ? uncaught
      : {
          culprit: running(),
          error: { code: 'worker_lost', message: `its process ended by process.exit(${code})` },
        }
  for (const speak of speakers) speak(ending)
}

/** Calls `speak` when the process ends; returns what ends that. It must not wait for anything. */
export function beforeExit(speak: Speaker): () => void {
  if (speakers.size === 0) process.on('uncaughtExceptionMonitor', onUncaught).on('exit', onExit)
  speakers.add(speak)
  return () => {
    speakers.delete(speak)
    if (speakers.size === 0) process.off('uncaughtExceptionMonitor', onUncaught).off('exit', onExit)
  }
}

/** What is said of all tasks in a worker's hands. */
export function lastWordsOf(
  shared: WorkerShared,
  all: readonly InFlightTask[],
  { culprit, error }: Ending,
  name: string,
): LastWords {
  const facts: LastWords['facts'][number][] = []
  const replies: LastWords['replies'][number][] = []
  for (const [task, held] of all.entries()) {
    const drafts = draftsOf(shared, held, culprit, error)
    for (const draft of drafts) {
      const entry = factEntry(shared.names, held.shard, draft)
      facts.push({
        subject: entry.subject,
        headers: headerText(headersOf(entry, undefined)),
        payload: entry.payload,
        task,
      })
    }
    replies.push({ reply: held.reply, facts: drafts.length })
  }
  const farewell = {
    subject: storeSubject(shared.connection.nc, name),
    headers: 'NATS/1.0\r\nKV-Operation: DEL\r\n\r\n',
  }
  return { facts, replies, farewell, withinMs: WITHIN_MS }
}

function draftsOf(
  shared: WorkerShared,
  held: InFlightTask,
  culprit: Execution | undefined,
  error: ErrorInfo,
): FactDraft[] {
  const { task } = held
  // Of what waits at a gate, a signal may be kept: who gets it next looks for that.
  if (!held.begun || held.waitsAtGate) return []
  const isAt = culprit?.runId === task.run && culprit.asset === task.asset
  const run = parseRunId(task.run).id
  const asset = assetName(task.asset)
  const worker = shared.id
  const back: ErrorInfo = { code: 'returned', message: 'its process ended because of other code' }
  switch (task.kind) {
    case 'reminder':
      return []
    case 'lease': {
      const { lease } = task
      const lost: FactDraft = { name: 'lease.lost', ids: { run, asset, lease }, data: { lease, worker } }
      const returned: FactDraft = { name: 'lease.returned', ids: { run, asset, lease }, data: { lease, worker } }
      if (!culprit) return [lost]
      const { index } = culprit
      if (!isAt) return [returned]
      if (index === undefined) return [lost]
      if (index < task.from || index >= task.to) return [returned]
      const data = {
        lease: task.lease,
        ordinal: task.ordinal,
        worker,
        at: [index],
        ms: [0],
        values: encodeMsgpack([null]),
        errors: [[0, { outcome: 'lost' as const, error }]] as [number, { outcome: 'lost'; error: ErrorInfo }][],
      }
      return [{ name: 'scatter.outcomes', ids: { run, asset }, data }, returned]
    }
    case 'resume': {
      const isLost = !culprit || (isAt && culprit.index === task.index)
      const outcome = isLost ? ('lost' as const) : ('returned' as const)
      const data = {
        lease: `gate-${task.from.gate}`,
        ordinal: task.ordinal,
        resumes: task.from.gate,
        worker,
        at: [task.index],
        ms: [0],
        values: encodeMsgpack([null]),
        errors: [[0, { outcome, error: isLost ? error : back }]] as [
          number,
          { outcome: 'lost' | 'returned'; error: ErrorInfo },
        ][],
      }
      return [{ name: 'scatter.outcomes', ids: { run, asset }, data }]
    }
    default: {
      const isLost = !culprit || isAt
      const ids = { pipeline: task.pipeline, asset, run, attempt: String(task.attempt) }
      const outcome = isLost ? ('lost' as const) : ('returned' as const)
      const data = { phase: task.kind, worker, outcome, error: isLost ? error : back, durationMs: 0 }
      return [{ name: 'attempt.ended', ids, data }]
    }
  }
}
