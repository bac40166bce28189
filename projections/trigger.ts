/** What outsiders ask for: a message on `<ns>.trigger.<asset>` becomes run.requested, or trigger.refused with the reason. */
import { CONTENT_TYPE, decode } from '../streams/codec.ts'
import { messageOf } from '../streams/errors.ts'
import { nearest } from '../streams/nearest.ts'
import { triggerBody } from '../streams/schemas.ts'
import type { Command } from './commands.ts'
import { stateKey, type View } from './state.ts'

export interface Trigger {
  readonly seq: number
  readonly timeMs: number
  readonly asset: string
  readonly payload: Uint8Array
  readonly contentType: string | undefined
  /** The Nats-Msg-Id it came with: the same id leads to the same run, however late it comes again. */
  readonly msgId: string | undefined
}

export function takeTrigger(view: View, trigger: Trigger): Command[] {
  const refuse = (reason: string): Command[] => {
    const data = {
      asset: trigger.asset.slice(0, 256),
      reason: reason.slice(0, 2000),
      ...(trigger.msgId ? { msgId: trigger.msgId } : {}),
    }
    return [{ do: 'fact', fact: { name: 'trigger.refused', ids: { seq: String(trigger.seq) }, data } }]
  }

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
      `${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'invalid'}; allowed are pipeline, partition, upstream, key`,
    )
  }
  const { pipeline, key, partition, upstream } = checked.data
  const owners = view.get(stateKey.owner(trigger.asset))?.pipelines ?? {}
  const names = Object.keys(owners)
  const first = names[0]
  if (first === undefined)
    return refuse(`no registered pipeline has an asset ${trigger.asset}; start a worker of its pipeline first`)
  if (pipeline === undefined && names.length > 1)
    return refuse(`asset ${trigger.asset} is in several pipelines; name one: ${names.join(', ')}`)
  const chosen = pipeline ?? first
  const version = Object.hasOwn(owners, chosen) ? owners[chosen] : undefined
  if (version === undefined) return refuse(`pipeline ${chosen} has no asset ${trigger.asset}${nearest(chosen, names)}`)
  const identity = key ?? (trigger.msgId === undefined ? `trigger#${trigger.seq}` : `msgid:${trigger.msgId}`)
  const request = {
    pipeline: chosen,
    version,
    target: trigger.asset,
    upstream: upstream ?? 'missing',
    ...(partition === undefined ? {} : { partition }),
    key: identity,
    trigger: { seq: trigger.seq, ...(trigger.msgId === undefined ? {} : { msgId: trigger.msgId }) },
  } as const
  return [{ do: 'request', trigger: { key: identity, request } }]
}
