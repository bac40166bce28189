/**
 * Messages that start one run together (`batch`), or that wait until no other comes (`debounce`).
 * A document for each group holds them. One schedule of the server for each group says when to
 * look. It is set for the earliest time at which the run may start. If that has moved when it
 * fires, it is set again.
 */

import type { SubscriptionSpec, TakenEvent } from '../../streams/event-schemas.ts'
import type { DraftOf, FactOf } from '../../streams/facts.ts'
import type { PipelineSpec, StoredValue } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { type Key, stateKey, type View } from '../state.ts'
import { type Place, requestEffect } from './request.ts'
import type { EventGroupState } from './state.ts'

/** A run starts early rather than with more input than this, as JSON. */
export const GROUP_BYTES_MAX = 256 * 1024
/** Messages of a group whose run is given all of them, where its options name no number. */
export const GROUP_ITEMS_MAX = 1000
/** So many keys are remembered of a group, where only its last message counts. */
const KEYS_MAX = 1000

/** Takes an event into its group. Says what follows: a run, a timer, or nothing yet. */
export function addToGroup(
  view: View,
  pipeline: PipelineSpec,
  spec: SubscriptionSpec,
  place: Place,
  event: TakenEvent,
  nowMs: number,
): Effect[] {
  const key = stateKey.eventGroup(pipeline.name, spec.name, event.group ?? '')
  const effects: Effect[] = []
  let group = view.get(key)
  const bytes = event.bytes ?? JSON.stringify(event.input ?? {}).length
  if (group && event.key !== undefined && group.keys.includes(event.key)) return []
  if (group && group.count > 0 && takesAll(spec) && group.bytes + bytes > GROUP_BYTES_MAX)
    effects.push(...close(view.edit(key), pipeline, spec))
  group = withEvent(group, spec, place, event, { bytes, nowMs, version: pipeline.version })
  const most = spec.batch?.maxItems ?? GROUP_ITEMS_MAX
  if (takesAll(spec) && (group.count >= most || group.bytes > GROUP_BYTES_MAX))
    effects.push(...close(group, pipeline, spec))
  else if (group.timerMs === undefined || group.timerMs > group.dueMs) effects.push(timer(group, pipeline, spec, event))
  if (group.count === 0 && group.timerMs === undefined) view.delete(key)
  else view.put(key, group)
  return effects
}

export function needsOfTimer(view: View, { ids }: FactOf<'event.timer_fired'>): Key<unknown>[] {
  const key = stateKey.eventGroup(ids.pipeline, ids.subscription, ids.group)
  const version = view.get(key)?.version
  return version === undefined ? [key] : [key, stateKey.pipeline(ids.pipeline, version)]
}

/** The schedule of a group has come. It may be an earlier one, which was to be replaced. */
export function onEventTimerFired(view: View, { ids, seq, timeMs }: FactOf<'event.timer_fired'>): Effect[] {
  const key = stateKey.eventGroup(ids.pipeline, ids.subscription, ids.group)
  const group = view.get(key)
  if (!group) return []
  const pipeline = view.get(stateKey.pipeline(ids.pipeline, group.version))
  const spec = pipeline?.subscriptions?.find(({ name }) => name === ids.subscription)
  if (!pipeline || !spec || group.count === 0) {
    view.delete(key)
    return []
  }
  if (timeMs >= group.dueMs) {
    const due = view.edit(key)
    view.delete(key)
    return close(due, pipeline, spec)
  }
  const changed = view.edit(key)
  changed.seq = seq
  changed.timerMs = changed.dueMs
  return [{ do: 'timer', fact: { name: 'event.timer_fired', ids, data: {} }, dueMs: changed.dueMs, replaces: true }]
}

function takesAll({ batch, debounce }: SubscriptionSpec): boolean {
  return batch !== undefined || debounce?.take === 'all'
}

function withEvent(
  before: EventGroupState | undefined,
  spec: SubscriptionSpec,
  place: Place,
  event: TakenEvent,
  { bytes, nowMs, version }: { readonly bytes: number; readonly nowMs: number; readonly version: string },
): EventGroupState {
  const open = before && before.count > 0 ? before : undefined
  const firstMs = open?.firstMs ?? nowMs
  const inputs = takesAll(spec) ? [...(open?.inputs ?? []), event.input ?? {}] : [event.input ?? {}]
  const keys = [...(open?.keys ?? []), ...(event.key === undefined ? [] : [event.key])].slice(-KEYS_MAX)
  const msgId = open ? open.msgId : event.msgId
  const trace = open ? open.trace : event.trace
  return {
    seq: place.factSeq,
    version,
    ...(event.partition === undefined ? {} : { partition: event.partition }),
    ...(event.tags === undefined ? {} : { tags: event.tags }),
    ...(event.concurrency === undefined ? {} : { concurrency: event.concurrency }),
    source: open?.source ?? place.source,
    stream: open?.stream ?? place.stream,
    first: open?.first ?? event.seq,
    firstMs,
    ...(msgId === undefined ? {} : { msgId }),
    inputs,
    ...(trace === undefined ? {} : { trace }),
    count: (open?.count ?? 0) + 1,
    bytes: takesAll(spec) ? (open?.bytes ?? 0) + bytes : bytes,
    keys,
    dueMs: dueOf(spec, firstMs, nowMs),
    ...(before?.timerMs === undefined ? {} : { timerMs: before.timerMs }),
  }
}

function dueOf({ batch, debounce }: SubscriptionSpec, firstMs: number, nowMs: number): number {
  if (batch) return firstMs + batch.maxWaitMs
  return Math.min(nowMs + (debounce?.waitMs ?? 0), firstMs + (debounce?.maxWaitMs ?? Number.MAX_SAFE_INTEGER / 2))
}

function timer(group: EventGroupState, pipeline: PipelineSpec, spec: SubscriptionSpec, event: TakenEvent): Effect {
  group.timerMs = group.dueMs
  const ids = { pipeline: pipeline.name, subscription: spec.name, group: event.group ?? '' }
  const fact: DraftOf<'event.timer_fired'> = { name: 'event.timer_fired', ids, data: {} }
  return { do: 'timer', fact, dueMs: group.dueMs, replaces: true }
}

/** Starts the run of a group, and empties it. */
function close(group: EventGroupState, pipeline: PipelineSpec, spec: SubscriptionSpec): Effect[] {
  const { source, stream, first, msgId, partition, tags, concurrency, count, trace } = group
  const input = takesAll(spec) ? joined(group.inputs) : group.inputs[0]
  const event: TakenEvent = {
    seq: first,
    ...(msgId === undefined ? {} : { msgId }),
    ...(partition === undefined ? {} : { partition }),
    ...(tags === undefined ? {} : { tags }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(trace === undefined ? {} : { trace }),
    ...(input === undefined || Object.keys(input).length === 0 ? {} : { input }),
  }
  const effect = requestEffect(pipeline, spec, { source, stream, factSeq: group.seq }, event, count)
  group.inputs = []
  group.keys = []
  group.count = 0
  group.bytes = 0
  return [effect]
}

/** Each message has a list with one item for an input: the run is given all of them as one list. */
function joined(inputs: readonly Record<string, StoredValue>[]): Record<string, StoredValue> {
  const result: Record<string, StoredValue> = {}
  for (const input of inputs)
    for (const [name, value] of Object.entries(input)) {
      const before = result[name]
      const isList = before && 'json' in before && Array.isArray(before.json) && 'json' in value
      result[name] = isList && Array.isArray(value.json) ? { json: [...listOf(before.json), ...value.json] } : value
    }
  return result
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}
