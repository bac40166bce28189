/** Findings about streams and buckets: are they there, have they room, are their copies well. */
import { bad, type Finding, type Look, ofLook, ok, warn } from './finding.ts'
import { roomFindings } from './server.ts'

export interface SeenStream {
  readonly bytes: number
  readonly maxBytes: number
  /** There is always room: the oldest go first. */
  readonly dropsOldest?: boolean
  readonly messages: number
  readonly maxMessages: number
  readonly subjects: number
  readonly consumers: number
  readonly replicas: number
  readonly storage: string
  /** Undefined where there is no cluster. */
  readonly cluster:
    | {
        readonly leader: string | undefined
        readonly copies: readonly { readonly name: string; readonly current: boolean; readonly offline: boolean }[]
      }
    | undefined
}

export interface SeenStreams {
  readonly streams: readonly { readonly name: string; readonly look: Look<SeenStream | undefined> }[]
  /** Whether the server is one of a cluster. */
  readonly inCluster: boolean
}

const SUBJECTS_MANY = 5_000_000
const CONSUMERS_MANY = 1000
const FULL = 0.95
const MIB = 1024 ** 2
const ROLLING_MIN = 16 * MIB

export function streamFindings({ streams, inCluster }: SeenStreams): Finding[] {
  return streams.flatMap(({ name, look }) =>
    ofLook({ check: 'stream', about: name }, look, (stream) =>
      stream ? [...findings(name, stream, inCluster)] : [missing(name)],
    ),
  )
}

function missing(name: string): Finding {
  if (name.endsWith('_LOGS'))
    return warn(
      'stream',
      'is not there: lines of ctx.log are not kept',
      'start an engine of this version, or run flowstone setup; has the server storage left for it?',
      name,
    )
  const advice = name.includes('_LOG_')
    ? 'restore it from a backup (docs/production.md): it holds all facts, and nothing can be made without it'
    : 'start an engine, or run flowstone setup: it makes what is missing; the state is folded again from the log'
  return bad('stream', 'is not there', advice, name)
}

function* findings(name: string, seen: SeenStream, inCluster: boolean): Generator<Finding> {
  const isRolling = seen.dropsOldest && seen.maxBytes > 0
  const room = isRolling ? `; room for ${Math.round(seen.maxBytes / MIB)} MiB, the oldest go first` : ''
  yield ok('stream', `${seen.messages} messages, ${seen.subjects} subjects, ${seen.consumers} consumers${room}`, name)
  if (isRolling && seen.maxBytes < ROLLING_MIN)
    yield warn(
      'stream.room',
      `has room for ${Math.round(seen.maxBytes / MIB)} MiB: lines of ctx.log soon go`,
      'give the server or the account more storage, then flowstone setup --logs-max-bytes N, which it reserves',
      name,
    )
  if (seen.storage !== 'file')
    yield bad(
      'stream.storage',
      `is kept in ${seen.storage}: a restart loses it`,
      'make it anew with file storage',
      name,
    )
  if (seen.maxBytes > 0 && !seen.dropsOldest) yield* roomFindings('stream.room', 'it', seen.bytes, seen.maxBytes, name)
  if (seen.maxMessages > 0 && seen.messages >= FULL * seen.maxMessages)
    yield bad(
      'stream.room',
      `${seen.messages} messages of ${seen.maxMessages}`,
      'is an engine active on shard 0? It takes triggers away as it copies them',
      name,
    )
  if (seen.subjects >= SUBJECTS_MANY)
    yield warn(
      'stream.subjects',
      `${seen.subjects} subjects take some ${Math.round(seen.subjects / 3_300_000)} GB of the server's memory`,
      'are ended runs sealed? See the findings about history',
      name,
    )
  if (seen.consumers >= CONSUMERS_MANY)
    yield warn(
      'stream.consumers',
      `${seen.consumers} consumers`,
      'each limited scatter has one: run fewer with maxConcurrent at a time, or give assets fewer queues',
      name,
    )
  if (seen.cluster) yield* copies(name, seen.cluster, seen.replicas)
  if (inCluster && seen.replicas < 3)
    yield warn(
      'stream.replicas',
      `${seen.replicas} of 3 copies: it is away while its server is`,
      'flowstone setup --replicas 3',
      name,
    )
}

function* copies(
  name: string,
  { leader, copies }: NonNullable<SeenStream['cluster']>,
  replicas: number,
): Generator<Finding> {
  if (leader === undefined || leader === '')
    yield bad('stream.leader', 'has no leader', 'start the servers that are away: a majority must be there', name)
  const away = copies.filter(({ offline }) => offline)
  const behind = copies.filter(({ offline, current }) => !offline && !current)
  const names = (some: typeof copies): string => some.map((copy) => copy.name).join(', ')
  if (away.length > 0)
    yield warn(
      'stream.copies',
      `${away.length} of ${replicas} copies away: ${names(away)}`,
      'start that server; one more lost may stop all',
      name,
    )
  if (behind.length > 0)
    yield warn(
      'stream.copies',
      `copies behind: ${names(behind)}`,
      'wait until they have caught up; look at their disks',
      name,
    )
}
