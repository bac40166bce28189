import type { DraftOf, FactDraft } from '../../streams/facts.ts'
import { hashOfValue } from '../../streams/fingerprint.ts'
import { type KeySpace, type RunId, runIdIn } from '../../streams/ids.ts'
import type { RunState } from '../state.ts'
import { groupOf } from './concurrency-key.ts'
import type { GivenValue } from './input.ts'

export type RunRequest = DraftOf<'run.requested'>['data']

/** The id of the run: its shard follows from the concurrency key, where the request has one. */
export function runIdFor(
  { pipeline, concurrency }: Pick<RunRequest, 'pipeline' | 'concurrency'>,
  space: KeySpace,
  text: string,
  shards: number,
  attempt = 1,
): RunId {
  return runIdIn(space, text, shards, attempt, concurrency && groupOf(pipeline, concurrency))
}

/**
 * What may be another one in two requests that ask for the same: a deploy came in between, another
 * way of asking, or another patience.
 */
const ANY: ReadonlySet<string> = new Set([
  'version',
  'trigger',
  'event',
  'retryOf',
  'timeoutMs',
  'parent',
  'by',
  'trace',
  'earlierTrace',
])

/**
 * In what a request differs from an earlier one under the same key, in words; nothing: it asks for
 * the same.
 */
export function differences(earlier: RunRequest, wanted: RunRequest): string[] {
  const before = new Map(Object.entries(earlier))
  const now = new Map(Object.entries(wanted))
  return [...new Set([...before.keys(), ...now.keys()])].flatMap((field) => {
    const [was, is] = [show(before.get(field)), show(now.get(field))]
    return ANY.has(field) || was === is ? [] : [`${field} was ${was}, and is now ${is}`]
  })
}

/** Whether a run that was folded was asked for by the same request, as far as its document says. */
export function isSameRequest(run: RunState, wanted: RunRequest): boolean {
  const hashes = Object.entries(wanted.input ?? {}).map(([name, stored]) => [name, hashOfValue(stored)])
  const of = ({ pipeline, target, upstream, partition, key, tags }: RunState | RunRequest): string =>
    JSON.stringify([pipeline, target, upstream, partition, key, tags])
  return (
    of(run) === of(wanted) &&
    JSON.stringify(run.inputs ?? {}) === JSON.stringify(Object.fromEntries(hashes)) &&
    run.redrive === undefined
  )
}

/** Why a key cannot be taken; undefined: both ask for the same. */
export function conflictOf(
  what: string,
  key: string,
  earlier: RunRequest | undefined,
  wanted: RunRequest,
): string | undefined {
  if (!earlier) return `${what} ${show(key)} belongs to a run whose request cannot be read; use another ${what}`
  const differs = differences(earlier, wanted)
  if (differs.length === 0) return undefined
  return `${what} ${show(key)} was used for another request: ${differs.join('; ')}. Use another ${what}, or ask for the same`
}

/**
 * The fact for a trigger whose key belongs to this earlier request; undefined: it asked for the
 * same, and its run is there.
 */
export function refusalFor(trigger: TriggerRequest, earlier: RunRequest | undefined): FactDraft | undefined {
  const what = trigger.space === 'message' ? 'Nats-Msg-Id' : 'key'
  const key = trigger.space === 'event' ? (trigger.request.key ?? '') : trigger.key
  const reason = conflictOf(what, key, earlier, trigger.request)
  return reason === undefined ? undefined : refusalBecause(trigger, reason)
}

/** The fact that says why a request cannot be taken. */
export function refusalBecause({ refusal }: TriggerRequest, reason: string): FactDraft {
  return refusal.name === 'trigger.refused'
    ? { ...refusal, data: { ...refusal.data, reason } }
    : { ...refusal, data: { ...refusal.data, reason } }
}

const SHOWN_MAX = 100

function show(value: unknown): string {
  const text = value === undefined ? 'none' : (JSON.stringify(value) ?? String(value))
  return text.length <= SHOWN_MAX ? text : `${[...text].slice(0, SHOWN_MAX).join('')}…`
}

/**
 * `refusal`: what to append, once its reason is filled in, when the key was used for something
 * else.
 */
export interface TriggerRequest {
  readonly space: KeySpace
  readonly key: string
  readonly request: RunRequest
  /** What the run is given, to be checked before it exists. */
  readonly given: readonly GivenValue[]
  readonly refusal: DraftOf<'trigger.refused'> | DraftOf<'event.refused'>
}
