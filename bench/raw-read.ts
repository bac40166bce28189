/** The measure of all that reads a log: a plain ordered consumer that decodes each fact. */
import { DeliverPolicy, jetstream } from '@nats-io/jetstream'
import type { Connection } from '../src/log/connection.ts'
import { headerMap, streamBounds } from '../src/log/nats.ts'
import { factOf } from '../src/log/read-fact.ts'
import type { Topology } from '../streams/topology.ts'

/** As many bytes at a time as the engine's own reader asks for. */
const AHEAD = { max_bytes: 2 * 1024 * 1024, threshold_messages: 40 } as const

/** Facts a second, over the whole log of shard 0. Only facts may be there. */
export async function rawRead({ nc }: Connection, { names }: Topology): Promise<number> {
  const { first, last, messages: count } = await streamBounds(nc, names.log(0))
  const startedMs = performance.now()
  const consumer = await jetstream(nc).consumers.get(names.log(0), {
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: first,
  })
  const messages = await consumer.consume(AHEAD)
  for await (const { subject, seq, info, data, headers } of messages) {
    const timeMs = Math.floor(Number(info.timestampNanos) / 1_000_000)
    factOf(names, 0, { subject, seq, timeMs, payload: data, headers: headerMap(headers) })
    if (seq >= last) break
  }
  messages.stop()
  return count / ((performance.now() - startedMs) / 1000)
}
