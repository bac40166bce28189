import type { Command } from 'commander'
import { expect, it } from 'vitest'
import { asTyped } from '../../src/cli/as-typed.ts'
import { program } from '../../src/cli/program.ts'
import { InvalidError } from '../../streams/errors.ts'

/** What the command of these arguments makes of a message of the library. */
async function typed(args: readonly string[], message: string): Promise<unknown> {
  let found: Command | undefined
  const stop = new Error('not run')
  await program(true)
    .hook('preAction', (_, command) => {
      found = command
      throw stop
    })
    .parseAsync(args, { from: 'user' })
    .catch((error: unknown) => {
      if (error !== stop) throw error
    })
  return (asTyped(new InvalidError(message), found) as Error).message
}

it.each([
  [
    ['prune', '--older-than', 'x'],
    "prune: olderThan must be milliseconds, got 'x'",
    "--older-than must be milliseconds, got 'x'",
  ],
  [['run', 'a', '--concurrency-limit', '0'], 'request: concurrency.limit must be 1', '--concurrency-limit must be 1'],
  [['run', 'a', '--on-conflict', 'x'], 'request: concurrency.onConflict must be queue', '--on-conflict must be queue'],
  [['run', 'a', '--tag', 'a=b'], 'request: tags.a: too long', 'request: tags.a: too long'],
  [
    ['run', 'a'],
    'request: input: x is missing, and a needs it: { input: { x: … } }',
    'request: input: x is missing, and a needs it: --input x=JSON',
  ],
  [
    ['run', 'a', '--key', 'k'],
    "(to try again: materialize with onFailed: 'retry')",
    '(to try again: give --on-failed retry)',
  ],
  [
    ['run', 'a'],
    "a needs b; materialize with upstream 'missing' or 'all'",
    'a needs b; run with --upstream missing or all',
  ],
  [
    ['retry', 'r'],
    'run r has succeeded; name the asset from which: { from }',
    'run r has succeeded; name the asset from which: --from ASSET',
  ],
  [
    ['retry', 'r', '--from', 'x'],
    'retry: from: a does not depend on an asset x',
    '--from: a does not depend on an asset x',
  ],
  [
    ['export', '--to', 'a.csv'],
    "export: to: a.csv ends in .csv; end it in .jsonl, or give format: 'jsonl' for lines",
    '--to: a.csv ends in .csv; end it in .jsonl, or give --format jsonl for lines',
  ],
  [['engine', '--seal-after', 'x'], 'engine: sealAfter must be milliseconds', '--seal-after must be milliseconds'],
  [['engine', '--retain', 'x'], 'engine: retention: runs must be milliseconds', '--retain must be milliseconds'],
  [
    ['setup', '--logs-max-bytes', '1'],
    'logsMaxBytes must be a whole number',
    '--logs-max-bytes must be a whole number',
  ],
  [
    ['event', 'test', 's', '--from-seq', '0'],
    'events.test: fromSeq must be a whole number',
    '--from-seq must be a whole number',
  ],
  [['gate', 'signal', 'g', '--by', 'x'], 'source must be text', '--by must be text'],
  [
    ['status', '--at', '5'],
    'at: there are 2 shards, so name one: { shard, seq }, or give a Date',
    '--at: there are 2 shards, so name one: SHARD:SEQUENCE, or give a time',
  ],
  [
    ['export'],
    'export: say which runs: runs, or since, until and pipelines, or all',
    'export: say which runs: RUN …, or --since, --until and --pipeline, or --all',
  ],
  [
    ['status'],
    "no nats-server at x (gone); start one (docker compose up -d, nats-server -js, or startServer from 'flowstone/server'), or set servers or NATS_URL",
    'no nats-server at x (gone); start one (flowstone dev FILE in this folder, docker compose up -d, or nats-server -js), or name it with --server or NATS_URL',
  ],
  [
    ['schedule', 'backfill', 's', '--from', '2026-01-02', '--to', '2026-01-01'],
    'schedules.backfill: from must be before to',
    '--from must be before --to',
  ],
  [['http', '--max-body', '0'], 'maxBodyBytes must be a whole number', '--max-body must be a whole number'],
  [['status', '--server', 'x:y:z'], 'servers: an address must be like', '--server: an address must be like'],
  [['status', '--context', 'x'], 'context: there is no context x', '--context: there is no context x'],
  // It stands in the file, and not on the command line.
  [['worker', 'f.ts'], 'worker: concurrency must be a whole number', 'worker: concurrency must be a whole number'],
])('%j: an error names what was typed: %s', async (args, message, expected) => {
  expect(await typed(args, message)).toBe(expected)
})
