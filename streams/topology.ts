/**
 * Creates or checks streams and buckets; the only place that does. Idempotent: engines call it at
 * start, and so does whoever is asked to. What differs from the wish is updated where the server
 * allows it, or refused with an error. Nothing is ever deleted and made again.
 */

import { randomUUID } from 'node:crypto'
import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  StoreCompression,
  type StreamConfig,
} from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { configOf, ensureStream, topologyError, type Wish } from './ensure-stream.ts'
import { FlowStoneError, InvalidError, messageOf } from './errors.ts'
import { domainOf, jetstreamManager } from './jetstream.ts'
import { ensureLogs, LOGS_MIN_BYTES } from './logs-stream.ts'
import { agreeOnShards, keepMade, markMade, NOT_FOUND, type Topology } from './namespace.ts'
import { hasNoAnswer, patiently } from './patiently.ts'
import { shown } from './shown.ts'
import { type Names, namesOf } from './subjects.ts'
import { compareVersions, MIN_SERVER_VERSION } from './version.ts'

export type { Topology } from './namespace.ts'

export interface TopologyOptions {
  /**
   * Prefix of all streams, buckets and subjects. Default: the environment's FLOWSTONE_NAMESPACE,
   * else `flowstone`.
   */
  readonly namespace?: string
  /**
   * Shards: how many engines can share the work. Fixed when the namespace is made. Default 1, at
   * most 64.
   */
  readonly shards?: number
  /**
   * Copies of each stream, 1 to 5. Default 1; a cluster wants 3. Can be raised later, by an engine
   * that names more; `flow.setup` and `flowstone setup` lower it too.
   */
  readonly replicas?: number
  /**
   * How long the feed for outsiders is kept, in milliseconds. Default: as it was set before, 7 days
   * for a new namespace.
   */
  readonly feedMaxAgeMs?: number
  /**
   * How long lines of `ctx.log` are kept, in milliseconds. Default: as it was set before, 7 days
   * for a new namespace.
   */
  readonly logsMaxAgeMs?: number
  /**
   * How many bytes of them are kept: the oldest go first. Default: as it was set before; for a
   * new namespace 1 GiB, and a quarter at most of what the server has left.
   */
  readonly logsMaxBytes?: number
}

/**
 * Metadata of a log: its name for good. A backup has it too. The time when a stream was made is
 * another one after a restore.
 */
export const LOG_ID = 'flowstone_log'
const NANOS_PER_MS = 1_000_000
const FEED_MAX_AGE_MS = 7 * 24 * 3_600_000
const FEED_WINDOW_MS = 1000
/** So long the server may take to copy what the feed lacks, and how often it is asked. */
const SOURCES_WAIT_MS = 5000
const SOURCES_LOOK_MS = 50
const MAX_AGE_LIMIT_MS = 100 * 365 * 24 * 3_600_000
export const SHARDS_MAX = 64
const REPLICAS_MAX = 5
/** Streams that are made at the same time: a server that makes many at once answers late. */
const SIDE_BY_SIDE = 8
/** Triggers that may wait for an engine. */
const TRIGGERS_MAX = 1_000_000

/** Throws FlowStoneError `server_too_old` with the version needed, or `no_jetstream`. */
export async function checkServer(nc: NatsConnection): Promise<void> {
  const version = nc.info?.version ?? '0.0.0'
  if (compareVersions(version, MIN_SERVER_VERSION) < 0) {
    throw new FlowStoneError(
      'server_too_old',
      `nats-server at ${nc.getServer()} is ${version}; FlowStone needs ${MIN_SERVER_VERSION} or later (atomic batches, message schedules, message TTL). Upgrade it.`,
    )
  }
  try {
    await jetstreamManager(nc, { checkAPI: true })
  } catch (cause) {
    // One that has just started may not answer yet, or its cluster has no leader: that is another
    // trouble than none.
    if (/time ?out/i.test(messageOf(cause)))
      throw new FlowStoneError(
        'unreachable',
        `JetStream of nats-server at ${nc.getServer()} did not answer (${messageOf(cause)}); is it starting, or without a leader? Try again`,
        { cause },
      )
    const domain = domainOf(nc)
    if (domain !== undefined)
      throw new FlowStoneError(
        'no_jetstream',
        `no JetStream domain ${domain} can be reached over nats-server at ${nc.getServer()}; is it the name in that server's jetstream block, and is the leaf node joined?`,
        { cause },
      )
    throw new FlowStoneError(
      'no_jetstream',
      `nats-server at ${nc.getServer()} has no JetStream; start it with -js or a jetstream block in its configuration`,
      { cause },
    )
  }
}

/** Throws InvalidError for options that no namespace can have. */
export function checkTopologyOptions(options: TopologyOptions): void {
  namesOf(options.namespace ?? 'flowstone')
  for (const [field, value, max] of [
    ['shards', options.shards, SHARDS_MAX],
    ['replicas', options.replicas, REPLICAS_MAX],
  ] as const) {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= max)) {
      throw new InvalidError(`${field} must be a whole number from 1 to ${max}, got ${shown(value)}`)
    }
  }
  const { feedMaxAgeMs, logsMaxAgeMs, logsMaxBytes } = options
  for (const [field, value] of Object.entries({ feedMaxAgeMs, logsMaxAgeMs }))
    if (value !== undefined && !(typeof value === 'number' && value > 0 && value <= MAX_AGE_LIMIT_MS))
      throw new InvalidError(
        `${field} must be a number of milliseconds above 0 and at most 100 years, got ${shown(value)}`,
      )
  if (logsMaxBytes !== undefined && !(Number.isSafeInteger(logsMaxBytes) && logsMaxBytes >= LOGS_MIN_BYTES))
    throw new InvalidError(`logsMaxBytes must be a whole number from ${LOGS_MIN_BYTES}, got ${shown(logsMaxBytes)}`)
}

/**
 * Makes the namespace, or what is missing of it, and brings it to what the options name.
 * `fewerReplicas`: also down to fewer copies than there are. Without it, a process that names fewer
 * copies leaves them as they are, so an old setting does no harm.
 */
export async function ensureTopology(
  nc: NatsConnection,
  options: TopologyOptions = {},
  { fewerReplicas = false }: { readonly fewerReplicas?: boolean } = {},
): Promise<Topology> {
  await checkServer(nc)
  checkTopologyOptions(options)
  return await patiently(() => madeTopology(nc, options, fewerReplicas))
}

async function madeTopology(nc: NatsConnection, options: TopologyOptions, fewerReplicas: boolean): Promise<Topology> {
  const names = namesOf(options.namespace ?? 'flowstone')
  const jsm = await jetstreamManager(nc)
  const { feedMaxAgeMs } = options
  // What a process does not name stays as another one set it.
  const there = (await configOf(jsm, names.kvStream(names.controlBucket)))?.num_replicas ?? 1
  const wanted = options.replicas ?? there
  const replicas = fewerReplicas ? wanted : Math.max(wanted, there)
  const feedMaxAge =
    feedMaxAgeMs === undefined ? (await configOf(jsm, names.feed))?.max_age : Math.round(feedMaxAgeMs) * NANOS_PER_MS
  await ensureStream(jsm, markedBucketWish(names, names.controlBucket, replicas))
  const shards = await agreeOnShards(nc, jsm, names, options.shards)
  const perShard = Array.from({ length: shards }, (_, shard) => [
    () => ensureStream(jsm, logWish(names, shard, replicas), { metadata: { [LOG_ID]: randomUUID() } }),
    () => ensureStream(jsm, workWish(names, shard, replicas)),
    () => ensureStream(jsm, bucketWish(names, names.stateBucket(shard), replicas)),
    () => ensureStream(jsm, bucketWish(names, names.historyBucket(shard), replicas)),
  ])
  await sideBySide([
    ...perShard.flat(),
    () => ensureStream(jsm, markedBucketWish(names, names.limitsBucket, replicas)),
    () => ensureStream(jsm, proofWish(names, replicas)),
    () => ensureStream(jsm, blobsWish(names, replicas)),
    () => ensureFeed(jsm, names, replicas, feedMaxAge),
  ])
  // After the logs: the first one held the triggers once, and no subject may stand in two streams.
  await ensureStream(jsm, triggersWish(names, replicas))
  await ensureLogs(jsm, names, replicas, options)
  const topology = { names, shards, replicas }
  await markMade(nc, jsm, topology)
  return topology
}

/**
 * Each takes the server a sync or two. After an error no more are begun. Of several errors it
 * throws one that would come again, if there is one.
 */
async function sideBySide(pieces: readonly (() => Promise<void>)[]): Promise<void> {
  const left = pieces.values()
  const errors: unknown[] = []
  const some = async (): Promise<void> => {
    for (const piece of left) {
      if (errors.length > 0) return
      await piece().catch((error: unknown) => void errors.push(error))
    }
  }
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, some))
  if (errors.length > 0) throw errors.find((error) => !hasNoAnswer(error)) ?? errors[0]
}

function logWish(names: Names, shard: number, replicas: number): Wish {
  return {
    name: names.log(shard),
    subjects: [`${names.ns}.log.${shard}.>`],
    num_replicas: replicas,
    storage: StorageType.File,
    allow_direct: true,
    allow_atomic: true,
    retention: RetentionPolicy.Limits,
    // The server refuses `new` beside schedules. No limit is set, so nothing is ever discarded.
    discard: DiscardPolicy.Old,
    deny_delete: true,
    allow_msg_schedules: true,
    allow_msg_ttl: true,
  }
}

/** As the client library makes an object store, which knows no way to change one. */
function blobsWish(names: Names, replicas: number): Wish {
  const { blobBucket } = names
  return {
    name: `OBJ_${blobBucket}`,
    subjects: [`$O.${blobBucket}.C.>`, `$O.${blobBucket}.M.>`],
    num_replicas: replicas,
    storage: StorageType.File,
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  }
}

/**
 * Outsiders publish here, so no header of theirs may do anything: the server refuses roll-ups,
 * schedules, times to live, counters and batches on a stream without them. Schedules cannot be
 * turned off again, and bring roll-ups with them: this is why the log takes nothing from outsiders.
 * The engine takes away what it has copied.
 */
function triggersWish(names: Names, replicas: number): Wish {
  return {
    name: names.triggers,
    subjects: [`${names.ns}.trigger.>`],
    num_replicas: replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    // Full: the publisher is refused. The oldest must not be thrown away for it.
    discard: DiscardPolicy.New,
    max_msgs: TRIGGERS_MAX,
    allow_direct: true,
    allow_rollup_hdrs: false,
    allow_msg_schedules: false,
    allow_msg_ttl: false,
    allow_msg_counter: false,
    allow_atomic: false,
  }
}

/** The engine of each shard copies to it what outsiders see. */
function feedWish(names: Names, replicas: number, maxAgeNanos = FEED_MAX_AGE_MS * NANOS_PER_MS): Wish {
  return {
    name: names.feed,
    subjects: [names.feedFact('>'), `${names.ns}.feed_position.*`],
    num_replicas: replicas,
    storage: StorageType.File,
    allow_direct: true,
    allow_atomic: true,
    retention: RetentionPolicy.Limits,
    max_age: maxAgeNanos,
    allow_msg_ttl: true,
    // A fact comes twice only within a batch that is sent again, and that is refused as a whole.
    duplicate_window: Math.min(FEED_WINDOW_MS * NANOS_PER_MS, maxAgeNanos),
    // What is said of a run is much like what is said of others.
    compression: StoreCompression.S2,
  }
}

/** Blocks stay for ever. Details may be taken away one by one, once their facts are pruned. */
function proofWish(names: Names, replicas: number): Wish {
  return {
    name: names.proof,
    subjects: [`${names.ns}.proof.*.head`, `${names.ns}.proof.*.detail`],
    num_replicas: replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    // Full: the engine is refused, and tries on. Nothing is thrown away for it.
    discard: DiscardPolicy.New,
    allow_direct: true,
    allow_atomic: true,
    allow_rollup_hdrs: false,
    allow_msg_ttl: false,
  }
}

async function ensureFeed(jsm: JetStreamManager, names: Names, replicas: number, maxAgeNanos?: number): Promise<void> {
  await dropFeedSources(jsm, names)
  await ensureStream(jsm, feedWish(names, replicas, maxAgeNanos))
}

/**
 * The server made the feed from the logs once. It first copies what is there, so that the engine
 * can go on where it stopped.
 */
async function dropFeedSources(jsm: JetStreamManager, names: Names): Promise<void> {
  const deadlineMs = Date.now() + SOURCES_WAIT_MS
  for (;;) {
    const info = await jsm.streams.info(names.feed).catch((error: unknown) => {
      if (error instanceof JetStreamApiError && NOT_FOUND.has(error.code)) return undefined
      throw topologyError(`stream ${names.feed}`, error)
    })
    if (!info?.config.sources?.length) return
    const isCopied = (info.sources ?? []).every(({ lag }) => lag === 0)
    if (isCopied || Date.now() > deadlineMs) {
      await jsm.streams.update(names.feed, { ...info.config, sources: [] }).catch((error: unknown) => {
        throw topologyError(`stream ${names.feed}`, error)
      })
      return
    }
    await new Promise((resolve) => setTimeout(resolve, SOURCES_LOOK_MS))
  }
}

function bucketWish(names: Names, bucket: string, replicas: number, more: Partial<StreamConfig> = {}): Wish {
  return {
    name: names.kvStream(bucket),
    subjects: [`$KV.${bucket}.>`],
    num_replicas: replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.New,
    max_msgs_per_subject: 1,
    allow_rollup_hdrs: true,
    deny_delete: true,
    allow_direct: true,
    allow_atomic: true,
    allow_msg_ttl: true,
    ...more,
  }
}

/**
 * Keys go by themselves that nobody renews; watchers hear of it by the marker that is left for a
 * while.
 */
function markedBucketWish(names: Names, bucket: string, replicas: number): Wish {
  return bucketWish(names, bucket, replicas, { subject_delete_marker_ttl: 60_000 * NANOS_PER_MS })
}

function workWish(names: Names, shard: number, replicas: number): Wish {
  return {
    num_replicas: replicas,
    storage: StorageType.File,
    allow_direct: true,
    allow_atomic: true,
    name: names.work(shard),
    subjects: [`${names.ns}.work.${shard}.>`],
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.Old,
    allow_msg_schedules: true,
    allow_msg_ttl: true,
  }
}

/**
 * Makes what an engine needs of a shard and what is gone. The state is folded again and tasks are
 * enqueued again. Limits keep nothing that matters for long. Never the log: to make that anew would
 * be to lose it. Returns what it made.
 */
export async function ensureMissing(nc: NatsConnection, topology: Topology, shard: number): Promise<string[]> {
  const { names, replicas } = topology
  const jsm = await jetstreamManager(nc)
  const made: string[] = []
  const wishes = [
    markedBucketWish(names, names.controlBucket, replicas),
    markedBucketWish(names, names.limitsBucket, replicas),
    workWish(names, shard, replicas),
    bucketWish(names, names.stateBucket(shard), replicas),
    bucketWish(names, names.historyBucket(shard), replicas),
    triggersWish(names, replicas),
    feedWish(names, replicas),
    proofWish(names, replicas),
  ]
  for (const wish of wishes) {
    if (!(await configOf(jsm, wish.name))) {
      const isState = wish.name === names.kvStream(names.stateBucket(shard))
      await ensureStream(jsm, wish, isState ? await behindAllBefore(jsm, names) : {})
      made.push(wish.name)
    }
    if (wish.name === names.kvStream(names.controlBucket)) await keepMade(nc, jsm, topology)
  }
  if (await ensureLogs(jsm, names, replicas)) made.push(names.logs)
  return made
}

/**
 * Makes one state bucket that is missing: after somebody deleted it, to be filled again from the
 * log.
 */
export async function ensureStateBucket(nc: NatsConnection, topology: Topology, shard: number): Promise<void> {
  const { names, replicas } = topology
  const jsm = await jetstreamManager(nc)
  const wish = bucketWish(names, names.stateBucket(shard), replicas)
  await ensureStream(jsm, wish, await behindAllBefore(jsm, names))
}

/** No bucket has more messages in a millisecond. */
const SEQS_PER_MS = 1000

/**
 * Where the sequences of a state begin that is made again. An engine that was replaced may still
 * purge documents up to a sequence of the bucket that was there before.
 */
async function behindAllBefore(jsm: JetStreamManager, names: Names): Promise<{ readonly first_seq: number }> {
  const { ts } = await jsm.streams.info(names.kvStream(names.controlBucket))
  return { first_seq: (ts === undefined ? Date.now() : Date.parse(ts)) * SEQS_PER_MS }
}
