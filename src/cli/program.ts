/**
 * What there is to type. Only what works is listed. What only some commands need is loaded by them:
 * most are over in half a second.
 */
import { Command } from 'commander'
import { archiveCommands } from './archive.ts'
import { type AtOptions, readable, withReading } from './at.ts'
import { auditCommand } from './audit.ts'
import { completionCommand } from './completion/completion.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import type { DevCommand } from './dev.ts'
import { diffCommand } from './diff.ts'
import { doctorCommand } from './doctor.ts'
import { eventCommands } from './events.ts'
import { gateCommands } from './gates.ts'
import { httpCommands } from './http-commands.ts'
import { limitCommands } from './limits.ts'
import { logsCommand } from './logs.ts'
import { connected } from './options.ts'
import { type EngineCommand, runEngine, runWorker, type WorkerCommand, wholeNumber } from './parts.ts'
import { proofCommands } from './proof.ts'
import { pruneCommands } from './prune.ts'
import {
  adoptRun,
  cancelRun,
  type RetryCommand,
  type RunCommand,
  retryRun,
  runAsset,
  showHistory,
  showValue,
  type ValueCommand,
} from './runs.ts'
import { scatterCommands } from './scatters.ts'
import { scheduleCommands, sensorCommands } from './schedules.ts'
import { type SetupCommand, setup } from './setup.ts'
import { type StatusCommand, statusCommandOf } from './status.ts'
import type { UiCommand } from './ui.ts'
import { verifyCommand } from './verify.ts'
import { version } from './version.ts'
import { whyCommand } from './why.ts'

/** In the order in which --help has them. */
const COMMANDS: readonly ((root: Command) => void)[] = [
  initCommand,
  devCommand,
  uiCommand,
  runCommand,
  retryCommand,
  cancelCommand,
  statusCommand,
  whyCommand,
  diffCommand,
  valueCommand,
  adoptCommand,
  logCommands,
  logsCommand,
  workerCommand,
  engineCommand,
  httpCommands,
  setupCommand,
  triggerCommands,
  eventCommands,
  gateCommands,
  scheduleCommands,
  sensorCommands,
  scatterCommands,
  limitCommands,
  pruneCommands,
  auditCommand,
  doctorCommand,
  proofCommands,
  rebuildCommand,
  archiveCommands,
  verifyCommand,
  completionCommand,
]

export function program(): Command {
  const root = new Command('flowstone')
    .description('Asset-first data orchestration, event-sourced on NATS JetStream.')
    .version(version())
    .showHelpAfterError('(flowstone COMMAND --help says what there is)')
    .exitOverride()
    .addHelpText(
      'after',
      `
Environment: NATS_URL, NATS_JS_DOMAIN, NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS, NATS_NKEY, NATS_CA, NATS_CERT,
NATS_KEY, NATS_CONTEXT (as the NATS command line has them), FLOWSTONE_NAMESPACE, FLOWSTONE_GATE_SECRETS (id:secret,…), FLOWSTONE_BASE_URL.
Without NATS_URL and --server, commands go to the \`flowstone dev\` of this folder, else to nats://127.0.0.1:4222.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
    )
  for (const register of COMMANDS) register(root)
  return root
}

function initCommand(root: Command): void {
  root
    .command('init [folder]')
    .description('make a project that runs: a pipeline, a test, package.json; default: in the current folder')
    .option('--json', 'JSON instead of text')
    .action(async (folder: string | undefined, options: { json?: boolean }) =>
      (await import('./init/init.ts')).init(folder ?? '.', options),
    )
}

function devCommand(root: Command): void {
  root
    .command('dev <file>')
    .description(
      'server, engine, worker and HTTP for the pipelines that FILE exports; its worker restarts when the code changes',
    )
    .option('--namespace <name>', 'default: flowstone')
    .option('--port <port>', 'of the nats-server; default: any free one')
    .option('--http-port <port>', 'default: 8080, or any free one')
    .option('--http-config <file>', 'as --config of flowstone http; read once')
    .option('--concurrency <n>', 'pieces of code at a time; default 10')
    .option('--no-open', 'do not show the web console in the browser, which a terminal does')
    .option('--json', 'one line of JSON for each thing that happens')
    .action(async (file: string, options: DevCommand) => await (await import('./dev.ts')).runDev(file, options))
}

function uiCommand(root: Command): void {
  connected(root.command('ui'))
    .description('show the console in the browser: that of the flowstone dev of this folder, else its own until Ctrl-C')
    .option('--port <port>', 'default: 8080, or any free one')
    .option('--role <role>', 'what you may do in it: viewer, operator or admin', 'viewer')
    .option('--no-open', 'only print the address')
    .action(async (options: UiCommand) => await (await import('./ui.ts')).runUi(options))
}

function runCommand(root: Command): void {
  connected(root.command('run <asset>'))
    .description('make an asset, follow it, print its value')
    .option(
      '--file <file>',
      'the file that declares it; default: that of the flowstone dev of this folder, else none: name it PIPELINE/ASSET',
    )
    .option('--pipeline <name>', 'for an asset that is in several')
    .option('--partition <text>', 'the data partition to make')
    .option('--key <text>', 'idempotency key: the same key is the same run')
    .option('--on-failed <what>', 'when the run of that key has failed: return (default) it, or retry')
    .option('--upstream <mode>', "all, stale, missing or none; default: the pipeline's, else all")
    .option('--input <value>', 'NAME=JSON or NAME=@FILE, or a JSON object of all; may be given again', collect)
    .option('--tag <name=value>', 'to find the run by; may be given again', collect)
    .option('--concurrency-key <text>', 'which runs wait for each other; default: all of the pipeline')
    .option('--concurrency-limit <n>', "how many runs of that key are active at a time; default: the pipeline's")
    .option('--on-conflict <what>', 'while there is no room: queue (default), skip, or cancel_running')
    .option(
      '--timeout <duration>',
      "longest time for the whole run, such as 90s or 2h; default: the pipeline's, else none",
    )
    .option('--no-wait', 'print the id of the run, and end')
    .action((asset: string, options: RunCommand) => runAsset(asset, options))
}

function retryCommand(root: Command): void {
  connected(root.command('retry <run>'))
    .description('take up a run that has ended: a new run that takes what was made, and makes the rest')
    .option('--from <asset>', 'make this asset again, and all downstream; default: what failed')
    .option('--input <value>', 'as of run: values in place of those of the earlier run', collect)
    .option('--timeout <duration>', "longest time for the whole run; default: the earlier run's")
    .option('--no-wait', 'print the id of the run, and end')
    .action((run: string, options: RetryCommand) => retryRun(run, options))
}

function cancelCommand(root: Command): void {
  connected(root.command('cancel <run>'))
    .description('end a run early; what is done stays')
    .option('--reason <text>')
    .action((run: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, (flow, output) => cancelRun(flow, output, run, options.reason)),
    )
}

function statusCommand(root: Command): void {
  readable(root.command('status [run]'))
    .description('open runs; or one run, its assets and scatters')
    .option('--all', 'runs that have ended too')
    .option('--limit <n>', 'at most so many runs', '50')
    .option('--status <names>', 'only these, separated by commas: requested, running, succeeded, failed, cancelled')
    .option('--target <asset>', 'only runs of this asset, PIPELINE/ASSET')
    .option('--tag <name=value>', 'only runs with this tag; may be given again', collect)
    .option('--partition <text>', 'only runs of this data partition')
    .option('--since <time>', 'asked for since a time, or so long ago: 2h')
    .option('--after <run>', 'the next page: runs behind this one')
    .option('--watch', 'look again and again: drawn anew on a terminal, what has changed in a pipe; Ctrl-C ends it')
    .action((run: string | undefined, options: StatusCommand) => statusCommandOf(run, options))
}

function valueCommand(root: Command): void {
  readable(root.command('value <asset>'))
    .description('the newest value of an asset (PIPELINE/ASSET), or the one of a run')
    .option('--partition <text>', 'of this data partition')
    .option('--run <run>', 'the value that this run made or took')
    .action((asset: string, options: ValueCommand) =>
      withReading(options, (flow, output) => showValue(flow, output, asset, options)),
    )
}

function adoptCommand(root: Command): void {
  connected(root.command('adopt <run>'))
    .description('have an open run go on with the newest version of its pipeline, for code that nobody has any more')
    .action((run: string, options: GlobalOptions) => withFlow(options, (flow, output) => adoptRun(flow, output, run)))
}

function logCommands(root: Command): void {
  readable(root.command('log').description('look at the log').command('show <run>'))
    .description('what happened in a run, fact by fact; with --json a line for each')
    .action((run: string, options: AtOptions) => withReading(options, (flow, output) => showHistory(flow, output, run)))
}

const HEALTH_PORT = 'answer /healthz and /readyz here; 0: any free one; default: nowhere'
const HEALTH_HOST = 'address to listen on for that; default 127.0.0.1'

function workerCommand(root: Command): void {
  connected(root.command('worker <files...>'))
    .description('run the code of the pipelines that the files export')
    .option('--concurrency <n>', 'pieces of code at a time; default 10')
    .option('--queues <names>', 'only these, separated by commas')
    .option('--drain <duration>', 'how long a stop waits for running code; default 30s')
    .option('--health-port <port>', HEALTH_PORT)
    .option('--health-host <address>', HEALTH_HOST)
    .action((files: string[], options: WorkerCommand) => runWorker(files, options))
}

function engineCommand(root: Command): void {
  connected(root.command('engine'))
    .description('decide what is to be done; run two or more for failover')
    .option('--shards <n>', 'shards of a new namespace; default 1')
    .option('--seal-after <time>', 'how long after their end runs leave the log; default 1h; never')
    .option(
      '--proof-key <file>',
      'the key that signs the proof of the log; default: FLOWSTONE_PROOF_KEY_FILE, else none',
    )
    .option('--no-proof', 'prove nothing')
    .option('--snapshot-every <n>', 'facts that are sealed between two snapshots, for --at; default 16000')
    .option('--retain <time>', 'how long runs are kept whose pipeline does not say it; default for ever')
    .option('--retain-failed <time>', 'the same of runs that failed; default as --retain')
    .option('--archive <target>', 'where runs are archived before they are pruned: file:FOLDER, s3://BUCKET/PREFIX')
    .option('--health-port <port>', HEALTH_PORT)
    .option('--health-host <address>', HEALTH_HOST)
    .action((options: EngineCommand) => runEngine(options))
}

function setupCommand(root: Command): void {
  connected(root.command('setup'))
    .description('make the streams and buckets of a namespace, or change what can be changed of them')
    .option('--shards <n>', 'shards of a new namespace; default 1')
    .option('--replicas <n>', 'copies of each stream, 1 to 5; also fewer than there are')
    .option('--feed-max-age <duration>', 'how long the feed is kept; default 7d')
    .option('--logs-max-age <duration>', 'how long lines of ctx.log are kept; default 7d')
    .option('--logs-max-bytes <n>', 'how many bytes of them are kept: the oldest go first; default 1073741824')
    .action((options: SetupCommand) => setup(options))
}

function triggerCommands(root: Command): void {
  connected(root.command('trigger').description('what outsiders asked for').command('ls'))
    .description('triggers that were refused, and why; newest first')
    .option('--limit <n>', 'at most so many', '50')
    .action((options: GlobalOptions & { limit: string }) =>
      withFlow(options, async (flow, output) => {
        const refused = await flow.triggers.refused({ limit: wholeNumber('--limit', options.limit) })
        output.result(refused, () =>
          refused.map(({ at, pipeline, asset, reason }) =>
            [at.toISOString(), pipeline === undefined ? asset : `${pipeline}.${asset}`, reason].join('  '),
          ),
        )
      }),
    )
}

function rebuildCommand(root: Command): void {
  connected(root.command('rebuild'))
    .description('delete the state and fold it again from the log; engines must be stopped')
    .action((options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const report = await flow.rebuild()
        output.result(report, () => [`folded ${report.facts} facts in ${(report.durationMs / 1000).toFixed(1)} s`])
      }),
    )
}

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}
