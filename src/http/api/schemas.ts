/** What stands in answers of the API: zod schemas, from which its OpenAPI document is made. */
import { z } from 'zod'
import { INSTANCE_STATES } from '../../../projections/scatter/map.ts'
import { LOG_LEVELS, LOG_PHASES } from '../../../streams/logs.ts'

/** Schemas with a name in the OpenAPI document. */
export const components = z.registry<{ readonly id: string }>()

export function named<S extends z.ZodType>(id: string, schema: S): S {
  components.add(schema, { id })
  return schema
}

export const time = z.iso.datetime({ offset: true })
const count = z.int().min(0)
const text = z.string()

/** Query parameters of pages. */
export const page = (most: number, usual: number) =>
  ({
    limit: z.coerce.number().int().min(1).max(most).default(usual).describe('At most so many.'),
    cursor: z.string().max(2000).optional().describe('`next` of the page before.'),
  }) as const
export const next = text.optional().describe('The cursor of the next page; not there on the last one.')

export const whole = z.coerce.number().int().min(0)
export const names = z.union([text.transform((one) => [one]), z.array(text)])
export const name = text.min(1).max(300)

export const error = named(
  'Error',
  z.object({
    code: text,
    message: text,
    get cause() {
      return error.optional()
    },
    get errors() {
      return z.array(error).optional()
    },
  }),
)
export const problem = named(
  'Problem',
  z.object({
    type: text,
    title: text,
    status: z.int(),
    detail: text,
    reason: text.describe('Stable: one of the reasons in docs/http.md.'),
    field: text.optional().describe('The parameter, or the place in the body, that is at fault.'),
  }),
)

const runStatus = z.enum(['queued', 'requested', 'running', 'succeeded', 'failed', 'cancelled'])
const assetStatus = z.enum([
  'waiting',
  'queued',
  'running',
  'suspended',
  'scattering',
  'materialized',
  'reused',
  'given',
  'failed',
  'skipped',
  'cancelled',
])
const assetInRun = z.object({
  status: assetStatus,
  attempt: count,
  error: error.optional(),
  gate: text.optional().describe('The gate that it waits at.'),
  deadline: time.optional(),
  waitsForRun: text.optional(),
  reused: z.object({ run: text.optional(), why: z.enum(['present', 'current', 'earlier_run']) }).optional(),
})
const runShape = {
  id: text,
  pipeline: text,
  version: text,
  target: text,
  partition: text.optional(),
  tags: z.record(text, text).optional(),
  retryOf: text.optional(),
  schedule: z.object({ name: text, at: time, by: z.enum(['trigger', 'backfill']).optional() }).optional(),
  sensor: text.optional(),
  hook: z.object({ on: text, run: text, gate: text.optional() }).optional().describe('The call of a hook that it is.'),
  concurrency: z
    .object({ key: text, limit: count, onConflict: z.enum(['queue', 'skip', 'cancel_running']) })
    .optional(),
  parent: z.object({ run: text, asset: text }).optional(),
  status: runStatus,
  requestedAt: time,
  finishedAt: time.optional(),
  deadline: time.optional(),
  lateSince: time.optional(),
} as const
export const run = named('Run', z.object({ ...runShape, assets: z.record(text, assetInRun) }))
export const runExplained = named(
  'RunExplained',
  z.object({
    ...runShape,
    waitingFor: z.array(text).describe('Why nothing of it goes on. Empty when something does.'),
    assets: z.record(text, z.object({ ...assetInRun.shape, waitingFor: z.array(text) })),
  }),
)
export const runStarted = named(
  'RunStarted',
  z.object({ run: text, isNew: z.boolean().describe('False: it was there before, under the same key.') }),
)
export const done = named('Done', z.object({ ok: z.literal(true) }))

export const scatter = named(
  'Scatter',
  z.object({
    id: text,
    status: z.enum(['open', 'completed', 'partial_failure', 'failed', 'cancelled']),
    total: count.optional().describe('Not there until all keys are known.'),
    stored: count.describe('Keys stored so far.'),
    succeeded: count,
    failed: count,
    timedOut: count,
    pending: count,
    leased: count,
    running: count,
    suspended: count,
    waitingForRetry: count,
    waiting: count,
    cancelled: count,
    resultsStored: count,
    redrivable: count,
    progress: z.number().describe('Percent of the total, in tenths.'),
    perSecond: z.number(),
    estimatedEnd: time.optional(),
    deadline: time.optional(),
    failuresLeft: z.number().optional().describe('How many more may fail before the scatter fails.'),
    paused: z.object({ since: time, reason: text.optional() }).optional(),
    startedAt: time,
    closedAt: time.optional(),
    error: error.optional(),
    longest: z.array(z.object({ from: count, to: count, since: time, worker: text.optional() })),
    waitingFor: z.array(text),
  }),
)
export const scatterMap = named(
  'ScatterMap',
  z.object({
    id: text,
    total: count.optional(),
    stored: count,
    from: count.describe('The instance that the map begins with.'),
    length: count,
    states: z.array(z.enum(INSTANCE_STATES)).describe('The name of each number.'),
    counts: z.array(count).describe('Instances of the map in each state, by its number.'),
    runs: text.describe(
      'Base64. For each run of instances in one state a number (length - 1) * 8 + state, seven bits a byte, the lowest first; the eighth bit says that more follow.',
    ),
  }),
)
export const scatterTiles = named(
  'ScatterTiles',
  z.object({
    id: text,
    states: z.array(z.enum(INSTANCE_STATES)),
    tiles: z.array(z.object({ from: count, to: count, counts: z.array(count) })),
  }),
)
export const failure = named('Failure', z.object({ index: count, key: z.unknown().optional(), error, attempts: count }))
export const errorGroup = named(
  'ErrorGroup',
  z.object({
    code: text,
    message: text.describe('Of the first of them.'),
    count,
    instances: z.array(count).describe('The first of them.'),
    spread: z.array(count).describe('How many there are in each hundredth of the keys.'),
  }),
)
export const instance = named(
  'Instance',
  z.object({
    scatter: text,
    index: count,
    key: z.unknown().optional(),
    state: z.enum(INSTANCE_STATES),
    attempts: z.array(
      z.object({
        attempt: count,
        outcome: z.enum(['done', 'gate', 'error', 'terminal', 'timeout', 'lost', 'returned']),
        at: time,
        durationMs: z.number().optional(),
        worker: text,
        error: error.optional(),
        gate: text.optional(),
      }),
    ),
    complete: z.boolean().describe('False: the log was too long to be read in time.'),
  }),
)

export const gate = named(
  'Gate',
  z.object({
    id: text,
    run: text,
    asset: text,
    index: count.optional().describe('The instance that opened it.'),
    status: z.enum(['waiting', 'signaled', 'timed_out', 'cancelled']),
    openedAt: time,
    deadline: time.optional(),
    timeouts: count,
    retriesLeft: count,
    metadata: z.unknown().optional().describe('What the code said about it: never trusted.'),
    kind: z.enum(['signal', 'approval']),
    endedAt: time.optional(),
    signal: z
      .object({ payload: z.unknown().optional(), source: text.optional(), headers: z.record(text, text) })
      .optional(),
    reason: text.optional(),
    refused: z
      .object({
        count,
        reasons: z.record(text, count).describe('How many for each reason; see docs/gates.md.'),
        last: z.array(z.object({ at: time, reason: text, source: text.optional(), by: text.optional() })),
      })
      .optional()
      .describe('Attempts to answer it that were refused, the newest first.'),
  }),
)

const node = {
  name: text,
  kind: z.enum(['asset', 'scatter', 'input']),
  dependsOn: z.array(text),
  queue: text,
  priority: count,
  maxAttempts: count,
  timeoutMs: z.number().optional(),
  limits: z.array(text),
  shape: text,
} as const
export const pipeline = named(
  'Pipeline',
  z.object({
    name: text,
    version: text,
    upstream: z.enum(['all', 'stale', 'missing', 'none']),
    timeoutMs: z.number().optional(),
    concurrencyLimit: count.optional(),
    assets: z.array(z.object(node)),
    schedules: z.array(text),
    sensors: z.array(text),
    subscriptions: z.array(text),
  }),
)
export const asset = named(
  'Asset',
  z.object({
    ...node,
    pipeline: text,
    state: z.enum(['running', 'waiting', 'gate', 'failed', 'made', 'none']),
    newest: z.object({ run: text, partition: text, at: time }).optional(),
    partitions: count.describe('How many data partitions have a value.'),
    behind: z.array(text).describe('Dependencies with a newer value than this one.'),
    openRuns: z.array(text),
    error: error.optional(),
    failedRun: text.optional(),
  }),
)
export const value = named(
  'Value',
  z.object({
    asset: text,
    run: text.optional(),
    at: time.optional(),
    bytes: count.describe('Of the JSON text.'),
    value: z.unknown().optional().describe('There when it is not longer than `maxBytes`.'),
    preview: text.optional().describe('Else: the beginning of its JSON text.'),
  }),
)

export const limit = named(
  'Limit',
  z.object({
    bucket: text,
    rate: z
      .object({
        shape: z.enum(['window', 'smooth']),
        limit: count,
        periodMs: z.number(),
        burst: count,
        count: z.number(),
        remaining: z.number(),
        utilization: z.number(),
        waiting: count,
        reservations: z.array(z.object({ at: time, tokens: z.number() })),
        nextTurn: time,
      })
      .optional(),
    slots: z
      .object({
        limit: count,
        count,
        remaining: count,
        utilization: z.number(),
        waiting: count,
        holders: z.array(
          z.object({
            slot: text,
            by: text.optional(),
            weight: count,
            fence: count,
            ageMs: z.number(),
            leaseMs: z.number(),
          }),
        ),
        queue: z
          .array(z.object({ process: text, waiting: count, by: z.array(text) }))
          .describe(
            'Processes with callers that wait, the next one first; at most 64. `by`: what the first of them want it for.',
          ),
      })
      .optional(),
  }),
)

export const occurrence = named(
  'Occurrence',
  z.object({
    what: z.enum(['fired', 'skipped', 'missed']),
    at: time,
    last: time.optional(),
    count: count.optional(),
    run: text.optional(),
    why: text.optional(),
    error: z.object({ code: text, message: text }).optional(),
    by: z.enum(['trigger', 'backfill']).optional(),
  }),
)
export const schedule = named(
  'Schedule',
  z.object({
    name: text,
    pipeline: text,
    schedule: text,
    target: text,
    when: z.union([
      z.object({
        cron: text,
        timeZone: text,
        gap: z.enum(['after', 'skip']),
        overlap: z.enum(['first', 'both']),
      }),
      z.object({ everyMs: z.number(), anchor: time }),
    ]),
    state: z.enum(['active', 'paused', 'removed']),
    pausedSince: time.optional(),
    pausedBecause: text.optional(),
    last: occurrence.optional(),
    next: time.optional(),
    open: z.array(z.object({ at: time, run: text, evaluating: z.boolean() })),
    waiting: count,
    fired: count,
    skipped: count,
    missed: count,
  }),
)
export const sensor = named(
  'Sensor',
  z.object({
    name: text,
    pipeline: text,
    sensor: text,
    target: text,
    everyMs: z.number(),
    state: z.enum(['waiting', 'evaluating', 'paused', 'removed']),
    pausedSince: time.optional(),
    pausedBecause: text.optional(),
    evaluations: count,
    failures: count,
    error: z.object({ code: text, message: text }).optional(),
    last: time.optional(),
    lastGood: time.optional(),
    next: time.optional(),
    cursor: z.unknown().optional(),
    run: text.optional(),
  }),
)
export const worker = named(
  'Worker',
  z.object({
    id: text,
    state: z.enum(['answers', 'draining', 'silent']),
    seenAt: time,
    pipelines: z.array(
      z.object({
        name: text,
        queues: z.array(text),
        versions: z.array(text),
        running: z.array(text).describe('Assets that it makes now, at most 20.'),
      }),
    ),
    slots: count.optional(),
    free: count.optional(),
    loopDelayMs: z.number().optional().describe('The longest delay of its event loop in the last 10 to 20 seconds.'),
  }),
)
export const engine = named(
  'Engine',
  z.object({
    id: text,
    active: z.array(count).describe('Shards on which it is active. None: it stands by.'),
    denied: text.optional().describe('It does not work, because its NATS user lacks a permission: which one.'),
  }),
)
export const shard = named(
  'Shard',
  z.object({
    shard: count,
    engine: text.optional(),
    behind: count.describe('Facts that are not folded yet.'),
    last: count,
    messages: count,
    problem: z.object({ code: text, message: text }).optional(),
  }),
)
export const logLine = named(
  'LogLine',
  z.object({
    at: time,
    level: z.enum(LOG_LEVELS),
    message: text,
    fields: z.record(text, z.unknown()).optional(),
    run: text,
    pipeline: text,
    asset: text,
    partition: text.optional(),
    phase: z.enum(LOG_PHASES),
    attempt: count,
    index: count.optional().describe('Of an instance of a scatter, as is `key`.'),
    key: z.unknown().optional(),
    worker: text,
  }),
)
export const fact = named(
  'Fact',
  z.object({
    shard: count,
    seq: count,
    at: time,
    kind: text,
    ids: z.record(text, text),
    data: z.unknown().optional(),
    preview: text.optional().describe('In place of data that is too long: the beginning of its JSON text.'),
  }),
)
export const auditEntry = named(
  'AuditEntry',
  z.object({
    at: time,
    shard: count,
    seq: count,
    kind: text.describe('The fact.'),
    by: text.describe('One or more `kind:name` with spaces between; see docs/audit.md.'),
    what: text.describe('On what: `orders/invoice`, a run, a scatter, a gate, a schedule.'),
    run: text.optional(),
    detail: text.optional().describe('The reason that was given, and what else the fact says in short.'),
  }),
)
export const railPoint = named('RailPoint', z.object({ from: time, to: time, facts: count, failed: z.boolean() }))
export const span = named(
  'Span',
  z.object({
    kind: z.enum(['attempt', 'scatter', 'gate']),
    asset: text,
    attempt: count.optional(),
    phase: text.optional(),
    gate: text.optional(),
    from: time,
    to: time.optional(),
    outcome: text.optional(),
    worker: text.optional(),
  }),
)
export { count, text }
