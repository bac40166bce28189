/**
 * All metrics: names, units and attributes, as OpenTelemetry writes them. Prometheus has the same
 * under the names that its collector would give them. Names and units stay as they are.
 *
 * Attributes are what code names (pipelines, assets, queues) or of a few words. So the number of
 * series does not grow with runs, instances or keys.
 */

export interface Metric {
  /** A gauge is as it was set last; a sum goes up and down. */
  readonly kind: 'counter' | 'sum' | 'gauge' | 'histogram'
  /** `s`, `By`, or what is counted: `{run}`. */
  readonly unit: string
  readonly help: string
  readonly attributes: readonly Attribute[]
  /** Upper bounds of a histogram. */
  readonly buckets?: readonly number[]
}

export type Attribute =
  | 'pipeline'
  | 'asset'
  | 'phase'
  | 'outcome'
  | 'status'
  | 'kind'
  | 'queue'
  | 'shard'
  | 'stream'
  | 'allowed'
  | 'granted'
  | 'reason'

const QUICK = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const CODE = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]
const LONG = [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43_200, 86_400]

const counter = (unit: string, help: string, attributes: readonly Attribute[] = []): Metric => ({
  kind: 'counter',
  unit,
  help,
  attributes,
})
const sum = (unit: string, help: string, attributes: readonly Attribute[] = []): Metric => ({
  kind: 'sum',
  unit,
  help,
  attributes,
})
const gauge = (unit: string, help: string, attributes: readonly Attribute[] = []): Metric => ({
  kind: 'gauge',
  unit,
  help,
  attributes,
})
const seconds = (buckets: readonly number[], help: string, attributes: readonly Attribute[] = []): Metric => ({
  kind: 'histogram',
  unit: 's',
  help,
  attributes,
  buckets,
})

/** From the events of the process. */
export const PROCESS_METRICS = {
  'flowstone.runs.requested': counter('{run}', 'Runs that were asked for. From the engine.', ['pipeline']),
  'flowstone.runs.finished': counter('{run}', 'Runs that ended. From the engine.', ['pipeline', 'status']),
  'flowstone.run.duration': seconds(LONG, 'From the request of a run to its end.', ['pipeline', 'status']),
  'flowstone.attempt.duration': seconds(CODE, 'How long the code of an asset ran; not of instances.', [
    'pipeline',
    'asset',
    'phase',
    'outcome',
  ]),
  'flowstone.instances.ended': counter('{instance}', 'Attempts of instances, by how they ended.', [
    'pipeline',
    'asset',
    'outcome',
  ]),
  'flowstone.lease.duration': seconds(CODE, 'How long a worker ran a lease of instances.', ['pipeline', 'asset']),
  'flowstone.scatters.ended': counter('{scatter}', 'Scatters that ended. From the engine.', ['status']),
  'flowstone.scatter.duration': seconds(LONG, 'From the first key of a scatter to its end.', ['status']),
  'flowstone.tasks.received': counter('{task}', 'Tasks that workers took.', ['kind']),
  'flowstone.tasks.returned': counter('{task}', 'Tasks that workers gave back.'),
  'flowstone.tasks.lost': counter('{task}', 'Tasks whose worker died or was cut off.', ['kind']),
  'flowstone.gates.opened': counter('{gate}', 'Gates that were opened.', ['kind']),
  'flowstone.gates.refused': counter('{attempt}', 'Attempts to answer a gate that were refused.', ['reason']),
  'flowstone.gate.wait.duration': seconds(LONG, 'How long a gate waited. From the engine.', ['pipeline', 'outcome']),
  'flowstone.limiter.checks': counter('{check}', 'Answers of limiter.check.', ['allowed']),
  'flowstone.limiter.wait.duration': seconds(LONG, 'Waits for a rate limit.', ['granted']),
  'flowstone.limiter.slot.wait.duration': seconds(LONG, 'Waits for a slot that was taken in the end.'),
  'flowstone.limiter.slots.held': sum('{slot}', 'Slots that this process holds.'),
  'flowstone.limiter.slots.lost': counter('{slot}', 'Slots whose lease ran out before it was renewed.'),
  'flowstone.items.retries': counter('{retry}', 'Failures of sources of item readers.'),
  'flowstone.worker.blocked.duration': seconds(LONG, 'How long code held up the event loop of a worker.'),
  'flowstone.engine.active': gauge('{engine}', '1 while an engine of this process is active on the shard.', ['shard']),
  'flowstone.engine.checkpoint.duration': seconds(QUICK, 'How long a checkpoint took.', ['shard']),
  'flowstone.engine.checkpoint.documents': counter('{document}', 'Documents that checkpoints stored.', ['shard']),
  'flowstone.engine.bad_facts': counter('{message}', 'Messages on the log that are no facts.', ['shard']),
  'flowstone.engine.repairs': counter('{repair}', 'Times that the reconciler repaired something.', ['shard']),
  'flowstone.connection.losses': counter('{connection}', 'Times that the connection to nats-server broke.'),
  'flowstone.connection.away': gauge('{connection}', '1 while the connection to nats-server is broken.'),
  'flowstone.storage.full': gauge('{stream}', '1 while the stream takes no message for lack of room.', ['stream']),
} as const satisfies Readonly<Record<string, Metric>>

/** Of the namespace: read from the server when somebody asks. */
export const SERVER_METRICS = {
  'flowstone.server.readable': gauge('{server}', '1 if the metrics of the namespace could be read.'),
  'flowstone.engine.claimed': gauge('{engine}', '1 if any engine is active on the shard.', ['shard']),
  'flowstone.engine.lag': gauge('{fact}', 'Facts of the log that are not folded yet.', ['shard']),
  'flowstone.workers': gauge('{worker}', 'Workers that left their names.', ['pipeline']),
  'flowstone.queue.depth': gauge('{task}', 'Tasks that wait for a worker.', ['pipeline', 'queue']),
  'flowstone.queue.in_flight': gauge('{task}', 'Tasks that workers have.', ['pipeline', 'queue']),
  'flowstone.queue.redelivered': gauge('{task}', 'Tasks that workers have, and had before.', ['pipeline', 'queue']),
  'flowstone.queue.unmatched': gauge('{task}', 'Tasks that wait for a worker with other code.'),
  'flowstone.triggers.waiting': gauge('{message}', 'Triggers that no engine has taken yet.'),
  'flowstone.stream.size': gauge('By', 'What a stream holds.', ['stream']),
  'flowstone.stream.limit': gauge('By', 'What a stream may hold, where it has a limit.', ['stream']),
} as const satisfies Readonly<Record<string, Metric>>

export const METRICS: Readonly<Record<MetricName, Metric>> = { ...PROCESS_METRICS, ...SERVER_METRICS }
export type ProcessMetric = keyof typeof PROCESS_METRICS
export type ServerMetric = keyof typeof SERVER_METRICS
export type MetricName = ProcessMetric | ServerMetric

export type Attributes = Readonly<Partial<Record<Attribute, string | number | boolean>>>

/** Where what happens is counted. */
export interface Meter {
  /** To a counter or a sum. */
  add(name: ProcessMetric, count: number, attributes?: Attributes): void
  /** In a histogram. */
  record(name: ProcessMetric, value: number, attributes?: Attributes): void
  /** A gauge. */
  set(name: ProcessMetric, value: number, attributes?: Attributes): void
}

/** What a server metric is now. */
export interface Sample {
  readonly name: ServerMetric
  readonly value: number
  readonly attributes: Attributes
}

/** As attributes of OpenTelemetry, and of spans. */
export function attributeName(attribute: string): string {
  return `flowstone.${attribute}`
}
