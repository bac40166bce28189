/**
 * A namespace lives in one JetStream domain. A leaf node may join two domains in one account. Then
 * all subjects cross between them, except the API and the keys of buckets. Two streams under the
 * same subjects would each store every message, and everything would run twice.
 */
import { JetStreamApiError } from '@nats-io/jetstream'
import { headers, type Msg, type NatsConnection } from '@nats-io/nats-core'
import { decode } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { domainOf, jetstreamManager } from '../../streams/jetstream.ts'
import { NOT_FOUND } from '../../streams/namespace.ts'
import type { Names } from '../../streams/subjects.ts'
import { askAll } from './ask.ts'

/** For the first answer: a subscriber that never answers is no stream. */
const ANSWER_MS = 1000
/** After the first answer, for that of the other side of a leaf node. */
const SETTLE_MS = 300
const SETTLE_NEAR_MS = 30

/**
 * Whether other domains are likely: this server names its own, or has no JetStream and hears
 * another one's.
 */
export function mayMeetDomains(nc: NatsConnection): boolean {
  return (domainOf(nc) ?? serversDomain(nc)) !== undefined || nc.info?.jetstream !== true
}

/**
 * Throws FlowStoneError `two_domains` where another domain stores the namespace's subjects. Each
 * stream that would store a message says so: this one expects a stream that there is not, so all
 * refuse it, and nothing is stored. Returns whether the namespace's own stream is there.
 */
export async function mustStandAlone(nc: NatsConnection, names: Names): Promise<boolean> {
  const h = headers()
  h.set('Nats-Expected-Stream', 'none')
  const settleMs = mayMeetDomains(nc) ? SETTLE_MS : SETTLE_NEAR_MS
  // Clients may publish this one.
  const subject = names.fact(0, 'run.0-probe.cancel_requested')
  // Not answered, or not allowed: nothing can be said.
  const answers = await askAll(nc, subject, '', { headers: h, timeoutMs: ANSWER_MS, settleMs }).catch(() => [])
  const streams = answers.map(streamIn).filter((stream) => stream !== undefined)
  if (streams.length === 0) return false
  const { ns } = names
  const own = domainOf(nc) ?? serversDomain(nc)
  const here = own === undefined ? 'the JetStream domain of this connection' : `JetStream domain ${own}`
  const twice = 'every message would be stored twice, and everything would run twice'
  if (streams.length > 1)
    throw new FlowStoneError(
      'two_domains',
      `namespace ${ns} stands in two JetStream domains of one account, joined by a leaf node (streams ${streams.join(', ')}): ${twice}. Delete it in one of them, or use different namespaces`,
    )
  if (await isHere(nc, names.log(0))) return true
  throw new FlowStoneError(
    'two_domains',
    `namespace ${ns} is not in ${here}, and stream ${streams[0]} of another domain of the same account, joined by a leaf node, stores its subjects: ${twice}. Connect to that domain (option domain), or use another namespace`,
  )
}

async function isHere(nc: NatsConnection, stream: string): Promise<boolean> {
  try {
    await (await jetstreamManager(nc)).streams.info(stream)
    return true
  } catch (error) {
    if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return false
    throw error
  }
}

function streamIn(answer: Msg): string | undefined {
  try {
    const body = decode(answer.data, undefined)
    const field = (name: string): unknown =>
      typeof body === 'object' && body !== null ? Reflect.get(body, name) : undefined
    const stream = field('stream')
    return typeof stream === 'string' && field('error') !== undefined ? stream : undefined
  } catch {
    return undefined
  }
}

function serversDomain({ info }: NatsConnection): string | undefined {
  const domain: unknown = info ? Reflect.get(info, 'domain') : undefined
  return typeof domain === 'string' && domain !== '' ? domain : undefined
}
