import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startS3 } from '../kit/s3.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { batches, objects, reading, reads, rows } from './programs/readers.ts'
import { type Rig, startRig } from './rig.ts'

const LINES = 25_000
const LINE_BYTES = 40
const scratch = scratchFolder()
const path = join(scratch.path, 'numbers.txt')
const bytes = LINES * LINE_BYTES

beforeAll(() => {
  writeFileSync(path, Array.from({ length: LINES }, (_, i) => `${String(i).padStart(LINE_BYTES - 1, '0')}\n`).join(''))
})
afterAll(() => scratch[Symbol.dispose]())

const env = { KILL_READS: 'yes', KILL_FILE: path }

async function keyChunks(rig: Rig, run: Parameters<Rig['barrier']>[0], asset: string, count: number): Promise<void> {
  await until(`${count} key chunks of ${asset}`, async () => ((await rig.barrier(run, asset))?.keyChunks ?? 0) >= count)
  expect((await rig.barrier(run, asset))?.total).toBeUndefined()
}

/** Positions that cursors on the log name, behind each key chunk. */
async function positions(rig: Rig, run: string): Promise<number[]> {
  const found: number[] = []
  for await (const { kind, data } of rig.flow.history(run)) {
    const { cursor } = data as { cursor?: { at?: { at?: number } } }
    if (kind === 'scatter.items') found.push(cursor?.at?.at ?? Number.NaN)
  }
  return found
}

const begins = (rig: Rig): number[] =>
  rig.noted().flatMap((line) => (line.startsWith('from') ? [Number(line.slice(5))] : []))
const bytesRead = (rig: Rig): number =>
  rig.noted().reduce((sum, line) => sum + (line.startsWith('read') ? Number(line.slice(5)) : 0), 0)

describe('a worker that is killed while it reads a file of 25,000 lines', () => {
  it('in the middle of a key chunk leaves the rest to the next, which reads on from the cursor', async () => {
    await using rig = await startRig({ killsServer: true })
    const [victim] = await Promise.all([rig.start('worker', {}, env), rig.engine()])
    const run = await rig.materialize(reading, undefined, reads)
    await keyChunks(rig, run, 'reading', 3)
    await victim.kill()
    const stored = await positions(rig, run.id)
    await rig.start('worker', {}, env)
    await rig.expectWhole(run, 'reading', LINES)
    // Not from the beginning, and not from anywhere but the end of what was stored (a last key
    // chunk may have been on its way).
    const [first, second, ...more] = begins(rig)
    expect([first, more]).toEqual([0, []])
    expect(second).toBeGreaterThanOrEqual(stored.at(-1) ?? bytes)
    expect(await positions(rig, run.id)).toContain(second)
    expect(second).toBeGreaterThan(100_000)
    // What was read and not stored is all that is read twice: less than a key chunk, and what was
    // read ahead of it.
    expect(bytesRead(rig)).toBeLessThan(bytes + 400 * 1024)
    await rig.expectStateIsFold()
  })

  it('into batches leaves whole batches, and the next goes on behind them', async () => {
    await using rig = await startRig({ killsServer: true })
    const [victim] = await Promise.all([rig.start('worker', {}, env), rig.engine()])
    const run = await rig.materialize(batches, undefined, reads)
    await keyChunks(rig, run, 'batches', 3)
    await victim.kill()
    await rig.start('worker', {}, env)
    await rig.expectWhole(run, 'batches', LINES / 20)
    const [first, second, ...more] = begins(rig)
    expect([first, more]).toEqual([0, []])
    expect(second).toBeGreaterThan(100_000)
    // Behind a whole batch of 20 lines.
    expect((second ?? 1) % (20 * LINE_BYTES)).toBe(0)
    await rig.expectStateIsFold()
  })
})

it('a worker that was stopped while it read, and wakes up when another has gone on, adds nothing', async () => {
  await using rig = await startRig({ killsServer: true })
  const [sleeper] = await Promise.all([rig.start('worker', {}, env), rig.engine()])
  const run = await rig.materialize(reading, undefined, reads)
  await keyChunks(rig, run, 'reading', 2)
  sleeper.signal('SIGSTOP')
  await rig.start('worker', {}, env)
  await until('the other one reads', () => begins(rig).length === 2)
  const before = (await rig.barrier(run, 'reading'))?.keyChunks ?? 0
  await keyChunks(rig, run, 'reading', before + 1)
  sleeper.signal('SIGCONT')
  await rig.expectWhole(run, 'reading', LINES)
  const stored = await positions(rig, run.id)
  expect(stored).toEqual(stored.toSorted((a, b) => a - b))
  expect(stored.at(-1)).toBe(bytes)
  expect(sleeper.isAlive).toBe(true)
  await rig.expectStateIsFold()
})

it('an engine that is killed while keys are fed leaves them to its heir, and the reading goes on', async () => {
  await using rig = await startRig({ killsServer: true })
  const [victim] = await Promise.all([rig.engine(), rig.start('worker', {}, env)])
  await rig.start('engine')
  const run = await rig.materialize(reading, undefined, reads)
  await keyChunks(rig, run, 'reading', 3)
  await victim.kill()
  await rig.expectWhole(run, 'reading', LINES)
  expect(begins(rig)).toEqual([0])
  expect(bytesRead(rig)).toBe(bytes)
  await rig.expectStateIsFold()
})

it('a server that is killed while keys are stored has them all in the end, and nothing is read twice', async () => {
  await using rig = await startRig({ killsServer: true })
  await Promise.all([rig.engine(), rig.start('worker', {}, env)])
  const run = await rig.materialize(reading, undefined, reads)
  await keyChunks(rig, run, 'reading', 3)
  await rig.killServer()
  await rig.startServer()
  await rig.expectWhole(run, 'reading', LINES)
  expect(bytesRead(rig) - bytes).toBeLessThan(400 * 1024)
  expect(begins(rig)[0]).toBe(0)
  expect(begins(rig).filter((from) => from === 0)).toHaveLength(1)
  await rig.expectStateIsFold()
})

it('a worker that is killed while it lists a bucket leaves the rest to the next, which lists on behind the last key', async () => {
  await using s3 = await startS3('things')
  for (let i = 1000; i < 6000; i++) s3.objects.set(String(i), new Uint8Array())
  await using rig = await startRig({ killsServer: true })
  const settings = { KILL_READS: 'yes', KILL_S3: s3.url }
  const [victim] = await Promise.all([rig.start('worker', {}, settings), rig.engine()])
  const dead = Promise.withResolvers<void>()
  s3.hold = (asked) => (asked === 'list after=3999' ? dead.promise : undefined)
  const run = await rig.materialize(objects, undefined, reads)
  await until('three pages are stored', async () => (await rig.barrier(run, 'objects'))?.stored === 3000)
  await victim.kill()
  dead.resolve()
  await rig.start('worker', {}, settings)
  await rig.expectWhole(run, 'objects', 5000)
  expect(s3.asked).toEqual([
    'list after=',
    'list after=1999',
    'list after=2999',
    'list after=3999',
    'list after=3999',
    'list after=4999',
  ])
  await rig.expectStateIsFold()
})

it('a worker that is killed while it reads a table leaves the rest to the next, which asks for what is behind the last row', async () => {
  const db = await PGlite.create()
  const postgres = new PGLiteSocketServer({ db, host: '127.0.0.1', port: 0, maxConnections: 10 })
  await postgres.start()
  try {
    await db.exec('CREATE TABLE numbers AS SELECT i AS id FROM generate_series(0, 4999) AS i')
    await using rig = await startRig({ killsServer: true })
    const address = `postgres://postgres@${postgres.getServerConn()}/postgres?sslmode=disable`
    const settings = { KILL_READS: 'yes', KILL_POSTGRES: address }
    const [victim] = await Promise.all([rig.start('worker', {}, settings), rig.engine()])
    const run = await rig.materialize(rows, undefined, reads)
    await keyChunks(rig, run, 'rows', 3)
    await victim.kill()
    const stored = (await rig.barrier(run, 'rows'))?.stored ?? 0
    await rig.start('worker', {}, settings)
    await rig.expectWhole(run, 'rows', 5000)
    const pages = rig.noted().map((line) => line.slice(5))
    // Looks for holes in the key first, then pages from the first on; the next one neither looks
    // again nor begins again.
    expect(pages.slice(0, 3)).toEqual(['', '', '99'])
    expect(pages.slice(2)).not.toContain('')
    expect(pages.filter((page) => page === String(stored - 1)).length).toBeGreaterThan(0)
    // The page at hand, and the one read ahead of it.
    expect(pages.length).toBeLessThanOrEqual(1 + 50 + 1 + 2)
    await rig.expectStateIsFold()
  } finally {
    await postgres.stop()
    await db.close()
  }
})
