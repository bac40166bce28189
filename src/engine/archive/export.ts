/** `flow.export`: writes runs to an archive. */
import type { Writable } from 'node:stream'
import type { ArchiveFoot } from '../../../streams/archive.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { parseRunId } from '../../../streams/ids.ts'
import type { S3ClientLike } from '../../items/s3.ts'
import { type OptionNames, refuseUnknown } from '../../options/unknown.ts'
import { type RecordSource, Records, type Selection } from './records.ts'
import { placeOf, type Sink, streamSink } from './sink.ts'
import { type ArchiveFormat, formatOf, writeArchive } from './write.ts'

/** Options of `flow.export`: which runs, and where to. */
export interface ExportOptions {
  /**
   * A path, a `file:` URL, `s3://BUCKET/KEY`, or a stream, which is not ended. A file or an object
   * is there when all of it is; one of that name is replaced. The ending says the format: `.jsonl`,
   * `.jsonl.gz`, `.jsonl.zst`, `.parquet`; of a name without one it is lines.
   */
  readonly to: string | Writable
  /** These runs. */
  readonly runs?: readonly string[]
  /** Runs that were asked for at this time or later. */
  readonly since?: Date
  /** Runs that were asked for before this time. */
  readonly until?: Date
  /** Runs of these pipelines. */
  readonly pipelines?: readonly string[]
  /** All runs, and the newest value of each asset. */
  readonly all?: boolean
  /**
   * Where schedules, sensors and subscriptions stand, so that they go on where it is imported.
   * Default: with `all`.
   */
  readonly positions?: boolean
  /** Runs that have not ended, too. `import` takes none of them. Default false. */
  readonly open?: boolean
  /** Default: by the name. `'jsonl'` is for another ending, `'parquet'` for a stream. */
  readonly format?: ArchiveFormat
  /** A client of @aws-sdk/client-s3. Default: one that is set up from the environment. */
  readonly client?: S3ClientLike
}

/** What `flow.export` wrote. */
export interface ExportReport extends ArchiveFoot {
  /** Undefined for a stream. */
  readonly to: string | undefined
  /** Runs that were left out because they have not ended. */
  readonly left: number
}

const OPTIONS: OptionNames<ExportOptions> = {
  to: true,
  runs: true,
  since: true,
  until: true,
  pipelines: true,
  all: true,
  positions: true,
  open: true,
  format: true,
  client: true,
}

/** `found` resolves to the server's time once the namespace is known. */
export async function exportRuns(
  source: RecordSource,
  options: ExportOptions,
  found: () => Promise<number>,
): Promise<ExportReport> {
  refuseUnknown('export', options, OPTIONS)
  const selection = selectionOf(options)
  const { to, client } = options
  const place = typeof to === 'string' ? placeOf('export: to', to, client) : undefined
  if (!place && !isWritable(to)) throw new InvalidError('export: to must be a path, an address or a stream')
  const name = place?.name ?? ''
  const format = formatOf('export', name, options.format)
  const at = new Date(await found())
  const records = new Records(source)
  const sink: Sink = place ? await place.sink() : streamSink(to as Writable)
  const foot = await writeArchive(records.of(selection, at), { name, sink, format })
  return { to: place?.name, left: records.open.length, ...foot }
}

function isWritable(to: unknown): to is Writable {
  return typeof to === 'object' && to !== null && typeof Reflect.get(to, 'write') === 'function'
}

function selectionOf({ runs, since, until, pipelines, all, positions, open = false }: ExportOptions): Selection {
  const isSome = since !== undefined || until !== undefined || pipelines !== undefined
  if ([runs !== undefined, isSome, all === true].filter(Boolean).length !== 1)
    throw new InvalidError(
      'export: say which runs: runs, or since, until and pipelines, or all; one of the three, and no more',
    )
  for (const [field, time] of Object.entries({ since, until }))
    if (time !== undefined && !(time instanceof Date && Number.isFinite(time.getTime())))
      throw new InvalidError(`export: ${field} must be a Date`)
  for (const [field, list] of Object.entries({ runs, pipelines }))
    if (list !== undefined && !(Array.isArray(list) && list.length > 0 && list.every((one) => typeof one === 'string')))
      throw new InvalidError(`export: ${field} must be a list of names, and not empty`)
  if (positions && !all) throw new InvalidError('export: positions are of all runs: give all, or leave positions out')
  for (const run of runs ?? []) parseRunId(run)
  return {
    ...(runs ? { runs } : {}),
    wanted: {
      sinceMs: since?.getTime() ?? Number.NEGATIVE_INFINITY,
      untilMs: until?.getTime() ?? Number.POSITIVE_INFINITY,
      pipelines: pipelines && new Set(pipelines),
      open,
    },
    catalog: all === true,
    positions: all === true && positions !== false,
    related: true,
  }
}
