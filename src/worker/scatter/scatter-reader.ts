/**
 * Stores the keys of an item reader. Every key chunk carries the cursor behind its last key, so a
 * later attempt goes on there.
 *
 * Key chunks make a chain: each begins where the one before it ended, and its subject is taken
 * once. So of two workers that read at once (one was taken for dead and is not) only one can
 * lengthen the chain; the other meets what is there, and leaves.
 */
import { FlowStoneError, TerminalError } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { ListWriter, readList } from '../../../streams/list.ts'
import type { ItemsCursor } from '../../../streams/scatter-schemas.ts'
import type { Chunk, ItemReader } from '../../items/reader.ts'
import { factEntry } from '../../log/entries.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { emit } from '../../telemetry.ts'
import { DuplicateKeys } from './duplicate-keys.ts'
import {
  CHUNK_KEYS,
  itemsFact,
  KEY_CHUNK_WAIT_MS,
  keyChunkBytes,
  keyChunkFact,
  type ScatterTarget,
  startedFact,
  storeTotal,
  takeKey,
  wait,
} from './key-chunks.ts'
import { Turns } from './turns.ts'

/** How far a scatter is stored. */
interface Place {
  /** Keys so far. */
  readonly offset: number
  readonly cursor: ItemsCursor | undefined
}

export async function storeReader(target: ScatterTarget, reader: ItemReader<unknown>): Promise<number> {
  const seen = target.duplicates === 'allow' ? undefined : new DuplicateKeys(target.duplicates)
  let place: Place = { offset: 0, cursor: undefined }
  const begun = await target.log.appendOnce(factEntry(target.names, target.shard, startedFact(target)))
  if (begun === 'exists') {
    const total = await storedTotal(target)
    if (total !== undefined) return total
    place = await catchUp(target, seen)
    const { cursor, offset } = place
    if (offset > 0 && cursor?.reader !== reader.name) {
      const before = cursor ? `by ${cursor.reader}` : 'by a scatter function that is no item reader'
      throw new TerminalError(
        `the first ${offset} keys were given ${before}, and ${reader.name} cannot go on from there; materialize the asset anew`,
      )
    }
    const { worker, run, asset } = target
    const position = reader.describe(cursor?.at)
    emit('flowstone:items.resume', { worker, run, asset, reader: reader.name, position, keys: offset })
  }
  const feed = new Feed(target, reader.name, place, seen)
  try {
    await feed.take(reader.read(place.cursor?.at, target.signal))
  } catch (error) {
    // The reader knows its place in the source, and this its place in the scatter; both help to
    // find what is wrong.
    if (error instanceof FlowStoneError && error.code === 'source_failed')
      throw new FlowStoneError(error.code, `${error.message} (after ${feed.read} keys)`, { cause: error.cause })
    throw error
  }
  feed.end()
  await storeTotal(target, feed.offset)
  return feed.offset
}

async function storedTotal(target: ScatterTarget): Promise<number | undefined> {
  const { connection, names, shard, run, asset } = target
  const subject = names.fact(shard, factPath('scatter.sized', { run, asset }))
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
  const fact = message && factOf(names, shard, message)
  return fact?.name === 'scatter.sized' ? fact.data.total : undefined
}

/** The end of what earlier attempts stored. To know duplicates, all of it is looked through. */
async function catchUp(target: ScatterTarget, seen: DuplicateKeys | undefined): Promise<Place> {
  if (!seen) {
    const last = await keyChunkFact(target, '*')
    if (!last) return { offset: 0, cursor: undefined }
    return { offset: Number(last.ids.offset) + last.data.count, cursor: last.data.cursor }
  }
  let place: Place = { offset: 0, cursor: undefined }
  for (;;) {
    target.signal.throwIfAborted()
    const keyChunk = await keyChunkFact(target, String(place.offset))
    if (!keyChunk) return place
    const keys = readList(keyChunk.data.keys, keyChunk.data.encoding)
    for (let k = 0; k < keys.count; k++) seen.isNew(keys.item(k))
    place = { offset: place.offset + keyChunk.data.count, cursor: keyChunk.data.cursor }
  }
}

/** Cuts what a reader gives into key chunks. */
class Feed {
  /** Keys stored. */
  offset: number
  readonly #target: ScatterTarget
  readonly #reader: string
  readonly #seen: DuplicateKeys | undefined
  readonly #keys = new ListWriter()
  /** Where the reader goes on behind the last key in `#keys`, or behind the last one stored. */
  #at: unknown
  #skip: number
  #late: Promise<undefined> | undefined

  constructor(target: ScatterTarget, reader: string, { offset, cursor }: Place, seen: DuplicateKeys | undefined) {
    this.#target = target
    this.#reader = reader
    this.#seen = seen
    this.offset = offset
    this.#at = cursor?.at
    this.#skip = cursor?.skip ?? 0
  }

  /** Keys stored, and those that wait to be. */
  get read(): number {
    return this.offset + this.#keys.count
  }

  /** All is stored. */
  end(): void {
    this.#keys.end()
  }

  async take(chunks: AsyncGenerator<Chunk<unknown>>): Promise<void> {
    /** Items of earlier attempts, to be passed over. */
    let known = this.#skip
    let next = chunks.next()
    const turns = new Turns()
    try {
      for (;;) {
        await turns.give()
        const result = this.#late ? await Promise.race([next, this.#late]) : await next
        this.#target.signal.throwIfAborted()
        if (!result) {
          // A source that gives some now and then must not hold back what it gave before.
          await this.#store()
          continue
        }
        if (result.done) break
        const chunk = result.value
        // The next chunk is read while this one is stored.
        next = chunks.next()
        next.catch(() => undefined)
        await this.#takeChunk(chunk, known)
        known = Math.max(0, known - chunk.items.length)
        this.#at = chunk.cursor
        this.#skip = known
      }
      await this.#store()
    } finally {
      void chunks.return(undefined).catch(() => undefined)
    }
  }

  async #takeChunk(chunk: Chunk<unknown>, known: number): Promise<void> {
    const from = this.#at
    const mostBytes = keyChunkBytes(this.#target)
    for (let i = known; i < chunk.items.length; i++) {
      const key = chunk.items[i]
      const keys = this.#keys
      if (takeKey(this.#target, keys, key, this.read, this.#seen)) {
        if (keys.count > 1 && (keys.size > mostBytes || keys.count > CHUNK_KEYS)) await this.#store(keys.count - 1)
        this.#late ??= wait(KEY_CHUNK_WAIT_MS)
      }
      this.#at = chunk.cursorAt ? chunk.cursorAt(i) : from
      this.#skip = chunk.cursorAt ? 0 : i + 1
    }
    // All of the chunk's duplicates are listed, and none is ever behind a stored cursor: a later
    // attempt finds them again.
    this.#seen?.check()
  }

  async #store(count = this.#keys.count): Promise<void> {
    this.#late = undefined
    if (count === 0) return
    this.#seen?.check()
    const at = this.#at
    const cursor = { reader: this.#reader, ...(at === undefined ? {} : { at }), skip: this.#skip }
    const { names, shard, log, run, asset } = this.#target
    const keys = this.#keys.list(count)
    const entry = factEntry(names, shard, itemsFact(this.#target, this.offset, keys, count, cursor))
    if ((await log.appendOnce(entry)) === 'exists')
      throw new FlowStoneError('superseded', `another worker goes on with scatter ${run}.${asset}`)
    this.offset += count
    this.#keys.drop(count)
  }
}
