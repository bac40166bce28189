/** Numbers that the pages of features name are those of the code. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { EXACT_MAX } from '../../projections/limits/rate-cell.ts'
import { AHEAD_MAX_MS } from '../../projections/limits/rate-round.ts'
import { SAID_MAX } from '../../projections/limits/slot-cell.ts'
import { MSG_ID_MAX, TRIGGER_BODY_MAX } from '../../projections/run/trigger.ts'
import { asset } from '../../src/define/asset.ts'
import { MAX_CONCURRENT, TIMER_MAX_MS } from '../../src/define/asset-checks.ts'
import { VERSION_MAX } from '../../src/define/code-version.ts'
import {
  CORRELATION_KEY_MAX_BYTES,
  METADATA_MAX_BYTES,
  parseGate,
  RETRIES_MAX,
  WAIT_MAX_MS,
} from '../../src/define/gates.ts'
import { MAX_BYTES as SCHEMA_MAX_BYTES } from '../../src/define/payload-schema.ts'
import { REMEMBERED_FOR } from '../../src/gates/delivery.ts'
import { KEPT_MAX } from '../../src/gates/early.ts'
import { KEEP_MAX_MS } from '../../src/gates/gates.ts'
import { EARLY_MAX_BYTES, PAYLOAD_MAX_BYTES } from '../../src/gates/payload.ts'
import { SECRET_MIN_BYTES } from '../../src/gates/token.ts'
import { INLINE_MAX_BYTES, INLINE_PART, REF_MAX_BYTES } from '../../src/io/manager.ts'
import { DEFAULT_BYTES as BATCH_BYTES, BYTES_MAX as BATCH_MAX_BYTES } from '../../src/items/batch.ts'
import { MAX_ROW_BYTES } from '../../src/items/csv.ts'
import { MAX_LINE_BYTES } from '../../src/items/lines.ts'
import { PAGE_ROWS, QUERY_TIMEOUT } from '../../src/items/postgres.ts'
import { CURSOR_MAX_BYTES, READER_RETRY } from '../../src/items/reader.ts'
import {
  ACQUIRE_MAX_WAIT,
  CHECK_MAX_WAIT,
  LEASE,
  LEASE_MIN_MS,
  SLOT_MAX_WAIT,
  SLOTS_MAX,
  TAKE_MAX_WAIT,
} from '../../src/limiter/limiter.ts'
import { DURATION_MAX_MS } from '../../src/options/duration.ts'
import { BUCKET_MAX, LIMIT_MAX, PERIOD_MAX_MS, PERIOD_MIN_MS } from '../../src/options/rate.ts'
import { REASON_MAX } from '../../src/options/reason.ts'
import { TEXT_MAX } from '../../src/runs/run-request.ts'
import { INLINE_MAX_BYTES as RESULT_INLINE_MAX_BYTES } from '../../src/worker/lease/report.ts'
import { WORKER_DEFAULTS } from '../../src/worker/options.ts'
import { KEY_CHUNK_BYTES } from '../../src/worker/scatter/key-chunks.ts'
import { checkName } from '../../streams/ids.ts'
import { DEPTH_MAX as KEY_DEPTH_MAX } from '../../streams/keys.ts'
import { CAUSE_LEVELS, CAUSES_MAX, MESSAGE_MAX, STACK_MAX } from '../../streams/thrown.ts'
import { SHARDS_MAX } from '../../streams/topology.ts'
import { DEPTH_MAX } from '../../streams/value.ts'

const DAY_MS = 86_400_000

const textOf = (page: string): string =>
  readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8').replaceAll(/\s+/g, ' ')
const count = (n: number): string => n.toLocaleString('en-US')
const size = (bytes: number): string => (bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${bytes / 1024} KiB`)
const days = (ms: number): string => `${Math.floor(ms / DAY_MS)} days`
const minutes = (ms: number): number => ms / 60_000

const { spec } = asset('plain', { execute: () => 1 }).definition
const { scatter } = asset('scattered', { scatter: () => [1], execute: () => 1 }).definition.spec
const gate = parseGate({ timeoutAction: 'retry' })
const name = { fits: 'x'.repeat(128), tooLong: 'x'.repeat(129) }
const eighth = (bytes: number): string => `${size(bytes)}, and ${INLINE_PART === 1 / 8 ? 'an eighth' : '?'} of`

const assetsAndRuns = [
  `| a value of an asset on the log | ${eighth(INLINE_MAX_BYTES)} \`max_payload\``,
  `| a result of an instance on the log | ${eighth(RESULT_INLINE_MAX_BYTES)} \`max_payload\``,
  `| a reference of an I/O manager | ${size(REF_MAX_BYTES)} as JSON`,
  `| levels of a value | ${DEPTH_MAX} |`,
  `| a scatter key | ${size(KEY_CHUNK_BYTES)},`,
  `| a cursor of an item reader | ${size(CURSOR_MAX_BYTES)} |`,
  `| \`maxConcurrent\` | ${count(MAX_CONCURRENT)} |`,
  `| metadata of a gate | ${size(METADATA_MAX_BYTES)} |`,
  `| schema of a payload, as JSON Schema | ${size(SCHEMA_MAX_BYTES)} |`,
  `| a payload of a signal | ${size(PAYLOAD_MAX_BYTES)} |`,
  `| a correlation key | ${count(CORRELATION_KEY_MAX_BYTES)} bytes |`,
  `| a reason (\`cancel\`, \`pause\`) | ${count(REASON_MAX)} characters |`,
  `| a partition, a \`key\`, a \`Nats-Msg-Id\` | ${TEXT_MAX === MSG_ID_MAX ? TEXT_MAX : '?'} characters |`,
  `| body of a trigger | ${size(TRIGGER_BODY_MAX)} |`,
  `| a name (asset, pipeline, queue) | ${name.fits.length} characters`,
  `| \`codeVersion\` | ${VERSION_MAX} characters |`,
  `| name of a bucket | ${BUCKET_MAX} characters |`,
  `| message of an error, and its stack | ${count(MESSAGE_MAX === STACK_MAX ? MESSAGE_MAX : 0)} characters each |`,
  `| causes of an error | ${CAUSE_LEVELS} levels, ${CAUSES_MAX} in all |`,
  `| shards of a namespace | ${SHARDS_MAX} |`,
  `| \`timeout\` of an asset or an instance | ${days(TIMER_MAX_MS)} |`,
  `| \`timeout\` of a gate | ${WAIT_MAX_MS / DAY_MS / 365} years,`,
  `| any other duration | ${days(DURATION_MAX_MS)} |`,
  `longest time of one attempt; at most ${days(TIMER_MAX_MS)} |`,
  `| \`retry\` | \`{ maxAttempts, backoff }\` | ${spec.retry.maxAttempts} attempts, \`'${backoffOf(spec.retry)}'\` |`,
  `| \`priority\` | 0 to 3 | ${spec.priority} |`,
  `| \`queue\` | name | \`'${spec.queue}'\` |`,
  `| of one instance | \`scatterOptions.timeout\` | \`'${minutes(scatter?.timeoutMs ?? 0)}m'\` |`,
  `| of a wait at a gate | \`timeout\` of the gate | \`'${minutes(gate.timeoutMs ?? 0) / 60}h'\` |`,
  `| \`concurrency\` | number | ${WORKER_DEFAULTS.concurrency} |`,
  `| \`drainTimeout\` | duration | \`'${WORKER_DEFAULTS.drainTimeout}'\` |`,
  `| \`ackWait\` | duration | \`'${WORKER_DEFAULTS.ackWait}'\` |`,
  `| \`maxBlocked\` | duration | \`'${WORKER_DEFAULTS.maxBlocked}'\` |`,
]

const scatterPage = [
  `| \`maxConcurrent\` | 1 to ${count(MAX_CONCURRENT)} |`,
  `| that of the asset: ${spec.retry.maxAttempts}, \`'${backoffOf(spec.retry)}'\` |`,
  `| \`timeout\` | duration | \`'${minutes(scatter?.timeoutMs ?? 0)}m'\` |`,
  `| all | \`retry: { maxAttempts, backoff }\` | ${READER_RETRY.maxAttempts}, \`'${READER_RETRY.backoff}'\` |`,
  `| \`maxLineBytes\` | ${size(MAX_LINE_BYTES)} |`,
  `| \`maxRowBytes\` | ${size(MAX_ROW_BYTES)} |`,
  `| \`pageSize\` | ${count(PAGE_ROWS)} |`,
  `| \`timeout\` | \`'${QUERY_TIMEOUT}'\` |`,
  `any value that can be stored, up to ${size(CURSOR_MAX_BYTES)} |`,
  `| \`maxBytes\` | ${size(BATCH_BYTES)}, at most ${size(BATCH_MAX_BYTES)} |`,
  `A key takes at most ${size(KEY_CHUNK_BYTES)}:`,
  `cycles, more than ${KEY_DEPTH_MAX} levels`,
]

const gatesPage = [
  `| \`timeout\` | duration | \`'${minutes(gate.timeoutMs ?? 0) / 60}h'\` |`,
  `else at most ${WAIT_MAX_MS / DAY_MS / 365} years |`,
  `| \`maxTimeoutRetries\` | 0 to ${RETRIES_MAX} | ${gate.retriesMs.length} |`,
  `| \`retryDelays\` | durations | ${gate.retriesMs
    .map(minutes)
    .join(', ')
    .replace(/, (\d+)$/, ' and $1')} minutes |`,
  `| \`metadata\` | JSON, ${size(METADATA_MAX_BYTES)} |`,
  `| \`correlationKey\` | text, ${count(CORRELATION_KEY_MAX_BYTES)} bytes |`,
  `remembered for ${Number.parseInt(REMEMBERED_FOR, 10) / 86_400} days`,
  `for at most ${KEEP_MAX_MS / 3_600_000} hours`,
  `A kept payload is at most ${size(EARLY_MAX_BYTES)}, and ${count(KEPT_MAX)} signals are kept at most`,
  `A secret has at least ${SECRET_MIN_BYTES} bytes`,
]

const limitsPage = [
  `| \`limit\` | 1 to ${count(LIMIT_MAX)} |`,
  `the period: ${PERIOD_MIN_MS} ms to ${days(PERIOD_MAX_MS)} |`,
  `\`'${TAKE_MAX_WAIT}'\` (\`take\`, \`withLimit\`), \`'${CHECK_MAX_WAIT}'\` (\`check\`, \`peek\`)`,
  `\`'${SLOT_MAX_WAIT}'\` (\`withSlot\`, \`takeSlot\`), \`'${ACQUIRE_MAX_WAIT}'\` (\`acquireSlot\`)`,
  `up to a limit of ${EXACT_MAX};`,
  `A reservation reaches at most ${AHEAD_MAX_MS / 1000} seconds ahead`,
  `at most those ${AHEAD_MAX_MS / 1000} seconds of the rate`,
  `| \`lease\` | duration, at least ${LEASE_MIN_MS} ms | \`'${LEASE}'\` |`,
  `Never more than \`max\` (at most ${count(SLOTS_MAX)})`,
  `It is kept for the first ${SAID_MAX} holders`,
]

function backoffOf({ backoffMinMs, backoffMaxMs }: { backoffMinMs: number; backoffMaxMs: number }): string {
  return `${backoffMinMs / 1000}s..${backoffMaxMs / 1000}s`
}

it.each([
  ...assetsAndRuns.map((says) => ['assets-and-runs.md', says] as const),
  ...scatterPage.map((says) => ['scatter.md', says] as const),
  ...gatesPage.map((says) => ['gates.md', says] as const),
  ...limitsPage.map((says) => ['limits.md', says] as const),
])('docs/%s names what the code has: %s', (page, says) => {
  expect(textOf(page)).toContain(says)
})

it('a name has as many characters as the page says', () => {
  expect(checkName('name', name.fits)).toBe(name.fits)
  expect(() => checkName('name', name.tooLong)).toThrow()
})
