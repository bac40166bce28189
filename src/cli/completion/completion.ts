/** `flowstone completion`: a script for a shell, and the names that it asks for. */
import type { Command } from 'commander'
import { InvalidError } from '../../../streams/errors.ts'
import { type GlobalOptions, open } from '../context.ts'
import { connected } from '../options.ts'
import { outputOf } from '../output.ts'

/** Somebody has pressed a key and waits. */
const PATIENCE_MS = 2000

interface CompletionCommand extends GlobalOptions {
  readonly names?: string
}

export function completionCommand(root: Command): void {
  connected(root.command('completion [shell]'))
    .description('print the script that completes commands and names in bash, zsh or fish')
    .option('--names <kind>', 'print names in place of the script, which calls this: run, asset, gate, …')
    .action((shell: string | undefined, options: CompletionCommand) =>
      options.names === undefined ? printScript(root, shell) : printNames(options.names, options),
    )
}

async function printScript(root: Command, shell: string | undefined): Promise<void> {
  const [{ SHELLS }, { placesOf }] = await Promise.all([import('./shells.ts'), import('./tree.ts')])
  if (shell !== 'bash' && shell !== 'zsh' && shell !== 'fish')
    throw new InvalidError(
      `completion: name the shell: bash, zsh or fish${shell === undefined ? '' : `, not ${shell}`}`,
    )
  process.stdout.write(SHELLS[shell](placesOf(root)))
}

/** Without a server there is nothing to complete. That is no error: nobody would see it. */
async function printNames(given: string, options: GlobalOptions): Promise<void> {
  const [{ namesOf }, { NAME_KINDS }] = await Promise.all([import('./names.ts'), import('./tree.ts')])
  const kind = NAME_KINDS.find((one) => one === given)
  if (!kind) throw new InvalidError(`--names must be one of ${NAME_KINDS.join(', ')}, got ${given}`)
  const ask = async (): Promise<readonly string[]> => {
    await using flow = await open(options)
    return await namesOf(flow, kind)
  }
  const { promise: late, resolve } = Promise.withResolvers<readonly string[]>()
  const timer = setTimeout(() => resolve([]), PATIENCE_MS)
  const names = await Promise.race([ask().catch(() => []), late])
  clearTimeout(timer)
  outputOf(options.json === true).result(names, () => names)
}
