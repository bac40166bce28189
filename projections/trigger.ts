/** What outsiders ask for: a message on `<ns>.trigger.<pipeline>.<asset>` becomes run.requested, or trigger.refused with the reason. */
import { CONTENT_TYPE, decode } from '../streams/codec.ts'
import { messageOf } from '../streams/errors.ts'
import { nearest } from '../streams/nearest.ts'
import { triggerBody } from '../streams/schemas.ts'
import type { Command } from './commands.ts'
import { type Key, specOf, stateKey, type View } from './state.ts'

export interface Trigger {
  readonly seq: number
  readonly timeMs: number
  /** What stands behind `<ns>.trigger.`: a pipeline and an asset, if it is right. */
  readonly subject: string
  readonly payload: Uint8Array
  readonly contentType: string | undefined
  /** The Nats-Msg-Id it came with: the same id leads to the same run, however late it comes again. */
  readonly msgId: string | undefined
}

function targetOf({ subject }: Trigger): { pipeline: string; asset: string } | undefined {
  const [pipeline, asset, more] = subject.split('.')
  return pipeline === undefined || asset === undefined || more !== undefined ? undefined : { pipeline, asset }
}

/** Keys that must be loaded before `takeTrigger`: call it until it names nothing new. */
export function needsOfTrigger(view: View, has: (key: string) => boolean, trigger: Trigger): Key<unknown>[] {
  const target = targetOf(trigger)
  if (!target) return []
  const newest = stateKey.newest(target.pipeline)
  const version = view.get(newest)?.version
  const keys = version === undefined ? [newest] : [newest, stateKey.pipeline(target.pipeline, version)]
  return keys.filter((key) => !has(key))
}

export function takeTrigger(view: View, trigger: Trigger): Command[] {
  const target = targetOf(trigger)
  const refuse = (reason: string): Command[] => {
    const data = {
      ...(target ? { pipeline: target.pipeline.slice(0, 256) } : {}),
      asset: (target?.asset ?? trigger.subject).slice(0, 256),
      reason: reason.slice(0, 2000),
      ...(trigger.msgId ? { msgId: trigger.msgId } : {}),
    }
    return [{ do: 'fact', fact: { name: 'trigger.refused', ids: { seq: String(trigger.seq) }, data } }]
  }
  if (!target) return refuse('the subject must end in trigger.<pipeline>.<asset>, such as trigger.sales.report')

  let body: unknown = {}
  if (trigger.payload.length > 0) {
    try {
      body = decode(trigger.payload, trigger.contentType ?? CONTENT_TYPE.json)
    } catch (error) {
      return refuse(messageOf(error))
    }
  }
  const checked = triggerBody.safeParse(body)
  if (!checked.success) {
    const issue = checked.error.issues[0]
    return refuse(
      `${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'invalid'}; allowed are partition, upstream, key`,
    )
  }
  const { key, partition, upstream } = checked.data
  const version = view.get(stateKey.newest(target.pipeline))?.version
  const pipeline = version === undefined ? undefined : view.get(stateKey.pipeline(target.pipeline, version))
  if (version === undefined || !pipeline)
    return refuse(`no pipeline ${target.pipeline} is registered; start a worker of it first`)
  if (!specOf(pipeline, target.asset)) {
    const names = pipeline.assets.map(({ name }) => name)
    return refuse(`pipeline ${target.pipeline} has no asset ${target.asset}${nearest(target.asset, names)}`)
  }
  const identity = key ?? (trigger.msgId === undefined ? `trigger#${trigger.seq}` : `msgid:${trigger.msgId}`)
  const request = {
    pipeline: target.pipeline,
    version,
    target: target.asset,
    upstream: upstream ?? 'missing',
    ...(partition === undefined ? {} : { partition }),
    key: identity,
    trigger: { seq: trigger.seq, ...(trigger.msgId === undefined ? {} : { msgId: trigger.msgId }) },
  } as const
  return [{ do: 'request', trigger: { key: identity, request } }]
}
