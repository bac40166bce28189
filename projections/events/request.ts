/** The run that a message of a subscription asks for. */
import type { SubscriptionSpec, TakenEvent } from '../../streams/event-schemas.ts'
import type { DraftOf } from '../../streams/facts.ts'
import type { RunId } from '../../streams/ids.ts'
import { forOutsiders } from '../../streams/outside.ts'
import type { PipelineSpec, RunConcurrency } from '../../streams/schemas.ts'
import { cut } from '../../streams/text.ts'
import type { Effect } from '../effects.ts'
import { concurrencyOf, givenValue } from '../run/concurrency-key.ts'
import type { GivenValue } from '../run/input.ts'
import { runIdFor } from '../run/request.ts'
import { specOf } from '../state.ts'

/** Where an event comes from. */
export interface Place {
  /** The stream, as facts name it: another one if the stream was made anew. */
  readonly source: string
  readonly stream: string
  /** Of the fact that says that it was taken. */
  readonly factSeq: number
}

/**
 * What the id of the run follows from: the event's key, else its place. No key looks like a place.
 * `isGroup`: of several messages, which have a run besides their own.
 */
export function eventIdentity(
  pipeline: string,
  subscription: string,
  { source }: Pick<Place, 'source'>,
  { key, seq }: Pick<TakenEvent, 'key' | 'seq'>,
  isGroup = false,
): string {
  const of = isGroup ? `+${source}:${seq}` : key === undefined ? `${source}:${seq}` : `=${key}`
  return `${pipeline} ${subscription} ${of}`
}

/** The run of a message, which is not of a group. */
export function eventRunId(
  pipeline: PipelineSpec,
  subscription: string,
  place: Pick<Place, 'source'>,
  event: TakenEvent,
  shards: number,
): RunId {
  const concurrency = concurrencyOfEvent(pipeline, event)
  const of = { pipeline: pipeline.name, ...(concurrency ? { concurrency } : {}) }
  return runIdFor(of, 'event', eventIdentity(pipeline.name, subscription, place, event), shards)
}

function concurrencyOfEvent(
  pipeline: PipelineSpec,
  { partition, tags, input, concurrency }: Pick<TakenEvent, 'partition' | 'tags' | 'input' | 'concurrency'>,
): RunConcurrency | undefined {
  return concurrency ?? concurrencyOf(pipeline, { partition, tags, input: (name) => givenValue(input?.[name]) })
}

/** `messages`: for how many of a group it is. */
export function requestEffect(
  pipeline: PipelineSpec,
  spec: SubscriptionSpec,
  place: Place,
  event: TakenEvent,
  messages?: number,
): Effect {
  const { seq, msgId, input, partition, tags, trace } = event
  const key = event.key ?? `${place.stream}:${seq}`
  const concurrency = concurrencyOfEvent(pipeline, event)
  const request = {
    pipeline: pipeline.name,
    version: pipeline.version,
    target: spec.run,
    upstream: pipeline.upstream ?? 'all',
    ...(partition === undefined ? {} : { partition }),
    key,
    event: {
      subscription: spec.name,
      stream: place.stream,
      seq,
      ...(msgId === undefined ? {} : { msgId }),
      ...(messages === undefined ? {} : { messages }),
    },
    ...(input === undefined ? {} : { input }),
    ...(tags === undefined ? {} : { tags }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(trace === undefined ? {} : { trace }),
  } as const
  const identity = eventIdentity(pipeline.name, spec.name, place, event, messages !== undefined)
  const refusal = refusedEvent(pipeline.name, spec.name, place, event, '')
  const given = messages !== undefined && messages > 1 ? listsOf(pipeline, input ?? {}) : []
  return { do: 'request', trigger: { space: 'event', key: identity, request, given, refusal } }
}

/** Each item of a list was checked by itself; the list as a whole was not. */
function listsOf(pipeline: PipelineSpec, input: NonNullable<TakenEvent['input']>): GivenValue[] {
  return Object.entries(input).flatMap(([name, value]) => {
    const schema = specOf(pipeline, name)?.input?.schema
    return schema && 'json' in value ? [{ name, schema, value: value.json }] : []
  })
}

const REASON_MAX = 2000

export function refusedEvent(
  pipeline: string,
  subscription: string,
  { source, stream, factSeq }: Place,
  { seq, key, msgId, message }: Pick<TakenEvent, 'seq' | 'key' | 'msgId' | 'message'>,
  reason: string,
): DraftOf<'event.refused'> {
  const data = {
    pipeline,
    subscription,
    stream,
    seq,
    ...(key === undefined ? {} : { key }),
    ...(msgId === undefined ? {} : { msgId }),
    // The feed shows it.
    reason: cut(forOutsiders({ code: '', message: reason }).message, REASON_MAX),
    ...(message ? { kept: factSeq } : {}),
  }
  return { name: 'event.refused', ids: { pipeline, subscription, source, seq: String(seq) }, data }
}
