/**
 * What a namespace is, in one key of its control bucket: how many shards it has, and whether all of
 * it was made. Whoever only reads finds it here, with one request, and makes nothing.
 */
import { JetStreamApiError, type JetStreamManager } from '@nats-io/jetstream'
import { headers, type NatsConnection } from '@nats-io/nats-core'
import { decode, encodeJson } from './codec.ts'
import { ConflictError, FlowStoneError, InvalidError } from './errors.ts'
import { isFullError } from './full.ts'
import { storeSubject } from './jetstream.ts'
import type { Names } from './subjects.ts'

export interface Topology {
  readonly names: Names
  readonly shards: number
  readonly replicas: number
}

const TOPOLOGY_KEY = 'topology'
/** Format of the log and of all else in a namespace. Format 1 was never released. */
const FORMAT = 2
const MADE_AFTER_MS = 5000
const LOOK_MS = 100
const LISTED_MAX = 10
/**
 * How often the entry of a namespace is tried, and the pause between: what the server refuses for a
 * moment only.
 */
const WRITE_ATTEMPTS = 5
const WRITE_PAUSE_MS = 250
const WRONG_LAST_SEQUENCE = 10071
/** Server errors: no such stream, no such consumer, no such message. */
export const NOT_FOUND: ReadonlySet<number> = new Set([10059, 10014, 10037])

interface TopologyKey {
  readonly seq: number
  readonly shards: number
  readonly replicas: number
  /** All streams and buckets have been there once. */
  readonly made: boolean
  /** An import fills it, or was broken off. Nothing else may write there. */
  readonly importing?: Importing
}

/** Who imports into a namespace, and since when. */
export interface Importing {
  readonly id: string
  readonly atMs: number
}

async function readKey(jsm: JetStreamManager, names: Names): Promise<TopologyKey | undefined> {
  const stream = names.kvStream(names.controlBucket)
  const subject = names.kvSubject(names.controlBucket, TOPOLOGY_KEY)
  const message = await jsm.streams.getMessage(stream, { last_by_subj: subject }).catch((error: unknown) => {
    if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return null
    throw error
  })
  if (!message || message.data.length === 0) return undefined
  const stored = decode(message.data, undefined)
  const field = (name: string): unknown =>
    typeof stored === 'object' && stored !== null ? Reflect.get(stored, name) : undefined
  const shards = field('shards')
  if (field('v') === 1)
    throw new FlowStoneError(
      'old_format',
      `namespace ${names.ns} was written by FlowStone before 0.1.0, in a format that this version does not read; use another namespace, or delete this one`,
    )
  if (field('v') !== FORMAT || typeof shards !== 'number' || !Number.isInteger(shards))
    throw new FlowStoneError(
      'bad_topology',
      `key ${TOPOLOGY_KEY} of bucket ${names.controlBucket} is not what FlowStone wrote`,
    )
  const importing = importingIn(field('importing'))
  const replicas = Number(field('replicas') ?? 1)
  return { seq: message.seq, shards, replicas, made: field('made') === true, ...(importing ? { importing } : {}) }
}

function importingIn(value: unknown): Importing | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  return { id: String(Reflect.get(value, 'id')), atMs: Number(Reflect.get(value, 'atMs')) }
}

/** Throws FlowStoneError `importing`. */
function mustNotBeImporting(names: Names, { importing }: TopologyKey): void {
  if (!importing) return
  throw new FlowStoneError(
    'importing',
    `an import into namespace ${names.ns} began at ${new Date(importing.atMs).toISOString()} and has not ended. If it was broken off, run \`flowstone import\` again: it begins anew`,
  )
}

/** The namespace into which somebody imports, or began to. */
export async function importingTo(
  jsm: JetStreamManager,
  names: Names,
): Promise<{ readonly topology: Topology; readonly importing: Importing } | undefined> {
  const found = await readKey(jsm, names)
  if (!found?.importing) return undefined
  const { shards, replicas, importing } = found
  return { topology: { names, shards, replicas }, importing }
}

/**
 * From here on nobody but this import writes to the namespace. Throws ConflictError when another
 * one began in the same moment.
 */
export async function beginImport(
  nc: NatsConnection,
  jsm: JetStreamManager,
  { names, shards, replicas }: Topology,
  importing: Importing,
): Promise<void> {
  const found = await readKey(jsm, names)
  await writeKey(nc, names, found?.seq ?? 0, { shards, replicas, made: false, importing })
  if ((await readKey(jsm, names))?.importing?.id !== importing.id)
    throw new ConflictError(`another import into namespace ${names.ns} is running`)
}

/** All of it is there: the namespace is one as any other. Or, `made: false`: nothing was done. */
export async function endImport(
  nc: NatsConnection,
  jsm: JetStreamManager,
  { names, shards, replicas }: Topology,
  { id }: Importing,
): Promise<void> {
  const found = await readKey(jsm, names)
  if (found?.importing?.id !== id)
    throw new ConflictError(`another import into namespace ${names.ns} has begun meanwhile`)
  await writeKey(nc, names, found.seq, { shards, replicas, made: true })
}

async function writeKey(
  nc: NatsConnection,
  names: Names,
  expected: number,
  doc: Omit<TopologyKey, 'seq'>,
): Promise<void> {
  const h = headers()
  h.set('Nats-Expected-Last-Subject-Sequence', String(expected))
  const subject = storeSubject(nc, names.kvSubject(names.controlBucket, TOPOLOGY_KEY))
  for (let attempt = 1; ; attempt++) {
    const reply = await nc.request(subject, encodeJson({ v: FORMAT, ...doc }), { headers: h, timeout: 5000 })
    const refusal = refusalIn(decode(reply.data, undefined))
    // Whoever loses this race reads what the winner wrote in the next round.
    if (refusal === undefined || refusal.errCode === WRONG_LAST_SEQUENCE) return
    if (attempt >= WRITE_ATTEMPTS) throw refused(names.kvStream(names.controlBucket), refusal)
    await new Promise((resolve) => setTimeout(resolve, WRITE_PAUSE_MS))
  }
}

interface Refusal {
  readonly errCode: number
  readonly description: string
}

function refusalIn(ack: unknown): Refusal | undefined {
  const error: unknown = typeof ack === 'object' && ack !== null ? Reflect.get(ack, 'error') : undefined
  if (typeof error !== 'object' || error === null) return undefined
  return { errCode: Number(Reflect.get(error, 'err_code')), description: String(Reflect.get(error, 'description')) }
}

function refused(stream: string, { errCode, description }: Refusal): FlowStoneError {
  if (isFullError(errCode, description))
    return new FlowStoneError(
      'storage_full',
      `JetStream storage is full: ${stream} takes no message (${description}), so the namespace cannot be made. Delete streams or raise the limit, then try again`,
    )
  return new FlowStoneError('topology', `${stream} refused the namespace's entry: ${description} (${errCode})`)
}

/**
 * P is written once, by whoever makes the namespace; ids carry their partition, so it cannot change
 * under them.
 */
export async function agreeOnShards(
  nc: NatsConnection,
  jsm: JetStreamManager,
  names: Names,
  wished: number | undefined,
): Promise<number> {
  for (;;) {
    const found = await readKey(jsm, names)
    if (found) {
      mustNotBeImporting(names, found)
      mustAgree(names, found.shards, wished)
      return found.shards
    }
    // The control bucket is lost, and the logs are not: they say how many there are.
    const logs = await countLogs(jsm, names)
    if (logs > 0) mustAgree(names, logs, wished)
    await writeKey(nc, names, 0, { shards: logs || (wished ?? 1), replicas: 1, made: false })
  }
}

/** How many logs the namespace has; 0 for one that is not made yet. */
async function countLogs(jsm: JetStreamManager, names: Names): Promise<number> {
  const there = async (shard: number): Promise<boolean> => {
    try {
      await jsm.streams.info(names.log(shard))
      return true
    } catch (error) {
      if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return false
      throw error
    }
  }
  let count = 0
  while (await there(count)) count += 1
  return count
}

/** All of it is there. */
export async function markMade(nc: NatsConnection, jsm: JetStreamManager, topology: Topology): Promise<void> {
  const { names, shards, replicas } = topology
  const found = await readKey(jsm, names)
  if (found && !found.importing && !(found.made && found.replicas === replicas))
    await writeKey(nc, names, found.seq, { shards, replicas, made: true })
}

/**
 * Writes the entry again where it is gone, or says that the namespace is made in part. Who made the
 * control bucket again may have died, or lost its server, before the entry was whole; then no
 * process could connect any more.
 */
export async function keepMade(nc: NatsConnection, jsm: JetStreamManager, topology: Topology): Promise<void> {
  const { names, shards } = topology
  if ((await readKey(jsm, names))?.made) return
  await agreeOnShards(nc, jsm, names, shards)
  await markMade(nc, jsm, topology)
}

function mustAgree(names: Names, shards: number, wished: number | undefined): void {
  if (wished === undefined || wished === shards) return
  throw new InvalidError(
    `shards: namespace ${names.ns} was made with ${shards}, not ${wished}; it cannot be changed. Leave the option out, or use another namespace.`,
  )
}

/**
 * The namespace as it stands, or undefined where there is none. Waits a while for one that is just
 * being made.
 */
export async function findTopology(
  jsm: JetStreamManager,
  names: Names,
  wished: number | undefined,
): Promise<Topology | undefined> {
  const deadline = performance.now() + MADE_AFTER_MS
  for (;;) {
    const found = await readKey(jsm, names)
    if (!found) return undefined
    const { shards, replicas } = found
    mustNotBeImporting(names, found)
    mustAgree(names, shards, wished)
    if (found.made) return { names, shards, replicas }
    if (performance.now() > deadline)
      throw new FlowStoneError(
        'no_namespace',
        `namespace ${names.ns} is made in part: whoever made it has not finished. Start an engine, or run \`flowstone setup --namespace ${names.ns}\``,
      )
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

/** What to tell somebody who looks for a namespace that is not there. */
export async function noNamespace(jsm: JetStreamManager, names: Names): Promise<FlowStoneError> {
  const there: string[] = []
  try {
    for await (const stream of jsm.streams.names()) {
      const name = /^KV_(.+)_control$/.exec(stream)?.[1]
      if (name !== undefined) there.push(name)
    }
  } catch {
    // A caller who may not list streams gets a shorter message.
  }
  const some = there.toSorted().slice(0, LISTED_MAX)
  const more = there.length > some.length ? `, and ${there.length - some.length} more` : ''
  const list = there.length === 0 ? '' : `; there are: ${some.join(', ')}${more}`
  return new FlowStoneError(
    'no_namespace',
    `no namespace ${names.ns} here${list}. An engine or a worker makes one when it starts, or run \`flowstone setup --namespace ${names.ns}\``,
  )
}
