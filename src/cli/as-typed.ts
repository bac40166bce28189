/** The library names its options in errors. Whoever types a command knows them by other names. */
import type { Command } from 'commander'
import { FlowStoneError } from '../../streams/errors.ts'

/** Options that have another name here than in the library. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  tags: 'tag',
  pipelines: 'pipeline',
  source: 'by',
  idempotencyKey: 'key',
  drainTimeout: 'drain',
  feedMaxAgeMs: 'feedMaxAge',
  logsMaxAgeMs: 'logsMaxAge',
  maxBodyBytes: 'maxBody',
  servers: 'server',
  'concurrency.key': 'concurrencyKey',
  'concurrency.limit': 'concurrencyLimit',
  'concurrency.onConflict': 'onConflict',
  'retention: runs': 'retain',
  'retention: failed': 'retainFailed',
  'retention: archive': 'archive',
}

/** What an error says to do, as code; by the option that does it. */
const ADVICE: readonly (readonly [option: string, code: RegExp, typed: string])[] = [
  ['from', /: \{ from \}/, ': --from ASSET'],
  ['input', /: \{ input: \{ (\S+): … \} \}/, ': --input $1=JSON'],
  ['onFailed', /materialize with onFailed: 'retry'/, 'give --on-failed retry'],
  ['upstream', /materialize( it)? with upstream 'missing' or 'all'/, 'run$1 with --upstream missing or all'],
  ['sealAfter', /sealAfter must not be 'never'/, '--seal-after must not be never'],
  [
    'server',
    /start one \(docker compose up -d, nats-server -js, or .*\), or set servers or NATS_URL/,
    'start one (flowstone dev FILE in this folder, docker compose up -d, or nats-server -js), or name it with --server or NATS_URL',
  ],
  ['format', /or give format: 'jsonl'/, 'or give --format jsonl'],
  ['at', /^at: /, '--at: '],
  ['to', /from must be before to$/, 'from must be before --to'],
  ['at', /so name one: \{ shard, seq \}, or give a Date/, 'so name one: SHARD:SEQUENCE, or give a time'],
  ['at', /give a Date, a sequence from 1 on.*/, 'give a time, a sequence from 1 on, or SHARD:SEQUENCE'],
  [
    'all',
    /say which runs: runs, or since, until and pipelines, or all/,
    'say which runs: RUN …, or --since, --until and --pipeline, or --all',
  ],
]

/** `prune: olderThan must be …`: the call, the path of the field, and the rest. */
const FIELD = /^(?:[A-Za-z.]+: )?((?:retention: )?[A-Za-z]+(?:\.[A-Za-z]+)?)(?=:? )/
/** `context: there is no …`: the field alone. */
const ALONE = /^([A-Za-z]+)(?=: )/

/** The same error, in the words of the command that was typed. */
export function asTyped(error: unknown, command: Command | undefined): unknown {
  if (!command || !(error instanceof FlowStoneError)) return error
  const flagOf = (field: string): string | undefined => {
    const name = OTHER_NAMES[field] ?? field
    const option = command.options.find((one) => one.attributeName() === name)
    // Without it the field was set elsewhere: in a file of configuration, say.
    return command.getOptionValueSource(name) === undefined ? undefined : option?.long
  }
  let { message } = error
  for (const form of [FIELD, ALONE]) {
    const [all = '', field = ''] = form.exec(message) ?? []
    const flag = flagOf(field)
    if (flag !== undefined) message = `${flag}${message.slice(all.length)}`
  }
  for (const [option, code, typed] of ADVICE)
    if (command.options.some((one) => one.attributeName() === option)) message = message.replace(code, typed)
  error.message = message
  return error
}
