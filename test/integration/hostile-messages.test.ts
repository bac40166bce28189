import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { placeOf } from '../../src/engine/archive/sink.ts'
import { writeArchive } from '../../src/engine/archive/write.ts'
import { asset, connect, pipeline } from '../../src/index.ts'
import { type ArchiveRecord, documentRecord } from '../../streams/archive.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
import { busy } from '../kit/within.ts'

const server = useServer()

/** Publishes headers as they are, past any check of a client library. */
async function publishRaw(url: string, subject: string, header: string, body: string): Promise<void> {
  const { hostname, port } = new URL(url)
  const socket = connectTcp(Number(port), hostname)
  const head = `NATS/1.0\r\n${header}\r\n\r\n`
  const sizes = `${Buffer.byteLength(head)} ${Buffer.byteLength(head) + Buffer.byteLength(body)}`
  socket.write(
    `CONNECT {"verbose":false,"headers":true}\r\nHPUB ${subject} _INBOX.answer ${sizes}\r\n${head}${body}\r\nPING\r\n`,
  )
  await new Promise<void>((resolve) => {
    let heard = ''
    socket.on('data', (data) => {
      heard += data.toString('latin1')
      if (heard.includes('PONG')) resolve()
    })
  })
  socket.destroy()
}

const HOSTILE = ['x', '', '\u00c1', '{"p":1e999}', '[[[[', 'null', '"text"']

it('no core message, whatever is in it, ends the read loop of who hears it', async () => {
  const ok = asset('ok', { execute: () => 1 })
  const many = asset('many', {
    scatter: () => [1, 2, 3],
    scatterOptions: { maxConcurrent: 2, rateLimit: { bucket: 'b', limit: 100, per: 'second' } },
    execute: (ctx) => ctx.scatterKey,
  })
  await using stage = await openStage(server.url, pipeline('p', [ok, many]))
  const { flow, namespace: ns } = stage
  const run = await flow.materialize(many)
  await run.result()
  const nc = await connectNats({ servers: server.url })
  const subjects = [
    `${ns}.notify.limited_queue.p.default`,
    `${ns}.notify.abort.${run.id}`,
    `${ns}.notify.pause.${run.id}`,
    `${ns}.notify.run.${run.id}`,
    `${ns}.notify.limits.x`,
    `${ns}.workers.p`,
  ]
  for (const subject of subjects) {
    for (const text of HOSTILE) nc.publish(subject, text, { reply: '_INBOX.answer' })
    nc.publish(subject, new Uint8Array([0xc1, 0xff, 0x80]), { reply: '_INBOX.answer' })
    await nc.flush()
    await publishRaw(server.url, subject, 'Content-Type: a\nb', '')
  }
  const began = performance.now()
  expect(await (await flow.materialize(ok, { upstream: 'all' })).result()).toBe(1)
  expect(await (await flow.materialize(many, { upstream: 'all' })).result()).toHaveLength(3)
  expect(performance.now() - began).toBeLessThan(3000 * busy())
  expect(flow.connection.badMessages).toBeGreaterThan(0)
  expect(
    stage.lines.filter((line) => line.includes(`${ns}.notify.limited_queue.p.default cannot be read`)),
  ).toHaveLength(1)
  expect(stage.lines.filter((line) => line.includes(`${ns}.workers.p cannot be read`))).toHaveLength(1)
  await nc.close()
})

it('a stored message with headers that cannot be read is stepped over by engine, worker and watchers', async () => {
  const ok = asset('ok', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [ok]))
  const { flow, namespace: ns } = stage
  await (await flow.materialize(ok)).result()
  await publishRaw(server.url, `${ns}.trigger.ok`, 'X-Bad: a\nb', '{}')
  await publishRaw(server.url, `${ns}.log.0.run.x.requested`, 'X-Bad: a\nb', '{}')
  await publishRaw(server.url, `${ns}.work.0.p.default.0.shared`, 'X-Bad: a\nb', '{}')
  await publishRaw(server.url, `$KV.${ns}_state_0.run.x`, 'X-Bad: a\nb', '{}')
  const began = performance.now()
  const run = await flow.materialize(ok, { upstream: 'all' })
  let last: string | undefined
  for await (const { run: now } of run.watch()) last = now.status
  expect(last).toBe('succeeded')
  expect(performance.now() - began).toBeLessThan(5000 * busy())
})

it('messages on the log that are no facts are left out of an archive', async () => {
  using scratch = scratchFolder()
  const ok = asset('ok', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [ok]))
  const { flow, namespace: ns } = stage
  const run = await flow.materialize(ok)
  await run.result()
  const nc = await connectNats({ servers: server.url })
  for (const path of [`run.${run.id}.cancel_requested`, `asset.p.ok.${run.id}.unknown`, 'run.0-ghost.requested'])
    await nc.request(`${ns}.log.0.${path}`, '[[[[')
  await nc.close()
  const to = join(scratch.path, 'a.jsonl')
  for (const which of [{ all: true }, { pipelines: ['p'] }, { runs: [run.id] }])
    expect(await flow.export({ to, ...which })).toMatchObject({ runs: 1, left: 0 })
})

it.each<[string, ArchiveRecord]>([
  ['a document of no run that is no newest value', documentRecord(0, undefined, 'engine', { seq: 9 })],
  ['a document of a run of another shard', documentRecord(0, '1-a', 'run.1-a', { id: '1-a', finishedMs: 1 })],
  ['a value without its last part', { kind: 'blob', data: { hash: 'a'.repeat(64), part: 0, parts: 2 }, raw: '' }],
])('an archive with %s is refused', { timeout: 20_000 }, async (_, record) => {
  using scratch = scratchFolder()
  const path = join(scratch.path, 'a.jsonl')
  const head: ArchiveRecord = { kind: 'archive', data: { v: 1, namespace: 'x', shards: 1, at: '' } }
  const sink = await placeOf('to', path).sink()
  await writeArchive(Readable.from([head, record]), { name: path, sink, format: 'jsonl' })
  await using flow = await connect({ servers: server.url, namespace: freshNamespace() })
  expect(await rejection(flow.import(path, { skipOpen: true }))).toMatchObject({ code: 'bad_archive' })
})
