/**
 * Begins a state that is made again with the base: what has left the log can no longer be folded,
 * and need not be.
 */
import { ENGINE_KEY, STATE_KINDS } from '../../../projections/state.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { messagesUnder } from '../../log/messages-under.ts'
import { type Entry, leaderGet, streamBounds } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { type Checkpointer, positionOf } from '../shard/checkpoint.ts'
import { isMarkOf, type Position } from '../shard/position.ts'

const BATCH = 500
const BATCH_BYTES = 4 * 1024 * 1024
/** Headers that belong to a document. */
const KEPT = ['Fs-Encoding', 'Fs-Parts', 'Fs-Parts-Of'] as const

/** What else of the history bucket says something of sequences of the log. */
const OF_LOG = [
  ...['unsealed.>', 'wave.>', 'stretches', 'stretch.>', 'snapshot.>', 'part.*.snapshot.>', ENGINE_KEY],
  ...['changes', 'changes.>', 'whole.>', 'part.*.changes.>', 'part.*.whole.>'],
]

export interface RestoreOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
}

/**
 * Copies the base into the state, whose position is that of the base from then on. Returns it; 0
 * when there is no base of this log. Doing it twice is harmless.
 */
export async function restoreFromBase(options: RestoreOptions, state: Checkpointer): Promise<number> {
  const { connection, names, shard } = options
  const base = await basePosition(options)
  if (!base || base.seq === 0 || !(await isOfThisLog(options, base))) return 0
  const bucket = names.historyBucket(shard)
  const from = names.kvSubject(bucket, '')
  const to = names.kvSubject(names.stateBucket(shard), '')
  let entries: Entry[] = []
  let bytes = 0
  const write = async (): Promise<void> => {
    await state.write(entries, 0, undefined)
    entries = []
    bytes = 0
  }
  for await (const { subject, payload, headers } of messagesUnder(
    connection,
    names.kvStream(bucket),
    filtersOf(names, bucket),
  )) {
    if (headers.has('KV-Operation') || headers.has('Nats-Marker-Reason')) continue
    const contentType = headers.get('Content-Type')
    const kept = KEPT.flatMap((name) => (headers.has(name) ? [[name, headers.get(name) ?? '']] : []))
    entries.push({
      subject: `${to}${subject.slice(from.length)}`,
      payload,
      ...(contentType === undefined ? {} : { contentType }),
      headers: Object.fromEntries(kept),
    })
    bytes += payload.length
    if (entries.length >= BATCH || bytes >= BATCH_BYTES) await write()
  }
  await write()
  await state.write([], base.seq, await markOnLog(options, base))
  return base.seq
}

/** The fact by which the log is known again. That of the base may have left the log by now. */
async function markOnLog({ connection, names, shard }: RestoreOptions, { mark }: Position): Promise<Position['mark']> {
  if (!mark) return undefined
  const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq: mark.seq }))
  return found && mark
}

/**
 * Empties a base that is of another log, so that the next engine makes one of this log. Packs and
 * index stay: what is in them can still be read.
 */
export async function emptyForeignBase(options: RestoreOptions): Promise<boolean> {
  const { connection, names, shard } = options
  const base = await basePosition(options)
  if (!base || base.seq === 0 || (await isOfThisLog(options, base))) return false
  const bucket = names.historyBucket(shard)
  const jsm = await jetstreamManager(connection.nc)
  for (const filter of [...filtersOf(names, bucket), ...OF_LOG.map(keyIn(names, bucket))])
    await jsm.streams.purge(names.kvStream(bucket), { filter })
  return true
}

export async function basePosition({ connection, names, shard }: RestoreOptions): Promise<Position | undefined> {
  return await positionOf(connection, names, names.historyBucket(shard))
}

async function isOfThisLog(options: RestoreOptions, { seq, mark }: Position): Promise<boolean> {
  const { connection, names, shard } = options
  const [manifest, log] = await Promise.all([
    manifestOf(options, shard),
    connection.read((nc) => streamBounds(nc, names.log(shard))),
  ])
  return manifest?.log === log.id && seq <= log.last && (await isMarkOf(options, mark))
}

function keyIn(names: Names, bucket: string): (key: string) => string {
  return (key) => names.kvSubject(bucket, key)
}

function filtersOf(names: Names, bucket: string): string[] {
  return STATE_KINDS.flatMap((kind) => [`${kind}.>`, `part.*.${kind}.>`]).map(keyIn(names, bucket))
}
