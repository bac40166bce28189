/**
 * Archives that somebody relies on before he takes something away: retention archives runs, has the
 * archive confirmed, and prunes them then.
 *
 * The name of an archive follows from its runs, and how many facts they have. So who dies before it
 * prunes writes the same one again.
 */
import { FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import { hash64 } from '../../../streams/ids.ts'
import type { ArchiveReceipt } from '../../../streams/retention.ts'
import { shown } from '../../../streams/shown.ts'
import type { S3ClientLike } from '../../items/s3.ts'
import type { Piece } from './piece.ts'
import { verifiedArchive } from './read.ts'
import { type RecordSource, Records } from './records.ts'
import { type Place, placeOf } from './sink.ts'
import { writeArchive } from './write.ts'

/** Throws InvalidError for a place that nothing can be archived to. */
export function parseArchiveTarget(at: string, target: unknown): string {
  if (typeof target !== 'string' || !/^(s3:\/\/[^/]+|file:.)/.test(target))
    throw new InvalidError(`${at} must be s3://BUCKET/PREFIX or file:FOLDER, got ${shown(target)}`)
  placeIn(at, target, 'archive')
  return target
}

function placeIn(at: string, target: string, name: string, client?: S3ClientLike, signal?: AbortSignal): Place {
  return placeOf(at, `${target.replace(/\/+$/, '')}/${name}`, client, signal)
}

export interface ArchiveRunsOptions {
  readonly at: Date
  readonly client?: S3ClientLike
  /** Nobody waits for it any more: what is asked of S3 ends. */
  readonly signal?: AbortSignal
  /** What is known of the runs. Default: each is looked for. */
  readonly pieces?: () => AsyncIterable<Piece>
  /** How many facts each of them has, where the caller knows. */
  readonly factsOf?: ReadonlyMap<string, number>
}

/**
 * Writes runs that have ended into one archive under `target`: `s3://BUCKET/PREFIX`, or
 * `file:FOLDER`. When it resolves, the archive is stored.
 */
export async function archiveRuns(
  source: RecordSource,
  target: string,
  runs: readonly string[],
  { at, client, signal, pieces, factsOf }: ArchiveRunsOptions,
): Promise<ArchiveReceipt> {
  const sorted = runs.toSorted()
  // What still writes an older one of a run to which a fact came late must not replace the newer.
  const parts = sorted.map((run) => (factsOf?.has(run) ? `${run}:${factsOf.get(run)}` : run))
  const name = `${source.names.ns}-${hash64(parts.join(' '))}.jsonl.zst`
  const place = placeIn('archive', parseArchiveTarget('archive', target), name, client, signal)
  const wanted = { sinceMs: 0, untilMs: Number.POSITIVE_INFINITY, pipelines: undefined, open: false }
  const selection = {
    runs: sorted,
    wanted,
    catalog: false,
    positions: false,
    related: false,
    ...(pieces ? { pieces } : {}),
  }
  const records = new Records(source).of(selection, at)
  const written = await writeArchive(records, { name, sink: await place.sink(), format: 'jsonl' })
  const { sha256, lines, facts } = written
  return { to: place.name, sha256, lines, runs: written.runs, facts }
}

/**
 * Reads the archive back, and compares it with what was written. Throws `bad_archive` where it is
 * not that.
 */
export async function confirmArchive(
  receipt: ArchiveReceipt,
  client?: S3ClientLike,
  signal?: AbortSignal,
): Promise<void> {
  const { foot } = await verifiedArchive(placeOf('archive', receipt.to, client, signal).source())
  if (foot.sha256 !== receipt.sha256 || foot.lines !== receipt.lines)
    throw new FlowStoneError(
      'bad_archive',
      `${receipt.to} is another archive than the one that was written: ${foot.sha256}, not ${receipt.sha256}`,
    )
}
