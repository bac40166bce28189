/**
 * Numbers that pages name are those of the code. Whoever changes one finds here which sentence
 * names it.
 */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { pathOf } from './pages.ts'

interface Named {
  readonly page: string
  /** What the page says; white space counts as one space. */
  readonly says: string
  readonly file: string
  /** The line of code behind it. */
  readonly code: string
}

const NUMBERS: readonly Named[] = [
  {
    page: 'http',
    says: '`maxBodyBytes` | number | 1 MiB',
    file: 'http/shared/limits',
    code: 'maxBodyBytes = 1_048_576',
  },
  { page: 'http', says: "duration | `'10s'`", file: 'http/shared/limits', code: "duration: Duration = '10s'" },
  { page: 'http', says: "`[500, 'second']`", file: 'http/shared/limits', code: "rate ?? [500, 'second']" },
  { page: 'http', says: "`[60, 'minute']`", file: 'http/gates/handler', code: "rateLimit.token ?? [60, 'minute']" },
  { page: 'http', says: 'share 64 MiB', file: 'http/shared/limits', code: 'BUDGET_BYTES = 64 * 1_048_576' },
  { page: 'http', says: 'an eighth of that', file: 'http/shared/limits', code: 'BUDGET_SHARE = 1 / 8' },
  { page: 'http', says: '(1 to 255 characters)', file: 'http/shared/limits', code: 'key.length > 255' },
  { page: 'http', says: '64 levels deep', file: 'http/shared/body', code: 'DEPTH_MAX = 64' },
  { page: 'http', says: '1,000 fields', file: 'http/shared/body', code: 'FIELDS_MAX = 1000' },
  { page: 'http', says: 'older than a day', file: 'http/gates/form', code: 'NONCE_LIFE_MS = 24 * 3_600_000' },
  { page: 'http', says: 'at least 16 characters each', file: 'http/shared/signed', code: 'SECRET_MIN = 16' },
  { page: 'http', says: "duration | `'5m'`", file: 'http/shared/signed', code: "tolerance = '5m'" },
  { page: 'http', says: 'for at most 24 hours', file: 'http/shared/signed', code: 'DAY_MS = 24 * 3_600_000' },
  { page: 'http', says: 'at least 24 bytes', file: 'http/shared/signatures', code: 'STANDARD_KEY_MIN_BYTES = 24' },
  { page: 'http', says: "`[100, 'second']`", file: 'http/runs/handler', code: "rateLimit.key ?? [100, 'second']" },
  { page: 'http', says: 'for at most 60 s', file: 'http/runs/prefer', code: 'WAIT_MAX_S = 60' },
  { page: 'http', says: '1,000 requests may wait', file: 'http/runs/waits', code: 'WAITS_MAX = 1000' },
  { page: 'http', says: '100 of one client', file: 'http/runs/waits', code: 'WAITS_OF_KEY_MAX = 100' },
  { page: 'http', says: 'are 32 random bytes', file: 'http/shared/api-keys', code: 'KEY_BYTES = 32' },
  { page: 'http', says: 'fewer than 43 characters', file: 'http/shared/api-keys', code: '{43,512}' },
  { page: 'http', says: '| number | 8080 |', file: 'http/serve', code: 'port = 8080' },
  { page: 'http', says: "text | `'127.0.0.1'`", file: 'http/serve', code: "host = '127.0.0.1'" },
  { page: 'production', says: 'finish | up to 10 s', file: 'http/serve', code: 'CLOSE_PATIENCE_MS = 10_000' },
  { page: 'production', says: '`ackWait` (30 s)', file: 'worker/options', code: "ackWait: '30s'" },
  { page: 'production', says: '`--drain` (30 s)', file: 'worker/options', code: "drainTimeout: '30s'" },
  { page: 'production', says: '`maxBlocked` (10 min)', file: 'worker/options', code: "maxBlocked: '10m'" },
  {
    page: 'production',
    says: '`--concurrency` (default 10)',
    file: 'worker/options',
    code: 'concurrency: 10',
  },
  {
    page: 'production',
    says: '| 1 s | the helper thread',
    file: 'worker/control/helper-code',
    code: 'BLOCKED_MS = 1000',
  },
  { page: 'production', says: '| 3 s, 12 s, 48 s', file: 'worker/control/helper-code', code: 'SAY_MS = 3000' },
  { page: 'production', says: 'within 2.2 s', file: 'engine/shard/claim', code: 'CLAIM_TTL_MS = 2000' },
  { page: 'production', says: 'the engine, within 5 s', file: 'engine/shard/term', code: 'LOOK_MS = 5000' },
  { page: 'production', says: 'after two minutes', file: 'log/appender', code: '?? 120_000' },
  { page: 'production', says: 'dropped, after 7 days', file: '../streams/topology', code: 'FEED_MAX_AGE_MS = 7 * 24' },
  { page: 'production', says: '1 to 64', file: '../streams/topology', code: 'S_MAX = 64' },
  { page: 'production', says: 'nats-server 2.14', file: '../streams/version', code: "MIN_SERVER_VERSION = '2.14.0'" },
  { page: 'other-languages', says: 'at most 32 KiB', file: '../projections/run/trigger', code: 'BODY_MAX = 32 * 1024' },
  {
    page: 'other-languages',
    says: '(up to 512 characters)',
    file: '../projections/run/trigger',
    code: 'MSG_ID_MAX = 512',
  },
  {
    page: 'other-languages',
    says: 'up to a million triggers',
    file: '../streams/topology',
    code: 'TRIGGERS_MAX = 1_000_000',
  },
  { page: 'other-languages', says: 'up to 8 KiB', file: '../projections/run/end', code: 'RESULT_MAX = 8192' },
  { page: 'other-languages', says: 'keeps 7 days', file: '../streams/topology', code: 'FEED_MAX_AGE_MS = 7 * 24' },
  { page: 'glossary', says: '65,536 bits', file: '../projections/scatter/bits', code: 'SEGMENT_INSTANCES = 65_536' },
  { page: 'glossary', says: 'every 30 seconds', file: 'engine/engine', code: 'options.reconcileMs ?? 30_000' },
]

function textOf(path: string): string {
  return readFileSync(pathOf(path), 'utf8').replaceAll(/\s+/g, ' ')
}

it.each(NUMBERS)('docs/$page.md: "$says" is as in src/$file.ts', ({ page, says, file, code }) => {
  expect(textOf(`docs/${page}.md`).includes(says), `docs/${page}.md does not say it any more`).toBe(true)
  expect(textOf(`src/${file}.ts`).includes(code), `src/${file}.ts has no ${code} any more: correct the page too`).toBe(
    true,
  )
})
