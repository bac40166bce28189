/**
 * What a version of FlowStone has left behind, kept as a file: one of each fact, and all streams of
 * a namespace with runs that have ended, a sealed one, and an open one. scripts/version-fixture.ts
 * makes it, and later versions must read it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { headers, type NatsConnection } from '@nats-io/nats-core'
import { ENGINE_KEY } from '../../projections/state.ts'
import { decodeStored } from '../../src/log/documents.ts'
import { headerMap, type StoredMessage, streamBounds } from '../../src/log/nats.ts'
import { decodeMsgpack, encodeJson, encodeMsgpack } from '../../streams/codec.ts'
import { isTimer } from '../../streams/facts.ts'
import { historyKey } from '../../streams/history.ts'
import { namesOf } from '../../streams/subjects.ts'
import { ensureTopology } from '../../streams/topology.ts'

const FOLDER = new URL('../fixtures/versions/', import.meta.url)
const END = '.log.zst'
/** A subject for a sequence that is empty: it is taken away at the end. */
const FILLER = 'filler'

export interface KeptMessage {
  /** Behind what the stream has in common: a path of the log, a key of a bucket. */
  readonly key: string
  readonly seq: number
  readonly timeMs: number
  readonly headers: Readonly<Record<string, string>>
  readonly payload: Uint8Array
}

/** One of each fact: as it stood on the wire, and as the version that wrote it has read it. */
export interface KeptExample {
  readonly name: string
  readonly path: string
  readonly contentType: string
  readonly payload: Uint8Array
  readonly data: unknown
}

export interface VersionFixture {
  readonly v: 1
  /** Of the package, and the day when it was made. */
  readonly version: string
  readonly made: string
  readonly examples: readonly KeptExample[]
  readonly streams: Readonly<Record<StreamName, readonly KeptMessage[]>>
  /** Ids of runs. */
  readonly runs: { readonly open: string; readonly sealed: string; readonly ended: string; readonly failed: string }
}

const STREAMS = ['log', 'state', 'history', 'blobs'] as const
type StreamName = (typeof STREAMS)[number]

/** Names of those that are kept, the oldest first. */
export function fixtureNames(): string[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith(END))
    .map((name) => name.slice(0, -END.length))
    .toSorted()
}

export function readFixture(name: string): VersionFixture {
  return decodeMsgpack(zstdDecompressSync(readFileSync(new URL(`${name}${END}`, FOLDER)))) as VersionFixture
}

/** Returns its size. */
export function writeFixture(name: string, fixture: VersionFixture): number {
  const bytes = zstdCompressSync(encodeMsgpack(fixture))
  writeFileSync(new URL(`${name}${END}`, FOLDER), bytes)
  return bytes.length
}

function placeOf(namespace: string, stream: StreamName): { readonly stream: string; readonly prefix: string } {
  const names = namesOf(namespace)
  switch (stream) {
    case 'log':
      return { stream: names.log(0), prefix: names.fact(0, '') }
    case 'state':
      return { stream: names.kvStream(names.stateBucket(0)), prefix: names.kvSubject(names.stateBucket(0), '') }
    case 'history':
      return { stream: names.kvStream(names.historyBucket(0)), prefix: names.kvSubject(names.historyBucket(0), '') }
    case 'blobs':
      return { stream: `OBJ_${names.blobBucket}`, prefix: `$O.${names.blobBucket}.` }
    default:
      return stream satisfies never
  }
}

/** All that the streams of a namespace hold, while nobody writes there. */
export async function dump(nc: NatsConnection, namespace: string): Promise<VersionFixture['streams']> {
  const jsm = await jetstreamManager(nc)
  const all: [StreamName, KeptMessage[]][] = []
  for (const name of STREAMS) {
    const { stream, prefix } = placeOf(namespace, name)
    const { first, last } = await streamBounds(nc, stream)
    const kept: KeptMessage[] = []
    for (let seq = first; seq <= last; seq++) {
      const found = await jsm.streams.getMessage(stream, { seq })
      const headers = headerMap(found?.header)
      if (!found || headers.has('KV-Operation') || isTimer(found.subject)) continue
      const { time, data } = found
      kept.push({
        key: found.subject.slice(prefix.length),
        seq,
        timeMs: time.getTime(),
        headers: Object.fromEntries([...headers].filter(([header]) => KEPT.test(header))),
        payload: data,
      })
    }
    all.push([name, kept])
  }
  return Object.fromEntries(all) as Record<StreamName, KeptMessage[]>
}

/** Headers that belong to the content. */
const KEPT = /^(Content-Type|Fs-.*)$/

/** Puts it all into an empty namespace, each message of the log at its own sequence. */
export async function restore(nc: NatsConnection, namespace: string, { streams }: VersionFixture): Promise<void> {
  const { names } = await ensureTopology(nc, { namespace })
  const put = async (
    name: StreamName,
    { key, payload, headers: kept }: Omit<KeptMessage, 'seq' | 'timeMs'>,
  ): Promise<void> => {
    const h = headers()
    for (const [header, value] of Object.entries(kept)) h.set(header, value)
    await jetstream(nc).publish(`${placeOf(namespace, name).prefix}${key}`, payload, { headers: h })
  }
  let next = 1
  for (const message of streams.log) {
    for (; next < message.seq; next++)
      await put('log', { key: `${FILLER}.${next}`, payload: new Uint8Array(), headers: {} })
    await put('log', message)
    next = message.seq + 1
  }
  await (await jetstreamManager(nc)).streams.purge(names.log(0), { filter: names.fact(0, `${FILLER}.>`) })
  for (const message of streams.blobs) await put('blobs', message)
  const { created } = await streamBounds(nc, names.log(0))
  for (const bucket of ['history', 'state'] as const)
    for (const message of streams[bucket]) await put(bucket, ofThisLog(message, created))
}

/** What names the log that it was made from names this one. Its messages are younger here. */
function ofThisLog(message: KeptMessage, log: string): KeptMessage {
  if (message.key !== ENGINE_KEY && message.key !== historyKey.manifest) return message
  const { mark: _, ...doc } = docOf(message) as { mark?: unknown }
  const { 'Fs-Encoding': __, ...headers } = message.headers
  return { ...message, headers, payload: encodeJson(message.key === ENGINE_KEY ? doc : { ...doc, log }) }
}

/** A document of a bucket. */
export function docOf(message: KeptMessage): unknown {
  const { bytes, isBytes } = decodeStored(message.key, asStored(message))
  return isBytes ? bytes : (JSON.parse(Buffer.from(bytes).toString()) as unknown)
}

function asStored({ key, seq, timeMs, payload, headers }: KeptMessage): StoredMessage {
  return { subject: key, seq, timeMs, payload, headers: new Map(Object.entries(headers)) }
}
