/**
 * What runs refer to that are in no pack of this shard: nothing of that is pruned. These are the
 * runs of all states, open or ended, and the packs of other shards.
 *
 * It is read again and again while a look goes on: each time what came since the last time. A run
 * that is sealed leaves its state, so the state of a shard is read before its packs.
 */
import { namedBy, takenBy } from '../../../../projections/retention/summary.ts'
import { type RunState, stateKey } from '../../../../projections/state.ts'
import { FlowStoneError } from '../../../../streams/errors.ts'
import { isInRanges, type PackSummary, retentionKey } from '../../../../streams/retention.ts'
import type { Names } from '../../../../streams/subjects.ts'
import type { Connection } from '../../../log/connection.ts'
import { partsSaid } from '../../../log/document-parts.ts'
import { decodeDoc, readDocIfAny } from '../../../log/documents.ts'
import { messagesUnder } from '../../../log/messages-under.ts'
import { anyBetween, isGone, leaderGet, type StoredMessage, streamBounds } from '../../../log/nats.ts'
import { manifestOf } from '../../../log/packs.ts'
import { foldedTo } from '../../shard/checkpoint.ts'

const AT_ONCE = 200
/** Documents that change while they are read are read once more, so often. */
const PASSES = 5
/** Folding is behind by milliseconds while an engine works. */
const LOOK_MS = 20
const FOLDED_WAIT_MS = 10_000

/** Who hears what is referred to. */
export interface Heard {
  hold(run: string): void
  /** `at`: `<shard>,<seq>`. */
  take(at: string): void
  addRefs(summary: PackSummary): void
}

interface ReferencesOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly shards: number
}

/** How far a shard was read. */
interface Read {
  /** When its state was made: another one counts anew. */
  created: string
  /** Of the stream of its state. */
  seq: number
  /** Packs before this one. */
  packs: number
}

export class References {
  readonly #options: ReferencesOptions
  readonly #heard: Heard
  readonly #read: Read[]

  constructor(options: ReferencesOptions, heard: Heard) {
    this.#options = options
    this.#heard = heard
    this.#read = Array.from({ length: options.shards }, () => ({ created: '', seq: 0, packs: 0 }))
  }

  /**
   * All that was stored on a log before this began. Yields how long to wait, or undefined, so that
   * whoever asks can pause in between. Throws `state_behind` while that cannot be known.
   */
  async *read(): AsyncGenerator<number | undefined, void> {
    for (const [shard, read] of this.#read.entries()) {
      yield* this.#untilFolded(shard)
      yield* this.#readState(shard, read)
      if (shard !== this.#options.shard) yield* this.#readPacks(shard, read)
    }
  }

  /** What the states and histories have by now, at once. */
  async readNow(): Promise<void> {
    for (const [shard, read] of this.#read.entries()) {
      for await (const _ of this.#readState(shard, read));
      if (shard !== this.#options.shard) for await (const _ of this.#readPacks(shard, read));
    }
  }

  async *#untilFolded(shard: number): AsyncGenerator<number, void> {
    const { connection, names } = this.#options
    const log = names.log(shard)
    const { last } = await connection.read((nc) => streamBounds(nc, log))
    const untilMs = performance.now() + FOLDED_WAIT_MS
    const isBehind = async (): Promise<boolean> => {
      const seq = await foldedTo(connection, names, shard)
      return await connection.read((nc) => anyBetween(nc, log, seq + 1, last))
    }
    while (await isBehind()) {
      // Also one that is made again.
      if (performance.now() > untilMs) throw behind(`the state of shard ${shard} is behind its log`)
      yield LOOK_MS
    }
  }

  async *#readState(shard: number, read: Read): AsyncGenerator<undefined, void> {
    const { connection, names } = this.#options
    const bucket = names.stateBucket(shard)
    const stream = names.kvStream(bucket)
    const filter = names.kvSubject(bucket, stateKey.run('*'))
    const { created } = await connection
      .read((nc) => streamBounds(nc, stream))
      .catch((error: unknown) => {
        // One that is gone is made again, and folded; its runs are looked at then.
        if (isGone(error)) throw behind(`${bucket} is gone`)
        throw error
      })
    if (created !== read.created) Object.assign(read, { created, seq: 0 })
    for (let pass = 1; pass <= PASSES; pass++) {
      const newest = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: filter }))
      if (!newest || newest.seq <= read.seq) return
      let some: StoredMessage[] = []
      for await (const message of messagesUnder(connection, stream, [filter], read.seq + 1)) {
        some.push(message)
        if (some.length < AT_ONCE) continue
        await this.#hear(bucket, some)
        some = []
        yield undefined
      }
      await this.#hear(bucket, some)
      read.seq = Math.max(read.seq, newest.seq)
    }
  }

  async #hear(bucket: string, messages: readonly StoredMessage[]): Promise<void> {
    const { connection, names } = this.#options
    const head = names.kvSubject(bucket, '').length
    for (const message of messages) {
      const key = message.subject.slice(head)
      // What stands under the key of a run is its document.
      const doc = (
        partsSaid(message) === 1 ? decodeDoc(key, message) : await readDocIfAny(connection, names, bucket, key)
      ) as RunState | undefined
      if (!doc) continue
      for (const run of namedBy(doc)) this.#heard.hold(run)
      for (const at of takenBy(doc)) this.#heard.take(at.join())
    }
  }

  async *#readPacks(shard: number, read: Read): AsyncGenerator<undefined, void> {
    for (;;) {
      const { packs, gone = [] } = (await manifestOf(this.#options, shard)) ?? { packs: 0 }
      if (read.packs >= packs) return
      for (; read.packs < packs; read.packs++) {
        if (read.packs % AT_ONCE === AT_ONCE - 1) yield undefined
        if (isInRanges(gone, read.packs)) continue
        const summary = await this.#summary(shard, read.packs)
        if (summary) this.#heard.addRefs(summary)
      }
    }
  }

  /** Undefined for a pack that was pruned meanwhile: what is left of it is in a later one. */
  async #summary(shard: number, n: number): Promise<PackSummary | undefined> {
    const { connection, names } = this.#options
    const found = await readDocIfAny(connection, names, names.historyBucket(shard), retentionKey.summary(n))
    // Only engines write here.
    if (found) return found as PackSummary
    if (isInRanges((await manifestOf(this.#options, shard))?.gone ?? [], n)) return undefined
    // Its own engine makes those that are missing.
    throw behind(`pack ${n} of shard ${shard} has no summary yet`)
  }
}

function behind(why: string): FlowStoneError {
  return new FlowStoneError('state_behind', `${why}: nothing is pruned before that is there`)
}
