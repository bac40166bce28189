import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { PGlite } from '@electric-sql/pglite'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readPostgres } from '../../src/items/index.ts'
import { InvalidError } from '../../streams/errors.ts'
import { rejection } from '../kit/stage.ts'
import { cursorsOf, expectReadsOn, readAll } from './kit.ts'

let db: PGlite
let server: PGLiteSocketServer
let connectionString: string

beforeAll(async () => {
  db = await PGlite.create()
  server = new PGLiteSocketServer({ db, host: '127.0.0.1', port: 0 })
  await server.start()
  connectionString = `postgres://postgres@${server.getServerConn()}/postgres?sslmode=disable`
  await db.exec(`
    CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, seen timestamptz, "odd "" name" int);
    INSERT INTO users SELECT i, 'user' || i || '@example.com', timestamptz '2026-01-01' + i * interval '1 microsecond', i % 5 FROM generate_series(1, 230) AS i;
  `)
})
afterAll(async () => {
  await server.stop()
  await db.close()
})

describe('rows of Postgres', () => {
  it('are read page by page over the wire, from whatever cursor', async () => {
    const query = 'SELECT id, email FROM users WHERE id > $1;'
    const rows = await expectReadsOn(readPostgres({ query, values: [10], key: 'id', connectionString, pageSize: 100 }))
    expect(rows).toHaveLength(220)
    expect(rows[0]).toEqual({ id: '11', email: 'user11@example.com' })
    expect(rows.at(-1)).toEqual({ id: '230', email: 'user230@example.com' })
  })

  it('are none lost that differ by a microsecond', async () => {
    const reader = readPostgres({ query: 'SELECT seen FROM users', key: 'seen', connectionString, pageSize: 7 })
    expect(await readAll(reader)).toHaveLength(230)
    const cursors = await cursorsOf(reader)
    expect(await readAll(reader, cursors[100]?.[0])).toHaveLength(230 - (cursors[100]?.[1] ?? 0))
  })

  it('may have a key of several columns, whatever they are called', async () => {
    const key = ['odd " name', 'id']
    const reader = readPostgres({ query: 'SELECT * FROM users', key, connectionString, pageSize: 30 })
    const rows = await readAll(reader)
    expect(rows.map((row) => Number(row.id))).toEqual(
      Array.from({ length: 230 }, (_, i) => i + 1).toSorted((a, b) => (a % 5) - (b % 5) || a - b),
    )
  })

  it('may be read by a client that is there', async () => {
    const client = new pg.Client({ connectionString })
    await client.connect()
    try {
      const reader = readPostgres({ query: 'SELECT id FROM users', key: 'id', client })
      expect(await readAll(reader)).toHaveLength(230)
      expect(await readAll(reader)).toHaveLength(230)
    } finally {
      await client.end()
    }
  })

  it('fill pages to the last, and may be none', async () => {
    const key = 'id'
    expect(
      await readAll(readPostgres({ query: 'SELECT id FROM users', key, connectionString, pageSize: 115 })),
    ).toHaveLength(230)
    expect(await readAll(readPostgres({ query: 'SELECT id FROM users WHERE false', key, connectionString }))).toEqual(
      [],
    )
  })

  it('that were written behind the cursor are seen, and a lost connection is made anew', async () => {
    await db.exec('CREATE TABLE growing AS SELECT i AS id FROM generate_series(1, 10) AS i')
    const reader = readPostgres({
      query: 'SELECT id FROM growing',
      key: 'id',
      connectionString,
      pageSize: 4,
      retry: { backoff: 1 },
    })
    const found: number[] = []
    for await (const { items } of reader.read(undefined, new AbortController().signal)) {
      found.push(...items.map(({ id }) => Number(id)))
      if (found.length !== 4) continue
      await db.exec('INSERT INTO growing SELECT i FROM generate_series(11, 12) AS i; DELETE FROM growing WHERE id = 2')
      await server.stop()
      await server.start()
    }
    expect(found).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  })

  it('fail when a server takes the connection and does not answer', async () => {
    const sockets: Socket[] = []
    const silent = createServer((socket) => void sockets.push(socket))
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const address = silent.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`
    const retry = { maxAttempts: 1 }
    const reader = readPostgres({ query: 'SELECT 1 AS id', key: 'id', connectionString, timeout: 50, retry })
    const error = await rejection(readAll(reader))
    expect(error).toMatchObject({ code: 'source_failed', message: expect.stringContaining('no answer within 0.05 s') })
    for (const socket of sockets) socket.destroy()
    silent.close()
  })

  it('fail when a client does not answer, and are left when nobody wants them', async () => {
    const [query, key] = ['SELECT 1 AS id', 'id']
    const client = { query: () => new Promise<never>(() => undefined) }
    const brief = readPostgres({ query, key, client, timeout: 20, retry: { maxAttempts: 1 } })
    expect((await rejection(readAll(brief))).message).toContain('no answer within 0.02 s')
    const left = new AbortController()
    const next = readPostgres({ query, key, client }).read(undefined, left.signal).next()
    left.abort(new Error('cancelled'))
    expect((await rejection(next)).message).toBe('cancelled')
  })

  it.each<[string, string, string, RegExp]>([
    [
      'two have the same key at the bound of pages',
      'SELECT 1 AS a FROM users',
      'a',
      /two rows have a = 1; the key must be unique/,
    ],
    ['a key is null', 'SELECT id, NULL::int AS a FROM users', 'a', /a must not be null/],
    [
      'there is no such column',
      'SELECT id FROM users',
      'nothing',
      /Postgres refuses the query: column q\.nothing does not exist/,
    ],
    ['the query is none', 'SELEKT', 'id', /Postgres refuses the query: syntax error/],
  ])('are refused at once when %s', async (_, query, key, message) => {
    const error = await rejection(readAll(readPostgres({ query, key, connectionString, pageSize: 10 })))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(message)
  })

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['no query', { query: ' ', key: 'id' }, /query must be a SELECT/],
    ['no key', { query: 'SELECT 1', key: [] }, /key must name the column/],
    ['no time', { query: 'SELECT 1', key: 'id', timeout: 0 }, /timeout must be more than 0/],
    ['pages of nothing', { query: 'SELECT 1', key: 'id', pageSize: 0 }, /pageSize must be a whole number from 1/],
  ])('cannot be asked for with %s', (_, options, message) => {
    expect(() => readPostgres({ query: '', key: '', ...options })).toThrow(message)
  })
})
