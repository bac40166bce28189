import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import type { Entry } from '../../src/log/nats.ts'
import { startServer } from '../../src/server/index.ts'
import { ConflictError } from '../../streams/errors.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'

const STREAM = 'facts'
const APPENDS = 6000
const KILLS = 4

type Outcome = 'stored' | 'conflict'

interface Sent {
  readonly body: string
  readonly outcome: Promise<Outcome>
}

it('appends whose answers are lost in restarts are on the stream once, and only real conflicts are reported', async () => {
  using scratch = scratchFolder()
  let server = await startServer({ dir: join(scratch.path, 'nats') })
  const connections = await Promise.all([0, 1].map(() => Connection.open({ servers: server.url })))
  const [one, two] = connections
  if (!one || !two) throw new Error('no connections')
  const jsm = await jetstreamManager(one.nc)
  await jsm.streams.add({ name: STREAM, subjects: ['facts.>'], allow_atomic: true, allow_direct: true })
  const appenders = connections.map((connection) => new Appender(connection, STREAM, { answerTimeoutMs: 1000 }))

  const sent: Sent[] = []
  let settled = 0
  const append = (appender: Appender, ...entries: { subject: string; expect?: Entry['expect'] }[]): void => {
    const bodies = entries.map(() => randomBytes(9).toString('hex'))
    const outcome = appender
      .append(
        ...entries.map(({ subject, expect }, i) => ({
          subject,
          payload: Buffer.from(bodies[i] ?? ''),
          ...(expect ? { expect } : {}),
        })),
      )
      .then((): Outcome => 'stored')
      .catch((error: unknown): Outcome => {
        if (error instanceof ConflictError) return 'conflict'
        throw error
      })
    for (const body of bodies) sent.push({ body, outcome })
    void outcome
      .catch(() => undefined)
      .finally(() => {
        settled += 1
      })
  }

  let begun = 0
  const contested: Promise<Outcome>[][] = []
  const round = (): void => {
    const n = begun++
    for (const [who, appender] of appenders.entries()) {
      // Free for all; a place of one's own; a pair that is all there or not at all; and a place
      // that both want.
      append(appender, { subject: `facts.free.${who}` })
      append(appender, { subject: `facts.own.${who}.${n}`, expect: { seq: 0 } })
      append(appender, { subject: `facts.pair.${who}.${n}`, expect: { seq: 0 } }, { subject: `facts.pairs.${who}` })
      append(appender, { subject: `facts.both.${n}`, expect: { seq: 0 } })
      contested[n] = [...(contested[n] ?? []), sent.at(-1)?.outcome ?? Promise.reject(new Error('nothing sent'))]
    }
  }
  // In waves, so that there are small groups and large ones, and always some in flight.
  const rounds = APPENDS / 8
  const waves = (async () => {
    while (begun < rounds) {
      for (let i = 0; i < 1 + (begun % 40) && begun < rounds; i++) round()
      const goal = begun * 8 - 200
      await until('appends go on', () => settled >= goal)
    }
  })()
  for (let kill = 1; kill <= KILLS; kill++) {
    await until('the next kill is due', () => settled >= (APPENDS / (KILLS + 1)) * kill)
    await server.kill()
    server = await startServer({ dir: server.dir, port: server.port })
  }
  await waves
  const outcomes = await Promise.all(sent.map(({ outcome }) => outcome))

  const stored = new Map<string, number>()
  const { state } = await jsm.streams.info(STREAM)
  for (let seq = state.first_seq; seq <= state.last_seq; ) {
    for await (const message of await jsm.direct.getBatch(STREAM, { seq, batch: 1000 })) {
      const body = message.string()
      stored.set(body, (stored.get(body) ?? 0) + 1)
      seq = message.seq + 1
    }
  }
  for (const [i, { body }] of sent.entries())
    expect([outcomes[i], stored.get(body) ?? 0]).toEqual(outcomes[i] === 'stored' ? ['stored', 1] : ['conflict', 0])
  expect(stored.size, 'nothing else is there').toBe(outcomes.filter((outcome) => outcome === 'stored').length)
  for (const both of contested)
    expect((await Promise.all(both)).toSorted(), 'one of two').toEqual(['conflict', 'stored'])
  expect(outcomes.filter((outcome) => outcome === 'conflict')).toHaveLength(rounds)

  await Promise.all(connections.map((connection) => connection.close()))
  await server.stop()
})

it('an append is not given up because the clock of this host is set an hour on while the server is away', async () => {
  using scratch = scratchFolder()
  let server = await startServer({ dir: join(scratch.path, 'nats') })
  const connection = await Connection.open({ servers: server.url })
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name: STREAM, subjects: ['facts.>'], allow_atomic: true, allow_direct: true })
  const appender = new Appender(connection, STREAM, { answerTimeoutMs: 100, giveUpMs: 60_000 })
  await server.kill()
  const realNow = Date.now.bind(Date)
  const appending = appender.append({ subject: 'facts.one', payload: Buffer.from('one'), expect: { seq: 0 } })
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + 3_600_000)
  onTestFinished(() => void vi.restoreAllMocks())
  // An append that is given up ends when an answer is late, after 100 ms. Ten such times pass. No
  // condition shows what must not happen.
  const isOver = appending.then(
    () => 'stored',
    (error: unknown) => String(error),
  )
  expect(await Promise.race([isOver, sleep(1000, 'waits')])).toBe('waits')
  server = await startServer({ dir: server.dir, port: server.port })
  expect(await isOver).toBe('stored')
  await connection.close()
  await server.stop()
})
