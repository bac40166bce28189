/**
 * Archives runs before they are pruned, beside other work: an archive that hangs holds nothing up
 * but the pruning.
 */
import { runIn } from '../../../../projections/retention/summary.ts'
import { FlowStoneError, messageOf } from '../../../../streams/errors.ts'
import type { SealedRun } from '../../../../streams/history.ts'
import type { ArchiveReceipt } from '../../../../streams/retention.ts'
import { readPack } from '../../../log/packs.ts'
import { every } from '../../../options/timer.ts'
import type { Piece } from '../../archive/piece.ts'
import { archiveRuns, confirmArchive } from '../../archive/receipt.ts'
import type { RecordSource } from '../../archive/records.ts'
import type { ArchivePlace } from '../../retention.ts'

/** How often it is looked whether it is done. */
const LOOK_MS = 20
/** An archive that takes longer is not there. */
const LONGEST_MS = 600_000

const CLOSED_LOOK_MS = 1000

/** Runs of one shard. */
export interface ToArchive {
  readonly shard: number
  readonly runs: readonly string[]
  /** The packs that have each of them, the one with its document first. */
  readonly places: ReadonlyMap<string, readonly number[]>
  /** How many facts each of them has. */
  readonly factsOf: ReadonlyMap<string, number>
  /** When the last of them ended: the time of the archive, so it is the same each time. */
  readonly endedMs: number
}

/**
 * Yields how long to wait until the archive is stored, read back, and compared. Throws
 * `archive_failed`.
 */
export async function* archived(
  source: RecordSource,
  { to, client }: ArchivePlace,
  what: ToArchive,
  longestMs = LONGEST_MS,
): AsyncGenerator<number, ArchiveReceipt> {
  let outcome: { readonly receipt: ArchiveReceipt } | { readonly error: unknown } | undefined
  const ended = new AbortController()
  const { signal } = ended
  // Also where nobody asks any more: the engine has stopped.
  const untilMs = performance.now() + longestMs
  const timer = every(
    Math.min(CLOSED_LOOK_MS, longestMs),
    () => {
      if (performance.now() >= untilMs) ended.abort(new Error(`it is not stored after ${longestMs} ms`))
      else if (source.connection.isClosed) ended.abort(new Error('the connection was closed'))
    },
    { unref: true },
  )
  const store = async (): Promise<ArchiveReceipt> => {
    const pieces = (): AsyncIterable<Piece> => piecesIn(source, what)
    const { endedMs, factsOf } = what
    const options = { at: new Date(endedMs), pieces, factsOf, signal, ...(client ? { client } : {}) }
    const receipt = await archiveRuns(source, to, what.runs, options)
    if (receipt.runs !== what.runs.length) throw new Error(`it has ${receipt.runs} of ${what.runs.length} runs`)
    await confirmArchive(receipt, client, signal)
    return receipt
  }
  store()
    .then(
      (receipt) => {
        outcome = { receipt }
      },
      (error: unknown) => {
        outcome = { error }
      },
    )
    .finally(() => timer.cancel())
  // What cannot be ended, such as a write to a file, is not waited for.
  while (!outcome && !signal.aborted) yield LOOK_MS
  if (outcome && 'receipt' in outcome) return outcome.receipt
  const cause: unknown = signal.aborted ? signal.reason : outcome?.error
  const why = messageOf(cause)
  throw new FlowStoneError('archive_failed', `they cannot be archived to ${to}: ${why}`, { cause })
}

/** A run at a time, its document first. One pack is in memory: a large scatter has many. */
async function* piecesIn(source: RecordSource, { shard, runs, places }: ToArchive): AsyncGenerator<Piece> {
  let last: { readonly n: number; readonly parts: ReadonlyMap<string, readonly SealedRun[]> } | undefined
  const read = async (n: number): Promise<ReadonlyMap<string, readonly SealedRun[]>> => {
    const found = await readPack(source, shard, n)
    if (!found) throw new Error(`pack ${n} of the history of shard ${shard} is gone`)
    return Map.groupBy(found, ({ run }) => run)
  }
  for (const run of runs)
    for (const n of places.get(run) ?? []) {
      if (last?.n !== n) last = { n, parts: await read(n) }
      const parts = last.parts.get(run) ?? []
      yield* parts.toSorted((a, b) => rankOf(a) - rankOf(b)).map((part) => ({ shard, ...part }))
    }
}

function rankOf(part: SealedRun): number {
  return runIn(part) ? 0 : (part.facts[0]?.seq ?? Number.POSITIVE_INFINITY)
}
