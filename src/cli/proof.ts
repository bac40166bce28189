/** `flowstone proof`: keys, checkpoints, and whether the log is as it was proven. */

import { existsSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { ProofCheckpoint, ProofReport } from '../../projections/proof/findings.ts'
import { counted } from '../../streams/amounts.ts'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { newProofKey, parseProofKey } from '../../streams/proof-keys.ts'
import { type ProofVerifyOptions, verifyArchive } from '../client/proof.ts'
import { proofKey } from '../engine/proof/settings.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { fileOf } from './file-of.ts'
import { connected } from './options.ts'
import { EXIT, type Output, outputOf } from './output.ts'
import { fields, table } from './table.ts'

export interface ProofVerifyCommand extends GlobalOptions {
  readonly key?: readonly string[]
  readonly sinceCheckpoint?: string
  readonly archive?: readonly string[]
  readonly blocks?: string
}

export function proofCommands(root: Command): void {
  const proof = root.command('proof').description('check that logs were not changed; make keys and checkpoints')
  connected(proofOptions(proof.command('verify')))
    .description('find facts that were changed, removed, moved or inserted')
    .action((options: ProofVerifyCommand) => verifyByProof(options))
  connected(proof.command('checkpoint'))
    .description('print the newest block of each shard, for you to keep elsewhere')
    .action((options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const checkpoints = await flow.proof.checkpoint()
        output.result(checkpoints, () => [JSON.stringify(checkpoints, null, 2)])
      }),
    )
  connected(proof.command('export <file>'))
    .description('write all blocks to a file or s3://BUCKET/KEY, to check archives without a server')
    .action((file: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const blocks = await flow.proof.export(file)
        output.result({ to: file, blocks }, () => [`${counted(blocks, 'block')} in ${file}`])
      }),
    )
  proof
    .command('key')
    .description('print the public key of FLOWSTONE_PROOF_KEY or FLOWSTONE_PROOF_KEY_FILE, or make a new key')
    .option('--new <file>', 'make a private key, and write it to this file, which must not be there')
    .option('--json', 'the result as JSON')
    .option('--no-color', 'no colours')
    .action(({ new: file, json }: { readonly new?: string; readonly json?: boolean }) => showKey(file, json === true))
}

/** What `proof verify` and `verify --proof` take. */
export function proofOptions(command: Command): Command {
  return command
    .option('--key <key>', 'a public key that may have signed, or its file; may be given again', collect)
    .option('--since-checkpoint <file>', 'what proof checkpoint printed: these blocks must still be there')
    .option('--archive <file>', 'check this archive, and no server; may be given again', collect)
    .option('--blocks <file>', 'what proof export wrote, for --archive')
}

export async function verifyByProof(options: ProofVerifyCommand): Promise<void> {
  const wanted = wantedOf(options)
  const { archive, blocks } = options
  if (archive && blocks !== undefined) {
    sayReports(outputOf(options.json === true), await verifyArchive(archive, { ...wanted, blocks }))
    return
  }
  if (archive || blocks !== undefined)
    throw new InvalidError('--archive and --blocks go together: flowstone proof export writes the blocks')
  await withFlow(options, async (flow, output) => sayReports(output, await flow.proof.verify(wanted)))
}

function wantedOf({ key, sinceCheckpoint }: ProofVerifyCommand): ProofVerifyOptions {
  return {
    ...(key ? { keys: key.map(keyIn) } : {}),
    ...(sinceCheckpoint === undefined ? {} : { since: checkpointsIn(sinceCheckpoint) }),
  }
}

function keyIn(text: string): string {
  // A key in base64 has no dot, and 44 characters.
  if (/^[A-Za-z0-9+/]{43}=?$/.test(text)) return text
  if (text !== '-' && !existsSync(text))
    throw new InvalidError(
      `--key: ${text} is no public key (44 characters of base64), and no file; flowstone proof key prints the key`,
    )
  return fileOf('--key', text)
}

function checkpointsIn(file: string): ProofCheckpoint[] {
  try {
    const found: unknown = JSON.parse(fileOf('--since-checkpoint', file))
    if (Array.isArray(found)) return found as ProofCheckpoint[]
  } catch (error) {
    if (error instanceof InvalidError) throw error
  }
  throw new InvalidError(`--since-checkpoint: ${file} is not what flowstone proof checkpoint printed`)
}

function showKey(file: string | undefined, json: boolean): void {
  const output = outputOf(json)
  if (file === undefined) {
    const key = proofKey(undefined)
    if (!key) throw new InvalidError('no key: set FLOWSTONE_PROOF_KEY_FILE, or make one with --new FILE')
    output.result({ publicKey: key.publicKey }, () => [key.publicKey])
    return
  }
  const pem = newProofKey()
  try {
    writeFileSync(file, pem, { flag: 'wx', mode: 0o600 })
  } catch (cause) {
    throw new InvalidError(`--new: ${messageOf(cause)}`, { cause })
  }
  const { publicKey } = parseProofKey(file, pem)
  output.note(`The private key is in ${file}: start engines with FLOWSTONE_PROOF_KEY_FILE=${file}`)
  output.note('The public key, for flowstone proof verify --key:')
  output.result({ publicKey, file }, () => [publicKey])
}

export function sayReports(output: Output, reports: readonly ProofReport[]): void {
  output.result(reports, () => reports.flatMap(reportLines))
  if (reports.some(({ problems }) => problems > 0)) process.exitCode = EXIT.failed
}

function reportLines(report: ProofReport): string[] {
  const { shard, blocks, covers, facts, intact, left, newer, uncovered, gaps, signedTo, keys, findings, problems } =
    report
  const more = problems - findings.length
  return [
    ...fields({
      shard,
      blocks,
      covers: covers ? `${covers.from} to ${covers.to}` : 'nothing',
      'not covered': gaps.length > 0 ? gaps.map(({ from, to }) => `${from} to ${to}`).join(', ') : undefined,
      facts,
      intact,
      'left by rule': left,
      'without proof': uncovered > 0 ? uncovered : undefined,
      'since the last block': newer > 0 ? newer : undefined,
      signed: signedTo === undefined ? 'no' : `up to block ${signedTo}, by ${keys.join(', ')}`,
    }),
    ...(problems === 0
      ? ['nothing was changed']
      : table(
          ['problem', 'block', 'fact', 'what'],
          findings.map(({ problem, block, seq, message }) => [problem, block, seq, message]),
          '',
        )),
    ...(more > 0 ? [`… and ${more} more`] : []),
  ]
}

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}
