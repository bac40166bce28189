/**
 * Rows of a Postgres query, page by page in the order of its key columns ("keyset pagination"). By
 * pg, or any client with its `query`.
 */
import { z } from 'zod'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { cut } from '../../streams/text.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { atMost } from '../options/timer.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { within } from '../options/within.ts'
import { optionalPackage } from './optional.ts'
import { type ItemReader, itemReader, type ReaderRetry } from './reader.ts'

/** A Client or a Pool of pg, or what is like one. */
export interface PostgresClientLike {
  /** Runs one statement with values for `$1`, `$2`, … */
  query(text: string, values: unknown[]): Promise<{ readonly rows: readonly unknown[] }>
}

/** Options of `readPostgres`. */
export interface PostgresOptions {
  /** Any SELECT, without ORDER BY or LIMIT of its own. */
  readonly query: string
  /** Values of `$1`, `$2`, … in the query. */
  readonly values?: readonly unknown[]
  /**
   * The column, or columns, of the query's result that are read in order of. Together they must be
   * unique and never null; an index over them makes each page cheap.
   */
  readonly key: string | readonly string[]
  /**
   * `postgres://…`: a client is made for each read and closed after it. Default: what the
   * environment says (PGHOST and its like).
   */
  readonly connectionString?: string
  /** Your own client or pool instead; it is not closed. */
  readonly client?: PostgresClientLike
  /** Rows of a page. Default 1,000. */
  readonly pageSize?: number
  /**
   * The longest time of one query. One that takes longer counts as a failure, and is sent again.
   * Default `'5m'`.
   */
  readonly timeout?: Duration
  readonly retry?: ReaderRetry
}

const cursors = z.object({ behind: z.array(z.string()) })
type Cursor = z.infer<typeof cursors>
type Row = Readonly<Record<string, unknown>>
const rows = z.array(z.record(z.string(), z.unknown()))
export const PAGE_ROWS = 1000
export const QUERY_TIMEOUT = '5m'
const KEY = 'flowstone_key_'
/** A server that does not answer takes no leave either. */
const END_MS = 2000

const OPTIONS: OptionNames<PostgresOptions> = {
  query: true,
  values: true,
  key: true,
  connectionString: true,
  client: true,
  pageSize: true,
  timeout: true,
  retry: true,
}

/**
 * The rows of a query, each as an object by column, as pg gives them (whole numbers of 64 bits and
 * decimals as texts). The cursor is the key of the last row: it outlives the connection, which a
 * cursor of Postgres itself does not. It is no snapshot either: a row that is written behind the
 * cursor meanwhile is seen, one before it is not. Needs the package pg, unless there is a client.
 *
 *     scatter: () => readPostgres({ query: 'SELECT id, email FROM users WHERE active', key: 'id', connectionString })
 */
export function readPostgres(options: PostgresOptions): ItemReader<Row> {
  refuseUnknown('readPostgres', options, OPTIONS)
  const { query, values = [], pageSize = PAGE_ROWS, timeout = QUERY_TIMEOUT, retry } = options
  const keys = typeof options.key === 'string' ? [options.key] : options.key
  if (typeof query !== 'string' || query.trim() === '') throw new InvalidError('readPostgres: query must be a SELECT')
  if (!Array.isArray(keys) || keys.length === 0 || keys.some((key) => typeof key !== 'string' || key === ''))
    throw new InvalidError(
      'readPostgres: key must name the column, or columns, that the rows are read in order of; they must be unique together',
    )
  if (!Number.isInteger(pageSize) || pageSize < 1 || pageSize > 100_000)
    throw new InvalidError(`readPostgres: pageSize must be a whole number from 1 to 100,000, got ${pageSize}`)
  const timeoutMs = parseDuration('readPostgres: timeout', timeout)
  if (timeoutMs <= 0) throw new InvalidError(`readPostgres: timeout must be more than 0, got ${shown(timeout)}`)
  const inner = query.trim().replace(/;$/, '')
  const columns = keys.map((key) => `q.${quoted(key)}`)

  return itemReader<Row, Cursor>({
    name: `rows of ${cut(inner.replace(/\s+/g, ' '), 200)}`,
    position: ({ behind }) => `${keys.join(', ')} = ${behind.join(', ')}`,
    ...(retry ? { retry } : {}),
    async *read(given, signal) {
      let behind = given && cursors.parse(given).behind
      const { client, close } = await open(options, timeoutMs, signal)
      // A client that does not answer is not waited for.
      const ask = async (text: string, given: unknown[]): Promise<readonly unknown[]> =>
        (await within(timeoutMs, signal, () => client.query(text, given))).rows
      try {
        if (!behind) {
          const holes = columns.map((column) => `${column} IS NULL`).join(' OR ')
          const found = await ask(`SELECT 1 FROM (${inner}) AS q WHERE ${holes} LIMIT 1`, [...values])
          if (found.length > 0)
            throw new InvalidError(
              `readPostgres: ${keys.join(', ')} must not be null: such a row has no place in the order`,
            )
        }
        for (;;) {
          signal.throwIfAborted()
          // As text, for a Date would lose microseconds; Postgres reads it as the column's own type
          // again.
          const asText = columns.map((column, i) => `${column}::text AS ${KEY}${i}`).join(', ')
          const places = columns.map((_, i) => `$${values.length + i + 1}`).join(', ')
          const from = behind ? ` WHERE (${columns.join(', ')}) > (${places})` : ''
          // One more than the page: does it have the key of the last?
          const text = `SELECT q.*, ${asText} FROM (${inner}) AS q${from} ORDER BY ${columns.join(', ')} LIMIT ${pageSize + 1}`
          const page = rows.parse(await ask(text, [...values, ...(behind ?? [])]))
          const keyOf = (row: Row | undefined): string[] => keys.map((_, i) => String(row?.[`${KEY}${i}`]))
          const whole = page.length <= pageSize
          const taken = page.slice(0, pageSize)
          const last = taken.at(-1)
          if (!last) return
          if (!whole && keyOf(last).every((value, i) => value === keyOf(page[pageSize])[i]))
            throw new InvalidError(
              `readPostgres: two rows have ${keys.join(', ')} = ${keyOf(last).join(', ')}; the key must be unique, or a row would be lost between pages: add a column to it`,
            )
          behind = keyOf(last)
          yield {
            items: taken.map((row) =>
              Object.fromEntries(Object.entries(row).filter(([name]) => !name.startsWith(KEY))),
            ),
            cursor: { behind },
            cursorAt: (i) => ({ behind: keyOf(taken[i]) }),
          }
          if (whole) return
        }
      } catch (error) {
        // Class 42: the query itself is wrong, and stays so.
        if (error instanceof Error && 'code' in error && String(error.code).startsWith('42'))
          throw new InvalidError(`readPostgres: Postgres refuses the query: ${messageOf(error)}`, { cause: error })
        throw error
      } finally {
        await close()
      }
    },
  })
}

async function open(
  options: PostgresOptions,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<{ client: PostgresClientLike; close: () => Promise<void> }> {
  if (options.client) return { client: options.client, close: async () => undefined }
  const { default: pg } = await optionalPackage<typeof import('pg')>('pg', 'readPostgres')
  const { connectionString } = options
  const client = new pg.Client(connectionString === undefined ? {} : { connectionString })
  // The current query reports the error, too. Without a listener it would end the process.
  client.on('error', () => undefined)
  const close = async (): Promise<void> => {
    await atMost(END_MS, client.end()).catch(() => undefined)
  }
  try {
    await within(timeoutMs, signal, () => client.connect())
  } catch (error) {
    void close()
    throw error
  }
  return { client, close }
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
