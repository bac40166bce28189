/** `flowstone verify`: does all that there is agree with the log? */
import type { Command } from 'commander'
import { count, counted, percent } from '../../streams/amounts.ts'
import { InvalidError } from '../../streams/errors.ts'
import type { Flow } from '../client/flow.ts'
import type { VerifyFinding, VerifyProgress, VerifyReport } from '../engine/verify/report.ts'
import type { VerifyOptions } from '../engine/verify/verify.ts'
import { withFlow } from './context.ts'
import { connected } from './options.ts'
import { EXIT, type Output } from './output.ts'
import { wholeNumber } from './parts.ts'
import { type ProofVerifyCommand, proofOptions, verifyByProof } from './proof.ts'
import { isLive, openScreen } from './screen.ts'

const PROGRESS_MS = 1000
const DRAW_MS = 100

interface VerifyCommand extends ProofVerifyCommand {
  readonly proof?: boolean
  readonly only?: string
  readonly rate?: string
  readonly limit?: string
}

export function verifyCommand(root: Command): void {
  connected(
    proofOptions(
      root.command('verify').option('--proof', 'compare logs and history with their proof, and nothing else'),
    ),
  )
    .description('compare state, history, values and open work with the log; only reads')
    .option('--only <checks>', 'only these checks, separated by commas: state, facts, history, values, open')
    .option('--rate <n>', 'read at most N messages a second; default 20000')
    .option('--limit <n>', 'list at most N findings; default 1000')
    .action(async (options: VerifyCommand) => {
      if (isByProof(options)) return await verifyByProof(options)
      const wanted = optionsOf(options)
      await withFlow(options, async (flow, output) => {
        const report = await verifyWith(flow, wanted, output)
        output.result(report, () => reportLines(report))
        if (!report.ok) process.exitCode = EXIT.failed
      })
    })
}

/** How far it is: drawn anew on a terminal, else a line each second. */
async function verifyWith(flow: Flow, wanted: VerifyOptions, output: Output): Promise<VerifyReport> {
  using screen = !output.json && isLive(process.stderr) ? await openScreen(process.stderr) : undefined
  const say = (progress: VerifyProgress): void => {
    if (screen) screen.draw([progressLine(progress)])
    else output.note(progressLine(progress))
  }
  try {
    return await flow.verify({ ...wanted, onProgress: every(screen ? DRAW_MS : PROGRESS_MS, say) })
  } finally {
    screen?.draw([])
  }
}

function isByProof({ proof, key, sinceCheckpoint, archive, blocks, only, rate, limit }: VerifyCommand): boolean {
  if (proof && (only ?? rate ?? limit) !== undefined)
    throw new InvalidError('--proof reads all, and lists all: it takes no --only, --rate and --limit')
  if (proof) return true
  if (key || sinceCheckpoint !== undefined || archive || blocks !== undefined)
    throw new InvalidError('--key, --since-checkpoint, --archive and --blocks need --proof')
  return false
}

function optionsOf({ only, rate, limit }: VerifyCommand): VerifyOptions {
  return {
    // What it is not is refused by its name.
    ...(only === undefined ? {} : { only: only.split(',').map((name) => name.trim()) as VerifyOptions['only'] & {} }),
    ...(rate === undefined ? {} : { rate: wholeNumber('--rate', rate) }),
    ...(limit === undefined ? {} : { limit: wholeNumber('--limit', limit) }),
  }
}

/** Calls at most so often. */
function every<T>(ms: number, call: (value: T) => void): (value: T) => void {
  let dueMs = performance.now() + ms
  return (value) => {
    if (performance.now() < dueMs) return
    dueMs = performance.now() + ms
    call(value)
  }
}

function progressLine({ shard, step, done, total }: VerifyProgress): string {
  const of = total === undefined ? '' : ` of ${count(total)}, ${percent(done, total, 0)}`
  return `shard ${shard}: ${step}, ${count(done)}${of}`
}

function reportLines(report: VerifyReport): string[] {
  const { findings, more, checks, notes, facts, durationMs } = report
  const found = findings.length + more
  return [
    ...findings.flatMap(findingLines),
    ...(more > 0 ? [`… and ${more} more`] : []),
    ...checks.map(({ check, shard, looked }) => {
      const counts = Object.entries(looked).map(([name, count]) => `${name} ${count}`)
      return `${check.padEnd(8)} ${shard === undefined ? '' : `shard ${shard}: `}${counts.join(', ')}`
    }),
    ...notes,
    `${found === 0 ? 'nothing differs' : counted(found, 'finding')}${notes.length === 0 ? '' : ', and not all could be looked at'}; ${counted(facts, 'message')} of the log in ${(durationMs / 1000).toFixed(1)} s`,
  ]
}

function findingLines({ check, kind, shard, message, advice }: VerifyFinding): string[] {
  const where = shard === undefined ? '' : ` shard ${shard}:`
  return [`${check}: ${kind}:${where} ${message}`, `  ${advice}`]
}
