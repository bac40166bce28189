/**
 * Keeps the proof small: where all facts of a block have left by rule, its list of facts goes, and
 * its head with the root stays. The proof says so before, in a block of its own. What dies in
 * between leaves a list that the next look takes away.
 */

import { runOfPath } from '../../../projections/proof/left.ts'
import { messageOf } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { decodeBlock, decodeDetail } from '../../../streams/proof.ts'
import { isInHistory, rawSealedAt } from '../../log/history.ts'
import { directNext, leaderGet, type StoredMessage, streamBounds } from '../../log/nats.ts'
import type { SealerOptions } from '../history/options.ts'

type ShrinkOptions = Pick<
  SealerOptions,
  'connection' | 'names' | 'shard' | 'shards' | 'leaving' | 'logger' | 'isStopped' | 'provenTo'
>

const READ_AT_ONCE = 4
/** Old blocks come first. Behind so many in a row that have facts, most have. */
const KEPT_MAX = 200
const LOOKED_MAX = 5000

interface Gone {
  /** Its number. */
  readonly n: number
  /** Where its list stands on the stream. */
  readonly seq: number
}

/** Yields after each small step. Returns how many lists went. */
export async function* shrinkProof(options: ShrinkOptions): AsyncGenerator<undefined, number> {
  const { connection, names, shard, leaving, logger, isStopped } = options
  // Of an engine that does not prove, others may.
  if (options.provenTo() === Number.POSITIVE_INFINITY) return 0
  const { id } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  let [kept, looked, shrunk] = [0, 0, 0]
  for (let from = 1; kept < KEPT_MAX && looked < LOOKED_MAX && !isStopped(); ) {
    const start = from
    const details = await connection.read((nc) =>
      directNext(nc, names.proof, start, names.proofDetail(shard), READ_AT_ONCE),
    )
    if (details.length === 0) break
    const gone: Gone[] = []
    for (const detail of details) {
      from = detail.seq + 1
      looked += 1
      const n = await goneBlock(options, id, detail)
      if (n !== undefined) gone.push({ n, seq: detail.seq })
      kept = n === undefined ? kept + 1 : 0
    }
    if (gone.length > 0) {
      await leaving([{ why: 'shrunk', blocks: gone.map(({ n }) => n) }])
      try {
        const jsm = await jetstreamManager(connection.nc)
        for (const { seq } of gone) await jsm.streams.deleteMessage(names.proof, seq, false)
      } catch (error) {
        logger.warn(
          `the proof of shard ${shard} cannot be made smaller: ${messageOf(await connection.explained(error))}`,
        )
        return shrunk
      }
      shrunk += gone.length
    }
    yield undefined
  }
  return shrunk
}

/** The number of a block that has no fact any more; undefined: it has some, or cannot be read. */
async function goneBlock(options: ShrinkOptions, log: string, detail: StoredMessage): Promise<number | undefined> {
  const { connection, names, shard } = options
  const found = await connection.read((nc) => leaderGet(nc, names.proof, { seq: detail.seq + 1 }))
  if (found?.subject !== names.proofHead(shard)) return undefined
  try {
    const { head } = decodeBlock(found.payload)
    if (head.log !== log) return undefined
    const filter = names.fact(shard, '>')
    const next = await connection.read((nc) =>
      leaderGet(nc, names.log(shard), { seq: head.from, next_by_subj: filter }),
    )
    if (next && next.seq <= head.to) return undefined
    const { seqs, paths } = decodeDetail(detail.payload)
    const runs = new Map<string, boolean>()
    for (const [i, path] of paths.entries()) {
      const run = runOfPath(path)
      if (run !== undefined) {
        const isThere = runs.get(run) ?? (await isInHistory(options, run))
        if (isThere) return undefined
        runs.set(run, isThere)
      }
      // Values outlive their run.
      const mayStay = run === undefined || path.includes('.end.')
      if (mayStay && (await rawSealedAt(options, shard, seqs[i] ?? 0))) return undefined
    }
    return head.n
  } catch {
    // Who checks it finds what is wrong with it.
    return undefined
  }
}
