/** What the doctor reads of streams, engines, states and histories. */
import { DiscardPolicy, type StreamInfo } from '@nats-io/jetstream'
import type { Look } from '../../../projections/doctor/finding.ts'
import type { SeenHistory, SeenProgress, SeenProof, SeenShard } from '../../../projections/doctor/shards.ts'
import type { SeenStream, SeenStreams } from '../../../projections/doctor/streams.ts'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { decodeFeedPosition } from '../../../streams/feed.ts'
import { decodeBlock } from '../../../streams/proof.ts'
import { historyLost } from '../../engine/history/lost.ts'
import { readBacklog } from '../../engine/history/prune/orders.ts'
import { engineAtWork } from '../../engine/shard/claim.ts'
import { positionIn } from '../../engine/shard/position.ts'
import { refusalOf } from '../../engine/shard/refusal.ts'
import { readDoc } from '../../log/documents.ts'
import { isGone, leaderGet, type StoredMessage, streamBounds, streamInfo } from '../../log/nats.ts'
import { sleep } from '../../options/timer.ts'
import { type DoctorDeps, look } from './look.ts'

/** What is behind is looked at for a second: an engine stores the state four times in it. */
const LOOK_MS = 100
const LOOKS = 10

export async function seeStreams({ connection, names, shards }: DoctorDeps): Promise<SeenStreams> {
  const each = (of: (shard: number) => string): string[] => Array.from({ length: shards }, (_, shard) => of(shard))
  const streams = [
    ...each(names.log),
    ...each(names.work),
    ...each((shard) => names.kvStream(names.stateBucket(shard))),
    ...each((shard) => names.kvStream(names.historyBucket(shard))),
    names.triggers,
    names.feed,
    names.logs,
    names.kvStream(names.controlBucket),
    names.kvStream(names.limitsBucket),
    `OBJ_${names.blobBucket}`,
  ]
  const seen = streams.map(async (name) => ({
    name,
    look: await look(connection, async () => {
      try {
        return seenStream(await streamInfo(connection.nc, name))
      } catch (error) {
        if (isGone(error)) return undefined
        throw error
      }
    }),
  }))
  return { streams: await Promise.all(seen), inCluster: connection.nc.info?.cluster !== undefined }
}

function seenStream({ config, state, cluster }: StreamInfo): SeenStream {
  return {
    bytes: state.bytes,
    maxBytes: config.max_bytes,
    dropsOldest: config.discard === DiscardPolicy.Old,
    messages: state.messages,
    maxMessages: config.max_msgs,
    subjects: state.num_subjects ?? 0,
    consumers: state.consumer_count,
    replicas: config.num_replicas,
    storage: config.storage,
    // A single server leads all, and says no more.
    cluster: cluster?.replicas
      ? {
          leader: cluster.leader,
          copies: cluster.replicas.map(({ name, current, offline }) => ({ name, current, offline: offline ?? false })),
        }
      : undefined,
  }
}

export async function seeShards(deps: DoctorDeps): Promise<SeenShard[]> {
  return await Promise.all(Array.from({ length: deps.shards }, (_, shard) => seeShard(deps, shard)))
}

async function seeShard(deps: DoctorDeps, shard: number): Promise<SeenShard> {
  const { connection, names } = deps
  const state = await seeProgress(deps, {
    end: async () => (await streamBounds(connection.nc, names.log(shard))).last,
    at: () => positionOf(deps, names.stateBucket(shard)),
  })
  const [engine, problem, feed, proof, history] = await Promise.all([
    look(connection, () => engineAtWork(connection, names, shard)),
    'unseen' in state ? state : look(connection, async () => await refusalOf(connection, names, shard)),
    seeProgress(deps, {
      end: async () => (await lastEnd(deps, shard))?.seq ?? 0,
      at: () => feedPosition(deps, shard),
    }),
    look(connection, () => seeProof(deps, shard)),
    look(connection, () => seeHistory(deps, shard)),
  ])
  return { shard, engine, problem, state, feed, proof, history }
}

/** What is behind is looked at again, until it moves. */
async function seeProgress(
  { connection }: DoctorDeps,
  { end, at }: { readonly end: () => Promise<number>; readonly at: () => Promise<number> },
): Promise<Look<SeenProgress>> {
  return await look(connection, async () => {
    const last = await end()
    const before = await at()
    let after = before
    for (let looks = 0; before < last && after <= before && looks < LOOKS; looks++) {
      await sleep(LOOK_MS)
      after = await at()
    }
    return { before, after, end: last }
  })
}

async function positionOf({ connection, names }: DoctorDeps, bucket: string): Promise<number> {
  const last_by_subj = names.kvSubject(bucket, ENGINE_KEY)
  return positionIn(bucket, await leaderGet(connection.nc, names.kvStream(bucket), { last_by_subj }))?.seq ?? 0
}

async function feedPosition({ connection, names }: DoctorDeps, shard: number): Promise<number> {
  const found = await leaderGet(connection.nc, names.feed, { last_by_subj: names.feedPosition(shard) })
  return found ? decodeFeedPosition(found.payload).seq : 0
}

/** The last end of a run, which the feed shows. */
async function lastEnd({ connection, names }: DoctorDeps, shard: number): Promise<StoredMessage | undefined> {
  return await leaderGet(connection.nc, names.log(shard), { last_by_subj: names.fact(shard, 'run.*.finished') })
}

async function seeProof(deps: DoctorDeps, shard: number): Promise<SeenProof | undefined> {
  const { connection, names, clock } = deps
  const last_by_subj = names.proofHead(shard)
  const [found, end] = await Promise.all([
    leaderGet(connection.nc, names.proof, { last_by_subj }),
    lastEnd(deps, shard),
  ])
  if (!found) return undefined
  const { n, to } = decodeBlock(found.payload).head
  const { state } = await streamInfo(connection.nc, names.proof)
  return { blocks: n + 1, bytes: state.bytes, lateMs: end && end.seq > to ? clock.now() - end.timeMs : undefined }
}

async function seeHistory(deps: DoctorDeps, shard: number): Promise<SeenHistory> {
  const { connection, names, clock } = deps
  const bucket = names.historyBucket(shard)
  const seq = await positionOf(deps, bucket)
  const log = await streamBounds(connection.nc, names.log(shard))
  const next = await leaderGet(connection.nc, names.log(shard), { seq: seq + 1, next_by_subj: '>' })
  const waves = await streamInfo(connection.nc, names.kvStream(bucket), names.kvSubject(bucket, 'wave.*'))
  const keys = Object.keys(waves.state.subjects ?? {}).map((subject) =>
    subject.slice(names.kvSubject(bucket, '').length),
  )
  const [oldest] = keys.toSorted((a, b) => Number(a.split('.')[1]) - Number(b.split('.')[1]))
  const wave = oldest === undefined ? undefined : await readDoc(connection, names, bucket, oldest)
  const atMs: unknown = typeof wave === 'object' && wave !== null ? Reflect.get(wave, 'atMs') : undefined
  const lost = await historyLost({ connection, names, shard })
  const { sinceMs, says } = (await readBacklog(deps, shard)) ?? {}
  return {
    ...(lost ? { lost: lost.message } : {}),
    oldestMs: next && clock.now() - next.timeMs,
    facts: Math.max(0, log.last - seq),
    waves: keys.length,
    oldestWaveMs: typeof atMs === 'number' ? clock.now() - atMs : undefined,
    ...(sinceMs === undefined ? {} : { unarchived: { ageMs: clock.now() - sinceMs, says: says ?? '' } }),
  }
}
