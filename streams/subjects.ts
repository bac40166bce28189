/** Subjects, streams, buckets and consumers: built and parsed here and nowhere else. */
import { checkName, encodeToken, hash64 } from './ids.ts'

export interface Names {
  readonly ns: string
  readonly log: (shard: number) => string
  readonly work: (shard: number) => string
  readonly feed: string
  /** What outsiders see of a fact, by its path on the feed (`feedPath`). */
  readonly feedFact: (path: string) => string
  /** How far the feed shows the log of a shard. */
  readonly feedPosition: (shard: number) => string
  /** Blocks that prove that the logs were not changed: heads, and details of each shard. */
  readonly proof: string
  readonly proofHead: (shard: number) => string
  readonly proofDetail: (shard: number) => string
  /** Lines of `ctx.log`. */
  readonly logs: string
  /** The subject of lines of one run and asset; and what such a subject says. */
  readonly logLines: (place: LogPlace, of: 'low' | 'high') => string
  readonly parseLogs: (subject: string) => Omit<LogPlace, 'pipeline'> | undefined
  /** Filter for the lines of a run: of all its assets, or of one; `high`: warnings and errors. */
  readonly logsOf: (run: string, asset?: string, of?: 'low' | 'high') => string
  /** What outsiders ask for, until the engine has copied it to the log. */
  readonly triggers: string
  readonly stateBucket: (shard: number) => string
  /** Runs that have ended, and the base: the state at an earlier position of the log. */
  readonly historyBucket: (shard: number) => string
  readonly controlBucket: string
  readonly blobBucket: string
  /** Cells of rate limits (`rate.<bucket>`) and of slots (`slots.<bucket>`). */
  readonly limitsBucket: string
  /** The stream behind a KV bucket, and the subject of one of its keys. */
  readonly kvStream: (bucket: string) => string
  readonly kvSubject: (bucket: string, key: string) => string
  readonly fact: (shard: number, path: string) => string
  /** The path of a fact behind `<ns>.log.<shard>.`; undefined for another subject. */
  readonly factPath: (subject: string) => string | undefined
  readonly trigger: (pipeline: string, asset: string) => string
  /**
   * What stands behind `<ns>.trigger.`: a pipeline and an asset, if it is right; undefined for
   * another subject.
   */
  readonly triggerTarget: (subject: string) => string | undefined
  readonly task: (shard: number, pipeline: string, queue: string, priority: number) => string
  /** Filter for the tasks of all shared queues; and whose a task, or such a filter, is. */
  readonly sharedTasks: (shard: number) => string
  readonly parseTask: (subject: string) => { pipeline: string; queue: string } | undefined
  /** The subject of a barrier's own leases, and the consumer that enforces its maxConcurrent. */
  readonly limitedQueueTask: (shard: number, limitedQueue: LimitedQueueName) => string
  readonly limitedQueueConsumer: (limitedQueue: Pick<LimitedQueueName, 'run' | 'asset'>) => string
  /**
   * Filter for all limited queue tasks of a WORK stream; and the run and asset of such a subject,
   * or of a limited queue's consumer.
   */
  readonly allLimitedQueues: (shard: number) => string
  readonly parseLimitedQueue: (subjectOrConsumer: string) => { run: string; asset: string } | undefined
  /**
   * The subject of an unmatched task, which waits for workers with code of its shape; the consumer
   * of all of one asset and shape, and its filter.
   */
  readonly unmatchedTask: (shard: number, unmatched: UnmatchedName, run: string) => string
  readonly unmatchedFilter: (shard: number, unmatched: UnmatchedName) => string
  readonly unmatchedConsumer: (unmatched: UnmatchedName) => string
  readonly isUnmatchedConsumer: (consumer: string) => boolean
  /**
   * Filter for all unmatched tasks of a WORK stream; of one run. And what such a subject says.
   */
  readonly allUnmatched: (shard: number, run?: string) => string
  readonly parseUnmatched: (subject: string) => (UnmatchedName & { readonly run: string }) | undefined
  /**
   * Where the schedule of a delayed task stands: by run and asset, so that all of an asset's can be
   * taken away at once.
   */
  readonly taskSchedule: (shard: number, taskId: string) => string
  /**
   * Filter for the schedules of an asset of a run, or for those of its instances only; and for all
   * of them.
   */
  readonly schedulesOf: (shard: number, of: ScheduleOwner, only?: 'instances') => string
  readonly allSchedules: (shard: number) => string
  /** Whose schedule a subject is; undefined for what is none. */
  readonly parseSchedule: (subject: string) => ScheduleOwner | undefined
  readonly taskConsumer: (pipeline: string, queue: string, priority: number) => string
  /** Core messages that say "look again": hints, never truth. */
  readonly notification: (kind: NotificationKind, id: string) => string
  /** A core request to all engines: where are you active? */
  readonly engines: string
  /** A core request to all workers of a pipeline: what are you doing? */
  readonly workerStatus: (pipeline: string) => string
  /** A core request to all workers of a pipeline: who of you has these tasks? */
  readonly holders: (pipeline: string) => string
  /** A core request to all workers of a pipeline: take a message that was refused. */
  readonly eventRetry: (pipeline: string) => string
  /** The stream of a subject that FlowStone keeps for a subscription. */
  readonly events: (pipeline: string, subscription: string) => string
  /** The consumer of a subscription on its stream. `turn`: there may be two for a moment. */
  readonly eventConsumer: (pipeline: string, subscription: string, turn: 'a' | 'b') => string
  /** The key of the control bucket that says which worker reads a subscription. */
  readonly eventReader: (pipeline: string, subscription: string) => string
}

export interface LogPlace {
  readonly pipeline: string
  readonly run: string
  readonly asset: string
}

export interface ScheduleOwner {
  readonly run: string
  readonly asset: string
}

export type NotificationKind = 'run' | 'abort' | 'pause' | 'limited_queue' | 'unmatched' | 'limits'

export interface LimitedQueueName {
  readonly pipeline: string
  readonly queue: string
  readonly priority: number
  readonly run: string
  readonly asset: string
}

/** Tasks of one asset and shape on one queue. */
export interface UnmatchedName {
  readonly pipeline: string
  readonly queue: string
  readonly priority: number
  readonly asset: string
  readonly shape: string
}

const LIMITED_CONSUMER = 'limited__'
/**
 * `<run>.<asset>.<rest>`; of an attempt of the asset the rest is its number, and all else is about
 * instances. `~back`: returned by a worker.
 */
const TASK_ID = /^([^.]+)\.([^.]+)\.(.+)$/
const ATTEMPT = /^\d+(~back)?$/
const INSTANCES = 'instances'
const UNMATCHED_CONSUMER = 'unmatched__'

export function namesOf(namespace: string): Names {
  const ns = checkName('namespace', namespace)
  const logPrefix = `${ns}.log.`
  const triggerPrefix = `${ns}.trigger.`
  return {
    ns,
    log: (shard) => `${ns}_LOG_${shard}`,
    work: (shard) => `${ns}_WORK_${shard}`,
    feed: `${ns}_FEED`,
    feedFact: (path) => `${ns}.feed.${path}`,
    feedPosition: (shard) => `${ns}.feed_position.${shard}`,
    proof: `${ns}_PROOF`,
    proofHead: (shard) => `${ns}.proof.${shard}.head`,
    proofDetail: (shard) => `${ns}.proof.${shard}.detail`,
    logs: `${ns}_LOGS`,
    logLines: ({ pipeline, run, asset }, of) => `${ns}.logs.${pipeline}.${run}.${asset}.${of}`,
    parseLogs: (subject) => {
      const [, run, asset] = subject.startsWith(`${ns}.logs.`) ? subject.slice(ns.length + 6).split('.') : []
      return run === undefined || asset === undefined ? undefined : { run, asset }
    },
    logsOf: (run, asset = '*', of) => `${ns}.logs.*.${run}.${asset}.${of ?? '*'}`,
    triggers: `${ns}_TRIGGERS`,
    stateBucket: (shard) => `${ns}_state_${shard}`,
    historyBucket: (shard) => `${ns}_history_${shard}`,
    controlBucket: `${ns}_control`,
    blobBucket: `${ns}_blobs`,
    limitsBucket: `${ns}_limits`,
    kvStream: (bucket) => `KV_${bucket}`,
    kvSubject: (bucket, key) => `$KV.${bucket}.${key}`,
    fact: (shard, path) => `${logPrefix}${shard}.${path}`,
    factPath: (subject) => {
      if (!subject.startsWith(logPrefix)) return undefined
      const dot = subject.indexOf('.', logPrefix.length)
      return dot < 0 ? undefined : subject.slice(dot + 1)
    },
    trigger: (pipeline, asset) => `${triggerPrefix}${pipeline}.${asset}`,
    triggerTarget: (subject) => (subject.startsWith(triggerPrefix) ? subject.slice(triggerPrefix.length) : undefined),
    task: (shard, pipeline, queue, priority) => `${ns}.work.${shard}.${pipeline}.${queue}.${priority}.shared`,
    sharedTasks: (shard) => `${ns}.work.${shard}.*.*.*.shared`,
    parseTask: (subject) => {
      const [, pipeline, queue, , kind] = subject.slice(`${ns}.work.`.length).split('.')
      if (!pipeline || !queue || (kind !== 'shared' && kind !== 'own')) return undefined
      return { pipeline, queue }
    },
    limitedQueueTask: (shard, limitedQueue) =>
      `${ns}.work.${shard}.${limitedQueue.pipeline}.${limitedQueue.queue}.${limitedQueue.priority}.own.${limitedQueue.run}.${limitedQueue.asset}`,
    limitedQueueConsumer: ({ run, asset }) => `${LIMITED_CONSUMER}${run}__${asset}`,
    allLimitedQueues: (shard) => `${ns}.work.${shard}.*.*.*.own.>`,
    parseLimitedQueue: (text) => {
      if (text.startsWith(LIMITED_CONSUMER)) {
        const [run, ...asset] = text.slice(LIMITED_CONSUMER.length).split('__')
        return run === undefined || asset.length === 0 ? undefined : { run, asset: asset.join('__') }
      }
      const [run, asset] = text.split('.own.')[1]?.split('.') ?? []
      return run === undefined || asset === undefined ? undefined : { run, asset }
    },
    taskSchedule: (shard, taskId) => {
      const [, run = '_', asset = '_', rest = taskId] = TASK_ID.exec(taskId) ?? []
      return `${ns}.work.${shard}.later.${run}.${asset}.${ATTEMPT.test(rest) ? 'attempt' : INSTANCES}.${encodeToken(rest)}`
    },
    schedulesOf: (shard, { run, asset }, only) => `${ns}.work.${shard}.later.${run}.${asset}.${only ?? '*'}.*`,
    allSchedules: (shard) => `${ns}.work.${shard}.later.>`,
    parseSchedule: (subject) => {
      const [run, asset] = subject.split('.later.')[1]?.split('.') ?? []
      return run === undefined || asset === undefined ? undefined : { run, asset }
    },
    unmatchedTask: (shard, unmatched, run) => `${unmatchedPrefix(ns, shard, unmatched)}.${run}`,
    unmatchedFilter: (shard, unmatched) => `${unmatchedPrefix(ns, shard, unmatched)}.*`,
    unmatchedConsumer: (unmatched) => `${UNMATCHED_CONSUMER}${hash64(unmatchedPrefix(ns, 0, unmatched))}`,
    isUnmatchedConsumer: (consumer) => consumer.startsWith(UNMATCHED_CONSUMER),
    allUnmatched: (shard, run = '*') => `${ns}.work.${shard}.*.*.*.unmatched.*.*.${run}`,
    parseUnmatched: (subject) => {
      const [pipeline, queue, priority, kind, asset, shape, run] = subject
        .slice(`${ns}.work.`.length)
        .split('.')
        .slice(1)
      if (!pipeline || !queue || !priority || kind !== 'unmatched' || !asset || !shape || !run) return undefined
      return { pipeline, queue, priority: Number(priority), asset, shape, run }
    },
    taskConsumer: (pipeline, queue, priority) => `${pipeline}=${queue}=${priority}`,
    notification: (kind, id) => `${ns}.notify.${kind}.${id}`,
    engines: `${ns}.engines`,
    workerStatus: (pipeline) => `${ns}.workers.${pipeline}`,
    holders: (pipeline) => `${ns}.workers.${pipeline}.held`,
    eventRetry: (pipeline) => `${ns}.workers.${pipeline}.event`,
    events: (pipeline, subscription) => shortName(`${ns}_EVENTS_${pipeline}_${subscription}`),
    eventConsumer: (pipeline, subscription, turn) => shortName(`${ns}__${pipeline}__${subscription}__${turn}`),
    eventReader: (pipeline, subscription) => `reader.${pipeline}.${subscription}`,
  }
}

/** Servers take names of up to 255 characters. */
const NAME_MAX = 200

function shortName(name: string): string {
  return name.length <= NAME_MAX ? name : `${name.slice(0, NAME_MAX - 17)}_${hash64(name)}`
}

function unmatchedPrefix(
  ns: string,
  shard: number,
  { pipeline, queue, priority, asset, shape }: UnmatchedName,
): string {
  return `${ns}.work.${shard}.${pipeline}.${queue}.${priority}.unmatched.${asset}.${shape}`
}
