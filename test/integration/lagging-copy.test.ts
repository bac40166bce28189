import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { Objm } from '@nats-io/obj'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Base } from '../../src/engine/history/base.ts'
import { takeStrays } from '../../src/engine/history/prune/strays.ts'
import { Connection } from '../../src/log/connection.ts'
import { freshGetMany } from '../../src/log/fresh-get.ts'
import { directGetMany, publish } from '../../src/log/nats.ts'
import { encodeJson } from '../../streams/codec.ts'
import type { Names } from '../../streams/subjects.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })
let connection: Connection
let names: Names
let askedLeader = 0
/** By stream: up to which sequence the copy has it that answers. */
const lags = new Map<string, number>()

beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
  const { nc } = connection
  names = (await ensureTopology(nc, { namespace: freshNamespace() })).names
  // The server answers as a copy does that lags: with what stands up to a sequence.
  const send = nc.publish.bind(nc)
  nc.publish = (subject, payload, options) => {
    if (subject.startsWith('$JS.API.STREAM.MSG.GET.')) askedLeader += 1
    const stream = /^\$JS\.API\.DIRECT\.GET\.(.+)$/.exec(subject)?.[1] ?? ''
    const lag = lags.get(stream)
    if (lag === undefined) return send(subject, payload, options)
    const query = JSON.parse(String(Buffer.from(payload as Uint8Array)))
    send(subject, encodeJson({ ...query, up_to_seq: lag }), options)
  }
  // Else a copy that lags has nothing in the place of what was written again.
  const jsm = await jetstreamManager(nc)
  for (const bucket of [names.historyBucket(0), names.controlBucket])
    await jsm.streams.update(names.kvStream(bucket), { max_msgs_per_subject: 5 })
})
afterAll(() => connection.close())

async function put(bucket: string, key: string, doc: unknown): Promise<number> {
  const entry = { subject: names.kvSubject(bucket, key), payload: encodeJson(doc), contentType: 'application/json' }
  const { seq } = await publish(connection.nc, entry, undefined, 5000)
  lags.set(names.kvStream(bucket), seq)
  return seq
}

it('what decides about a deletion is read as the leader has it, whatever a copy lacks', async () => {
  const stream = names.kvStream(names.controlBucket)
  const subjects = ['one', 'two', 'none'].map((key) => names.kvSubject(names.controlBucket, key))
  const old = await put(names.controlBucket, 'one', 'old')
  const [seq, later] = [await put(names.controlBucket, 'one', 'new'), await put(names.controlBucket, 'two', 'later')]
  const seqs = (found: Awaited<ReturnType<typeof freshGetMany>>) => subjects.map((one) => found.get(one)?.seq)
  expect(seqs(await freshGetMany(connection, stream, subjects))).toEqual([seq, later, undefined])
  expect(askedLeader, 'of a copy that has all it is enough').toBe(0)
  lags.set(stream, old)
  expect(seqs(await directGetMany(connection.nc, stream, subjects))).toEqual([old, undefined, undefined])
  expect(seqs(await freshGetMany(connection, stream, subjects))).toEqual([seq, later, undefined])
})

it('gc leaves an object and its chunks that a copy does not know to be named, or to be there', async () => {
  const { nc } = connection
  const objects = await new Objm(jetstream(nc)).open(names.blobBucket)
  await objects.putBlob({ name: 'named' }, new Uint8Array(1000))
  await objects.putBlob({ name: 'stray' }, new Uint8Array(10))
  const history = names.historyBucket(0)
  const mark = 'unsealed.000000000000001.0a'
  const before = await put(history, mark, { since: 1, blobs: [] })
  await put(history, mark, { since: 1, blobs: ['named'] })
  lags.set(names.kvStream(history), before)
  const look = async () => await takeStrays({ connection, names, shards: 1 }, Date.now() + 60_000, true)
  expect(await look()).toEqual({ objects: 1, bytes: 10 })
  lags.set(`OBJ_${names.blobBucket}`, 1)
  expect(await look()).toEqual({ objects: 1, bytes: 10 })
})

it('the base reads its newest documents, by which it is decided what is pruned', async () => {
  const history = names.historyBucket(0)
  const before = await put(history, 'asset.shop.cart.none', { seq: 1 })
  await put(history, 'asset.shop.cart.none', { seq: 2 })
  lags.delete(names.kvStream(history))
  const base = await Base.takeOver({ connection, names, shard: 0, engine: 'e' })
  lags.set(names.kvStream(history), before)
  expect([...(await base.docs(['asset.shop.cart.none', 'asset.shop.cart.other']))]).toEqual([
    ['asset.shop.cart.none', { seq: 2 }],
  ])
})
