/**
 * What outsiders ask for: a message on `<ns>.trigger.<pipeline>.<asset>`. It stands on a stream of
 * its own; the engine copies each to the log, whatever is in it, as `trigger.received`. Folding
 * that fact decides: run.requested, or trigger.refused with the reason.
 */

import { byPart } from '../../streams/by.ts'
import { CONTENT_TYPE, decode } from '../../streams/codec.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { messageOf } from '../../streams/errors.ts'
import type { DraftOf, FactOf } from '../../streams/facts.ts'
import type { KeySpace } from '../../streams/ids.ts'
import { type TriggerBody, triggerBody } from '../../streams/run-schemas.ts'
import { cut } from '../../streams/text.ts'
import type { TraceContext } from '../../streams/trace.ts'
import type { Effect } from '../effects.ts'
import { type Key, specOf, stateKey, type View } from '../state.ts'
import { concurrencyOf, givenValue } from './concurrency-key.ts'
import { inputOf } from './input.ts'

/** Most of it is input. Larger input is for clients with an object store. */
export const TRIGGER_BODY_MAX = 32 * 1024
/** Of a refused trigger the body is kept for as long as the refusal, if it is no larger. */
export const TRIGGER_KEPT_MAX = 8 * 1024
const SUBJECT_MAX = 512
export const MSG_ID_MAX = 512
const CONTENT_TYPE_MAX = 256

/** A message of the stream of triggers. */
export interface TriggerMessage {
  readonly seq: number
  readonly timeMs: number
  /** What stands behind `<ns>.trigger.`: a pipeline and an asset, if it is right. */
  readonly subject: string
  readonly payload: Uint8Array
  readonly contentType: string | undefined
  /**
   * The Nats-Msg-Id it came with: the same id leads to the same run, however late it is sent again.
   */
  readonly msgId: string | undefined
  /** Who sent it, as it says itself. */
  readonly by?: string | undefined
  /** The trace that it was sent in. */
  readonly trace?: TraceContext | undefined
}

/**
 * Its copy on the log. The same message gives the same place there, so it is copied once; its time
 * tells it from one of a stream that was made anew.
 */
export function received({
  seq,
  timeMs,
  subject,
  payload,
  contentType,
  msgId,
  by,
  trace,
}: TriggerMessage): DraftOf<'trigger.received'> {
  const problem =
    payload.length > TRIGGER_BODY_MAX
      ? `body: it has ${payload.length} bytes, of at most ${TRIGGER_BODY_MAX}`
      : subject.length > SUBJECT_MAX
        ? `subject: it has ${subject.length} characters behind trigger., of at most ${SUBJECT_MAX}`
        : msgId !== undefined && msgId.length > MSG_ID_MAX
          ? `Nats-Msg-Id: it has ${msgId.length} characters, of at most ${MSG_ID_MAX}`
          : contentType !== undefined && contentType.length > CONTENT_TYPE_MAX
            ? `Content-Type: it has ${contentType.length} characters, of at most ${CONTENT_TYPE_MAX}`
            : undefined
  const data = {
    seq,
    subject: cut(subject, SUBJECT_MAX),
    payload: problem === undefined ? payload : new Uint8Array(),
    ...(contentType === undefined ? {} : { contentType: cut(contentType, CONTENT_TYPE_MAX) }),
    ...(msgId === undefined ? {} : { msgId: cut(msgId, MSG_ID_MAX) }),
    ...(problem === undefined ? {} : { problem }),
    ...(trace ? { trace } : {}),
    ...(by ? { by: byPart('trigger', by) } : {}),
  }
  return { name: 'trigger.received', ids: { trigger: `${seq}-${timeMs}` }, data }
}

function targetOf({ data }: FactOf<'trigger.received'>): { pipeline: string; asset: string } | undefined {
  const [pipeline, asset, more] = data.subject.split('.')
  return pipeline === undefined || asset === undefined || more !== undefined ? undefined : { pipeline, asset }
}

/**
 * Keys that `takeTrigger` reads: some follow from others, so it is called until it names nothing
 * new.
 */
export function needsOfTrigger(view: View, fact: FactOf<'trigger.received'>): Key<unknown>[] {
  const target = targetOf(fact)
  if (!target) return []
  const newest = stateKey.newest(target.pipeline)
  const version = view.get(newest)?.version
  return version === undefined ? [newest] : [newest, stateKey.pipeline(target.pipeline, version)]
}

export function onTriggerReceived(view: View, fact: FactOf<'trigger.received'>): Effect[] {
  const { data: trigger } = fact
  const said = trigger.by === undefined ? {} : { by: trigger.by }
  const target = targetOf(fact)
  const refusal = (reason: string): DraftOf<'trigger.refused'> => {
    const data = {
      ...(target ? { pipeline: cut(target.pipeline, 256) } : {}),
      asset: cut(target?.asset ?? trigger.subject, 256),
      reason: cut(reason, 2000),
      ...(trigger.msgId ? { msgId: trigger.msgId } : {}),
      ...said,
      ...keptOf(trigger),
    }
    return { name: 'trigger.refused', ids: fact.ids, data }
  }
  const refuse = (reason: string): Effect[] => [{ do: 'fact', fact: refusal(reason) }]
  if (trigger.problem !== undefined) return refuse(trigger.problem)
  if (!target) return refuse('the subject must end in trigger.<pipeline>.<asset>, such as trigger.sales.report')

  const body = triggerBodyOf(trigger)
  if ('problem' in body) return refuse(body.problem)
  const { key, partition, upstream, input, tags, concurrency: own } = body.asked
  const version = view.get(stateKey.newest(target.pipeline))?.version
  const pipeline = version === undefined ? undefined : view.get(stateKey.pipeline(target.pipeline, version))
  if (version === undefined || !pipeline)
    return refuse(`no pipeline ${target.pipeline} is registered; start a worker of it first`)
  if (!specOf(pipeline, target.asset)) {
    const names = pipeline.assets.map(({ name }) => name)
    return refuse(`pipeline ${target.pipeline} has no asset ${target.asset}${nearest(target.asset, names)}`)
  }
  const given = inputOf(pipeline, target.asset, input ?? {})
  if ('reason' in given) return refuse(given.reason)
  const concurrency =
    own ?? concurrencyOf(pipeline, { partition, tags, input: (name) => givenValue(given.stored?.[name]) })
  const request = {
    pipeline: target.pipeline,
    version,
    target: target.asset,
    upstream: upstream ?? pipeline.upstream ?? 'all',
    ...(tags === undefined ? {} : { tags }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(given.stored === undefined ? {} : { input: given.stored }),
    ...(partition === undefined ? {} : { partition }),
    ...(key === undefined ? {} : { key }),
    trigger: { seq: trigger.seq, ...(trigger.msgId === undefined ? {} : { msgId: trigger.msgId }) },
    ...(trigger.trace === undefined ? {} : { trace: trigger.trace }),
    ...said,
  } as const
  const identity = identityOf(fact, key)
  return [{ do: 'request', trigger: { ...identity, request, given: given.checks, refusal: refusal('') } }]
}

/** What a trigger asks for, or why that cannot be read. */
export function triggerBodyOf({
  payload,
  contentType,
}: Pick<TriggerMessage, 'payload'> & { readonly contentType?: string | undefined }):
  | { readonly asked: TriggerBody }
  | { readonly problem: string } {
  let body: unknown = {}
  if (payload.length > 0) {
    try {
      body = decode(payload, contentType ?? CONTENT_TYPE.json)
    } catch (error) {
      return { problem: messageOf(error) }
    }
  }
  const checked = triggerBody.safeParse(body)
  if (checked.success) return { asked: checked.data }
  const issue = checked.error.issues[0]
  return {
    problem: `${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'invalid'}; allowed are partition, upstream, key, input, tags, concurrency`,
  }
}

function keptOf({
  payload,
  contentType,
  problem,
}: FactOf<'trigger.received'>['data']): Pick<DraftOf<'trigger.refused'>['data'], 'kept'> {
  if (problem !== undefined || payload.length > TRIGGER_KEPT_MAX) return {}
  const body = Buffer.from(payload).toString('base64')
  return { kept: { body, ...(contentType === undefined ? {} : { contentType }) } }
}

/** What the id of the run of a trigger is made of. */
export function identityOf(
  { ids, data }: { readonly ids: { readonly trigger: string }; readonly data: { readonly msgId?: string | undefined } },
  key: string | undefined,
): { space: KeySpace; key: string } {
  if (key !== undefined) return { space: 'key', key }
  if (data.msgId) return { space: 'message', key: data.msgId }
  return { space: 'trigger', key: ids.trigger }
}
