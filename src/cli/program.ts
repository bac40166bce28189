/**
 * What there is to type. Only what works is listed. What only some commands need is loaded by them:
 * most are over in half a second.
 */

import { Command, type Option } from 'commander'
import { counted } from '../../streams/amounts.ts'
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
import { CONNECTION, connected, measured } from './options.ts'
import { type EngineCommand, runEngine, runWorker, type WorkerCommand } from './parts.ts'
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
import { triggerCommands } from './triggers.ts'
import type { UiCommand } from './ui.ts'
import { verifyCommand } from './verify.ts'
import { version } from './version.ts'
import { whyCommand } from './why.ts'

/** In the order in which --help has them. */
const GROUPS: Readonly<Record<string, readonly ((root: Command) => void)[]>> = {
  'Begin:': [initCommand, devCommand, uiCommand],
  'Runs:': [runCommand, statusCommand, valueCommand, whyCommand, logsCommand, logCommands],
  'Act on runs:': [retryCommand, cancelCommand, adoptCommand, scatterCommands, gateCommands, limitCommands],
  'What starts runs:': [scheduleCommands, sensorCommands, eventCommands, triggerCommands],
  'Processes:': [workerCommand, engineCommand, httpCommands],
  'Look after a namespace:': [setupCommand, doctorCommand, auditCommand, diffCommand, pruneCommands, archiveCommands],
  'Check and repair:': [verifyCommand, proofCommands, rebuildCommand],
  'Other:': [completionCommand],
}

/** `isQuiet`: whoever runs it says itself what is wrong with what was typed. */
export function program(isQuiet = false): Command {
  const root = new Command('flowstone')
    .configureOutput(isQuiet ? { writeErr: () => undefined } : {})
    .description('Durable data pipelines on NATS JetStream.')
    .version(version(), '-V, --version', 'print the version')
    .showHelpAfterError('(flowstone COMMAND --help lists its options)')
    .exitOverride()
    // What is the same for all commands comes last.
    .configureHelp({ groupItems: connectionLast })
    .addHelpText(
      'after',
      `
New here? flowstone init shop && cd shop && npm install && npm run dev

Commands connect to --server, else NATS_URL, else the NATS context, else the
\`flowstone dev\` of this folder, else nats://127.0.0.1:4222.
Environment: NATS_URL, NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS,
NATS_NKEY, NATS_CA, NATS_CERT, NATS_KEY, NATS_INBOX_PREFIX, NATS_CONTEXT,
NATS_JS_DOMAIN, FLOWSTONE_NAMESPACE, FLOWSTONE_GATE_SECRETS (id:secret,…),
FLOWSTONE_BASE_URL, NO_COLOR, FORCE_COLOR.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
    )
  for (const [heading, commands] of Object.entries(GROUPS)) {
    root.commandsGroup(heading)
    for (const register of commands) register(root)
  }
  return root.helpCommand('help [command]', 'show the help of a command')
}

function connectionLast<T extends Command | Option>(
  _all: T[],
  visible: T[],
  groupOf: (item: T) => string,
): Map<string, T[]> {
  const groups = Map.groupBy(visible, groupOf)
  const last = groups.get(CONNECTION)
  if (last && groups.delete(CONNECTION)) groups.set(CONNECTION, last)
  return groups
}

function initCommand(root: Command): void {
  root
    .command('init [folder]')
    .description('write a new project: a pipeline, its test, package.json; default: into this folder')
    .option('--json', 'JSON instead of text')
    .option('--no-color', 'no colours')
    .action(async (folder: string | undefined, options: { json?: boolean }) =>
      (await import('./init/init.ts')).init(folder ?? '.', options),
    )
}

function devCommand(root: Command): void {
  measured(root.command('dev <file>'))
    .description('develop a pipeline: server, engine, worker and HTTP in one; takes new code as it is saved')
    .option('--namespace <name>', 'default: flowstone')
    .option('--port <port>', 'of the nats-server; default: any free one')
    .option('--http-port <port>', 'default: 8080, or any free one')
    .option('--http-config <file>', 'as --config of flowstone http; read once')
    .option('--concurrency <n>', 'how many pieces of code run at a time; default 10')
    .option('--no-open', 'do not open the console in the browser')
    .option('--json', 'a line of JSON for each event')
    .option('--no-color', 'no colours and no bars, as with NO_COLOR')
    .action(async (file: string, options: DevCommand) => await (await import('./dev.ts')).runDev(file, options))
}

function uiCommand(root: Command): void {
  connected(root.command('ui'))
    .description('open the console: that of the flowstone dev of this folder, or one that runs until Ctrl-C')
    .option('--port <port>', 'default: 8080, or any free one')
    .option('--role <role>', 'what you may do in it: viewer, operator or admin', 'viewer')
    .option('--no-open', 'only print the address')
    .action(async (options: UiCommand) => await (await import('./ui.ts')).runUi(options))
}

function runCommand(root: Command): void {
  connected(root.command('run <asset>'))
    .description('make an asset: start a run, follow it, print the value')
    .option(
      '--file <file>',
      'the file that declares the asset; default: that of the flowstone dev of this folder; without any, what is registered counts',
    )
    .option('--pipeline <name>', 'for an asset that is in several pipelines')
    .option('--partition <text>', 'the data partition to make')
    .option('--key <text>', 'idempotency key: the same key is the same run')
    .option('--on-failed <what>', 'when the run of that key has failed: return (default) it, or retry')
    .option('--upstream <mode>', "all, stale, missing or none; default: the pipeline's, else all")
    .option('--input <value>', 'NAME=JSON or NAME=@FILE, or a JSON object of all; may be given again', collect)
    .option('--tag <name=value>', 'a tag to find the run by; may be given again', collect)
    .option('--concurrency-key <text>', 'which runs wait for each other; default: all of the pipeline')
    .option('--concurrency-limit <n>', "how many runs of that key are active at a time; default: the pipeline's")
    .option('--on-conflict <what>', 'while there is no room: queue (default), skip, or cancel_running')
    .option(
      '--timeout <duration>',
      "longest time for the whole run, such as 90s or 2h; default: the pipeline's, else none",
    )
    .option('--no-wait', 'print the id of the run, and do not follow it')
    .action((asset: string, options: RunCommand) => runAsset(asset, options))
}

function retryCommand(root: Command): void {
  connected(root.command('retry <run>'))
    .description('try an ended run again, as a new run that takes what was made and makes the rest')
    .option('--from <asset>', 'make this asset again, and all downstream; default: what failed')
    .option('--input <value>', 'as for run: values in place of those of the earlier run', collect)
    .option('--timeout <duration>', "longest time for the whole run; default: the earlier run's")
    .option('--no-wait', 'print the id of the run, and do not follow it')
    .action((run: string, options: RetryCommand) => retryRun(run, options))
}

function cancelCommand(root: Command): void {
  connected(root.command('cancel <run>'))
    .description('end a run early; what is done stays')
    .option('--reason <text>', 'why; stands in the facts')
    .action((run: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, (flow, output) => cancelRun(flow, output, run, options.reason)),
    )
}

function statusCommand(root: Command): void {
  readable(root.command('status [run]'))
    .description('list open runs, or show one run with its assets and scatters')
    .option('--all', 'list ended runs, too')
    .option('--limit <n>', 'list at most N runs', '50')
    .option('--status <names>', 'only these, separated by commas: requested, running, succeeded, failed, cancelled')
    .option('--target <asset>', 'only runs of this asset: PIPELINE/ASSET, or ASSET if only one pipeline has it')
    .option('--tag <name=value>', 'only runs with this tag; may be given again', collect)
    .option('--partition <text>', 'only runs of this data partition')
    .option('--since <time>', 'requested since a time, or so long ago: 2h')
    .option('--after <run>', 'the next page: runs behind this one')
    .option('--watch', 'look again and again: drawn anew on a terminal, what has changed in a pipe; Ctrl-C ends it')
    .action((run: string | undefined, options: StatusCommand) => statusCommandOf(run, options))
}

function valueCommand(root: Command): void {
  readable(root.command('value <asset>'))
    .description(
      'print the newest value of an asset (PIPELINE/ASSET, or ASSET if only one has it), or the one that a run made',
    )
    .option('--partition <text>', 'of this data partition')
    .option('--run <run>', 'the value that this run made or took')
    .action((asset: string, options: ValueCommand) =>
      withReading(options, (flow, output) => showValue(flow, output, asset, options)),
    )
}

function adoptCommand(root: Command): void {
  connected(root.command('adopt <run>'))
    .description('continue an open run with the newest version of its pipeline')
    .action((run: string, options: GlobalOptions) => withFlow(options, (flow, output) => adoptRun(flow, output, run)))
}

function logCommands(root: Command): void {
  readable(root.command('log').description('read the log of facts').command('show <run>'))
    .description('list the facts of a run; with --json a line of JSON for each')
    .action((run: string, options: AtOptions) => withReading(options, (flow, output) => showHistory(flow, output, run)))
}

const HEALTH_PORT = 'answer /healthz and /readyz here; 0: any free one; default: nowhere'
const HEALTH_HOST = 'address to listen on for that; default 127.0.0.1'

function workerCommand(root: Command): void {
  measured(connected(root.command('worker <files...>')))
    .description('run the code of the pipelines that the files export')
    .option('--concurrency <n>', 'how many pieces of code run at a time; default 10')
    .option('--queues <names>', 'only these, separated by commas')
    .option('--drain <duration>', 'how long a stop waits for running code; default 30s')
    .option('--health-port <port>', HEALTH_PORT)
    .option('--health-host <address>', HEALTH_HOST)
    .action((files: string[], options: WorkerCommand) => runWorker(files, options))
}

function engineCommand(root: Command): void {
  measured(connected(root.command('engine')))
    .description('decide what happens next; run two or more, for failover')
    .option('--shards <n>', 'shards of a new namespace; default 1')
    .option('--seal-after <time>', 'how long after their end runs move to the history, or never; default 1h')
    .option(
      '--proof-key <file>',
      'the key that signs the proof of the log; default: FLOWSTONE_PROOF_KEY_FILE, else none',
    )
    .option('--no-proof', 'turn the proof off')
    .option(
      '--snapshot-every <n>',
      'how many facts are between two snapshots or changes, which --at reads; default 16000',
    )
    .option('--retain <time>', 'how long runs are kept, where asset and pipeline do not say it; default: for ever')
    .option('--retain-failed <time>', 'the same of runs that failed; default as --retain')
    .option('--archive <target>', 'where runs are archived before they are pruned: file:FOLDER, s3://BUCKET/PREFIX')
    .option('--health-port <port>', HEALTH_PORT)
    .option('--health-host <address>', HEALTH_HOST)
    .action((options: EngineCommand) => runEngine(options))
}

function setupCommand(root: Command): void {
  connected(root.command('setup'))
    .description('make the streams and buckets of a namespace, or change them')
    .option('--shards <n>', 'shards of a new namespace; default 1')
    .option('--replicas <n>', 'copies of each stream, 1 to 5; default: as it is, or 1 for a new namespace')
    .option('--feed-max-age <duration>', 'how long the feed is kept; default 7d')
    .option('--logs-max-age <duration>', 'how long lines of ctx.log are kept; default 7d')
    .option('--logs-max-bytes <n>', 'how many bytes of them are kept: the oldest go first; default 1073741824')
    .action((options: SetupCommand) => setup(options))
}

function rebuildCommand(root: Command): void {
  connected(root.command('rebuild'))
    .description('delete the state and compute it again from the log; stop all engines first')
    .action((options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const report = await flow.rebuild()
        output.result(report, () => [
          `folded ${counted(report.facts, 'fact')} in ${(report.durationMs / 1000).toFixed(1)} s`,
        ])
      }),
    )
}

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}
