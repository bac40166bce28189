/** A run's facts, read back from the log in order, for audit and for explaining what happened. */
import { DeliverPolicy, jetstream } from '@nats-io/jetstream'
import { decodeList } from '../../streams/codec.ts'
import type { Fact } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { Topology } from '../../streams/topology.ts'
import type { Connection } from '../log/connection.ts'
import { headerMap, leaderGet, type StoredMessage } from '../log/nats.ts'
import { factIfAny } from '../worker/values.ts'

export interface HistoryEntry {
  /** Sequence on the log of the run's partition. */
  readonly seq: number
  /** The server's clock when the fact was stored. */
  readonly time: Date
  /** What happened, such as `scatter.closed`. */
  readonly kind: Fact['name']
  readonly ids: Readonly<Record<string, string>>
  /** The fact's data, decoded and raised to today's version. */
  readonly data: Fact['data']
}

/** With the lists that the engine only carries (keys, values) decoded. */
function readable(fact: Fact): Fact['data'] {
  if (fact.name === 'scatter.items') {
    const { encoding, ...data } = fact.data
    return { ...data, keys: [...decodeList(data.keys, encoding)] }
  }
  if (fact.name === 'scatter.outcomes') {
    const { encoding, ...data } = fact.data
    return { ...data, values: [...decodeList(data.values, encoding)] }
  }
  return fact.data
}

export async function* history(
  connection: Connection,
  namespace: { readonly found: () => Promise<Topology> },
  run: string,
): AsyncGenerator<HistoryEntry> {
  const { names, partitions } = await namespace.found()
  const { id, partition: p } = parseRunId(run)
  if (p >= partitions) return
  const stream = names.log(p)
  const filters = [
    ...['requested', 'planned', 'cancel_requested', 'timer_fired', 'finished'].map((event) =>
      names.fact(p, `run.${id}.${event}`),
    ),
    names.fact(p, `asset.*.*.${id}.>`),
    names.fact(p, `scatter.${id}.>`),
    // Not their timers: a schedule that has fired is gone, and would be waited for in vain when it is the last.
    ...['created', 'timer_fired', 'resolved', 'extended.*'].map((event) => names.fact(p, `gate.${id}.*.*.${event}`)),
  ]
  const lastOf = (subject: string): Promise<StoredMessage | undefined> =>
    connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
  const first = await lastOf(names.fact(p, `run.${id}.requested`))
  if (!first) return
  const lasts = await Promise.all(filters.map(lastOf))
  const end = Math.max(...lasts.map((last) => last?.seq ?? 0))
  const consumer = await jetstream(connection.nc).consumers.get(stream, {
    filter_subjects: filters,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: first.seq,
  })
  const messages = await consumer.consume({ max_messages: 500 })
  try {
    for await (const message of messages) {
      const timeMs = Math.floor(Number(message.info.timestampNanos) / 1_000_000)
      const fact = factIfAny(names, p, {
        subject: message.subject,
        seq: message.seq,
        timeMs,
        payload: message.data,
        headers: headerMap(message.headers),
      })
      if (fact)
        yield { seq: fact.seq, time: new Date(fact.timeMs), kind: fact.name, ids: fact.ids, data: readable(fact) }
      if (message.seq >= end) return
    }
  } finally {
    await messages.close()
  }
}
