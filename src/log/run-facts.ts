/** The facts of one run, in order, from the log. */
import { DeliverPolicy } from '@nats-io/jetstream'
import type { Fact } from '../../streams/facts.ts'
import type { RunId } from '../../streams/ids.ts'
import { jetstream } from '../../streams/jetstream.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import { headerMap, leaderGet } from './nats.ts'
import { factIfAny } from './read-fact.ts'

/**
 * These are listed one by one, without the timers. A schedule that fired or was removed is gone. If
 * it were the last message, a reader would wait for it in vain.
 */
const OF_RUNS = [
  'requested',
  'planned',
  'cancel_requested',
  'awaited.*.*.*',
  'abandoned.*.*.*',
  'timer_fired',
  'finished',
]
const OF_SCATTERS = [
  'started',
  'items.*',
  'sized',
  'outcomes',
  'lease_lost.*',
  'lease_returned.*',
  'begun.*',
  'hold.*',
  'timer_fired',
  'cancel_requested',
  'closed',
]
const OF_GATES = ['created', 'child_requested', 'timer_fired', 'resolved', 'deadline.*.extended', 'deadline.*.closed']

/** Up to the last one there is when it begins. */
export async function* runFacts(connection: Connection, names: Names, shard: number, id: RunId): AsyncGenerator<Fact> {
  const stream = names.log(shard)
  const filters = [
    ...OF_RUNS.map((event) => names.fact(shard, `run.${id}.${event}`)),
    names.fact(shard, `asset.*.*.${id}.>`),
    ...OF_SCATTERS.map((event) => names.fact(shard, `scatter.${id}.*.${event}`)),
    ...OF_GATES.map((event) => names.fact(shard, `gate.${id}.*.*.${event}`)),
  ]
  const last = async (last_by_subj: string): ReturnType<typeof leaderGet> =>
    await connection.read((nc) => leaderGet(nc, stream, { last_by_subj }))
  const first = await last(names.fact(shard, `run.${id}.requested`))
  if (!first) return
  const lasts = await Promise.all(filters.map(last))
  const end = Math.max(...lasts.map((message) => message?.seq ?? 0))
  const consumer = await jetstream(connection.nc).consumers.get(stream, {
    filter_subjects: filters,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: first.seq,
  })
  const messages = await consumer.consume({ max_messages: 500 })
  try {
    for await (const message of messages) {
      const timeMs = Math.floor(Number(message.info.timestampNanos) / 1_000_000)
      const { subject, seq, data: payload } = message
      const fact = factIfAny(names, shard, { subject, seq, timeMs, payload, headers: headerMap(message.headers) })
      if (fact) yield fact
      if (seq >= end) return
    }
  } finally {
    await messages.close()
  }
}
