/** The facts of one run, in order, from the log. */
import type { Fact } from '../../streams/facts.ts'
import type { SealedFact } from '../../streams/history.ts'
import type { RunId } from '../../streams/ids.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import { sealedFacts } from './history.ts'
import { messagesUnder } from './messages-under.ts'
import { leaderGet, type StoredMessage } from './nats.ts'
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

/** What else stands under a run. A history does not show it. */
const BESIDES = [
  'run.:run.adopt_requested',
  'run.:run.adopted.*',
  'run.:run.adopt_refused.*',
  'scatter.:run.*.ended_early',
]

/**
 * Up to the last one there is when it begins. First those that have left the log, or are about to.
 * `after`: only those behind this sequence.
 */
export async function* runFacts(
  connection: Connection,
  names: Names,
  shard: number,
  id: RunId,
  after = 0,
): AsyncGenerator<Fact> {
  const sealed = await sealedFacts({ connection, names }, id)
  yield* sealed.filter(({ seq }) => seq > after)
  const seen = Math.max(after, sealed.at(-1)?.seq ?? 0)
  for await (const message of messagesOf(connection, names, shard, id, [], after)) {
    const fact = message.seq > seen ? factIfAny(names, shard, message) : undefined
    if (fact) yield fact
  }
}

/** As they stand on the log, up to a sequence. */
export async function* rawRunFacts(
  connection: Connection,
  names: Names,
  shard: number,
  run: string,
  upToSeq: number,
): AsyncGenerator<SealedFact> {
  const besides = BESIDES.map((path) => names.fact(shard, path.replace(':run', run)))
  for await (const { subject, seq, timeMs, payload, headers } of messagesOf(connection, names, shard, run, besides)) {
    if (seq > upToSeq) return
    const path = names.factPath(subject)
    if (path !== undefined) yield { path, seq, timeMs, payload, contentType: headers.get('Content-Type') }
  }
}

async function* messagesOf(
  connection: Connection,
  names: Names,
  shard: number,
  id: string,
  besides: readonly string[] = [],
  after = 0,
): AsyncGenerator<StoredMessage> {
  const stream = names.log(shard)
  const filters = [
    ...besides,
    ...OF_RUNS.map((event) => names.fact(shard, `run.${id}.${event}`)),
    names.fact(shard, `asset.*.*.${id}.>`),
    ...OF_SCATTERS.map((event) => names.fact(shard, `scatter.${id}.*.${event}`)),
    ...OF_GATES.map((event) => names.fact(shard, `gate.${id}.*.*.${event}`)),
  ]
  const requested = names.fact(shard, `run.${id}.requested`)
  const first = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: requested }))
  yield* messagesUnder(connection, stream, filters, Math.max(first?.seq ?? 1, after + 1))
}
