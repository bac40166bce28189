/**
 * Begins a state that is made again with the base: what has left the log can no longer be folded,
 * and need not be.
 */
import { ENGINE_KEY, STATE_KINDS } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { messagesUnder } from '../../log/messages-under.ts'
import { type Entry, leaderGet, streamBounds } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { Checkpointer, positionOf } from '../shard/checkpoint.ts'
import { isMarkOf, type Position } from '../shard/position.ts'
import { historyLost } from './lost.ts'

const BATCH = 500
const BATCH_BYTES = 4 * 1024 * 1024
/** Headers that belong to a document. */
const KEPT = ['Fs-Encoding', 'Fs-Parts', 'Fs-Parts-Of'] as const

/** What else of the history bucket says something of sequences of the log. */
const OF_LOG = [
  ...['unsealed.>', 'wave.>', 'stretches', 'stretch.>', 'snapshot.>', 'part.*.snapshot.>', ENGINE_KEY],
  ...['changes', 'changes.>', 'whole.>', 'part.*.changes.>', 'part.*.whole.>'],
]

export interface BaseOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
}

export interface RestoreOptions extends BaseOptions {
  /** Who restores it. */
  readonly engine: string
}

/**
 * Copies the base into the state, whose position is that of the base from then on. Returns it; 0
 * when there is no base of this log. Doing it twice is harmless. Throws `history_lost`: what was
 * sealed cannot be folded again.
 */
export async function restoreFromBase(options: RestoreOptions, state: Checkpointer): Promise<number> {
  const { connection, names, shard, engine } = options
  const bucket = names.historyBucket(shard)
  const lost = await historyLost(options)
  if (lost) throw lost
  if (!(await basePosition(options))) return 0
  // Who still stores it changes nothing any more, and what was stored by half is whole.
  const fence = new Checkpointer(connection, names, shard, engine, bucket)
  const base = await fence.takeOverAsItIs()
  if (base.seq === 0 || !(await isOfThisLog(options, base))) return 0
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
  await fence.look()
  await state.write([], base.seq, await markOnLog(options, base))
  return base.seq
}

/** The fact by which the log is known again. That of the base may have left the log by now. */
async function markOnLog({ connection, names, shard }: BaseOptions, { mark }: Position): Promise<Position['mark']> {
  if (!mark) return undefined
  const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq: mark.seq }))
  return found && mark
}

/**
 * Empties a base that is of another log, or whose position no engine wrote, so that the next engine
 * makes one of this log. Packs and index stay: what is in them can still be read. Returns why.
 */
export async function emptyForeignBase(options: BaseOptions): Promise<string | undefined> {
  const { connection, names, shard } = options
  const why = await whyForeign(options)
  if (why === undefined) return undefined
  const bucket = names.historyBucket(shard)
  const jsm = await jetstreamManager(connection.nc)
  for (const filter of [...filtersOf(names, bucket), ...OF_LOG.map(keyIn(names, bucket))])
    await jsm.streams.purge(names.kvStream(bucket), { filter })
  return why
}

async function whyForeign(options: BaseOptions): Promise<string | undefined> {
  try {
    const base = await basePosition(options)
    return !base || base.seq === 0 || (await isOfThisLog(options, base)) ? undefined : 'is of another log'
  } catch (error) {
    if (error instanceof FlowStoneError && error.code === 'bad_state') return 'has a position that no engine wrote'
    throw error
  }
}

export async function basePosition({ connection, names, shard }: BaseOptions): Promise<Position | undefined> {
  return await positionOf(connection, names, names.historyBucket(shard))
}

async function isOfThisLog(options: BaseOptions, { seq, mark }: Position): Promise<boolean> {
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
