/**
 * The stream that a subscription reads, and its consumer there. Each session of a reader begins
 * with a consumer of its own, behind what was taken. So messages come in order, and none is on its
 * way to a reader that is gone. The consumer is a durable one with acknowledgements: a work queue
 * drops what was acknowledged, and operators see how far it is.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamInfo,
} from '@nats-io/jetstream'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { SubscriptionSpec } from '../../../streams/event-schemas.ts'
import { hash64 } from '../../../streams/ids.ts'
import { NOT_FOUND } from '../../../streams/namespace.ts'
import type { Names } from '../../../streams/subjects.ts'

export interface Source {
  readonly stream: string
  /** As facts name it: another one for a stream that was made anew. */
  readonly id: string
  readonly filter: string | undefined
  readonly bucket: string | undefined
  readonly retention: StreamInfo['config']['retention']
  /** It is a stream that FlowStone made for the subscription. */
  readonly isOwn: boolean
  /** Its last sequence now. */
  readonly last: number
}

const OVERLAP = 10065
const ACK_WAIT_NS = 60_000_000_000
export const ACK_PENDING_MAX = 5000

/**
 * Looks for the stream, and makes the one of a subject. Throws FlowStoneError `no_stream` for one
 * that is not there.
 */
export async function openSource(
  jsm: JetStreamManager,
  { names, replicas }: { readonly names: Names; readonly replicas: number },
  pipeline: string,
  { name, from }: SubscriptionSpec,
): Promise<Source> {
  if ('stream' in from) return sourceOf(await streamOf(jsm, from.stream, 'stream'), from.subject)
  if ('bucket' in from) {
    const info = await streamOf(jsm, names.kvStream(from.bucket), `bucket ${from.bucket}: stream`)
    return { ...sourceOf(info, names.kvSubject(from.bucket, from.key ?? '>')), bucket: from.bucket }
  }
  const info = await keepSubject(jsm, names.events(pipeline, name), from.subject, replicas)
  return { ...sourceOf(info, undefined), isOwn: true }
}

/** As `openSource`, and makes nothing: undefined for a stream that is not there. */
export async function findSource(
  jsm: JetStreamManager,
  { names }: { readonly names: Names },
  pipeline: string,
  { name, from }: SubscriptionSpec,
): Promise<Source | undefined> {
  const { stream, filter, bucket } = placeOf(names, pipeline, name, from)
  const info = await infoOf(jsm, stream)
  return info && { ...sourceOf(info, filter), bucket, isOwn: !('stream' in from) && bucket === undefined }
}

/** By its options alone. */
export function placeOf(
  names: Names,
  pipeline: string,
  name: string,
  from: SubscriptionSpec['from'],
): Pick<Source, 'stream' | 'filter' | 'bucket'> {
  if ('stream' in from) return { stream: from.stream, filter: from.subject, bucket: undefined }
  if ('bucket' in from) {
    const { bucket, key = '>' } = from
    return { stream: names.kvStream(bucket), filter: names.kvSubject(bucket, key), bucket }
  }
  return { stream: names.events(pipeline, name), filter: undefined, bucket: undefined }
}

/**
 * How many messages wait to be taken, by the consumer of the last session; undefined: there was
 * none. `nameOf`: the consumer's name.
 */
export async function waitingFor(
  jsm: JetStreamManager,
  { stream }: Pick<Source, 'stream'>,
  nameOf: (turn: 'a' | 'b') => string,
): Promise<number | undefined> {
  const found = await Promise.all((['a', 'b'] as const).map((turn) => consumerOf(jsm, stream, nameOf(turn))))
  const [last] = found.flatMap((info) => info ?? []).toSorted((a, b) => Date.parse(b.created) - Date.parse(a.created))
  return last && last.num_pending + last.num_ack_pending
}

function sourceOf({ config, created, state }: StreamInfo, filter: string | undefined): Source {
  const { name: stream, retention } = config
  const id = hash64(`${stream} ${created}`)
  return { stream, id, filter, bucket: undefined, retention, isOwn: false, last: state.last_seq }
}

async function streamOf(jsm: JetStreamManager, stream: string, what: string): Promise<StreamInfo> {
  const info = await infoOf(jsm, stream)
  if (info) return info
  throw new FlowStoneError('no_stream', `there is no ${what} ${stream} yet; it is looked for again`)
}

async function infoOf(jsm: JetStreamManager, stream: string): Promise<StreamInfo | undefined> {
  try {
    return await jsm.streams.info(stream)
  } catch (error) {
    if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return undefined
    throw error
  }
}

async function keepSubject(
  jsm: JetStreamManager,
  stream: string,
  subject: string,
  replicas: number,
): Promise<StreamInfo> {
  try {
    const info = await infoOf(jsm, stream)
    if (info && info.config.subjects.length === 1 && info.config.subjects[0] === subject) return info
    if (info) return await jsm.streams.update(stream, { ...info.config, subjects: [subject] })
    return await jsm.streams.add({
      name: stream,
      subjects: [subject],
      num_replicas: replicas,
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.Old,
      allow_direct: true,
    })
  } catch (cause) {
    if (cause instanceof JetStreamApiError && cause.code === OVERLAP)
      throw new InvalidError(
        `subject ${subject} is kept by a stream already; name that one: from: { stream: …, subject: '${subject}' }`,
        { cause },
      )
    throw cause
  }
}

/** The consumer of a new session, which begins behind `position`. Earlier ones are deleted. */
export async function openConsumer(
  jsm: JetStreamManager,
  source: Source,
  nameOf: (turn: 'a' | 'b') => string,
  position: number,
): Promise<string> {
  const { stream, filter, retention } = source
  const remove = async (name: string): Promise<void> => {
    await jsm.consumers.delete(stream, name).catch((error: unknown) => {
      if (!(error instanceof JetStreamApiError && NOT_FOUND.has(error.code))) throw error
    })
  }
  // Messages that nobody is interested in leave such a stream: the next one comes first.
  const isInterest = retention === RetentionPolicy.Interest
  const turn = isInterest && (await consumerOf(jsm, stream, nameOf('a'))) ? 'b' : 'a'
  const earlier = turn === 'a' && isInterest ? nameOf('b') : nameOf('a')
  const config: Partial<ConsumerConfig> = {
    durable_name: nameOf(turn),
    ack_policy: AckPolicy.Explicit,
    ack_wait: ACK_WAIT_NS,
    max_deliver: -1,
    max_ack_pending: ACK_PENDING_MAX,
    ...(filter === undefined ? {} : { filter_subject: filter }),
    // A work queue allows nothing else, and holds only what was not taken.
    ...(retention === RetentionPolicy.Workqueue || position === 0
      ? { deliver_policy: DeliverPolicy.All }
      : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: position + 1 }),
  }
  if (isInterest) await remove(nameOf(turn))
  else await remove(earlier)
  try {
    await jsm.consumers.add(stream, config)
  } catch (cause) {
    throw new FlowStoneError('topology', `no consumer can be made on stream ${stream}: ${messageOf(cause)}`, { cause })
  }
  if (isInterest) await remove(earlier)
  return nameOf(turn)
}

async function consumerOf(jsm: JetStreamManager, stream: string, name: string): Promise<ConsumerInfo | undefined> {
  try {
    return await jsm.consumers.info(stream, name)
  } catch (error) {
    if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return undefined
    throw error
  }
}
