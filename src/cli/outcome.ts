/** Runs the command that was typed, and says how it ended. */
import { CommanderError } from 'commander'
import { EXIT, failure } from './output.ts'
import { program } from './program.ts'

/** The exit code, where it is not that of the process. `args`: behind the name of the command. */
export async function outcomeOf(args: readonly string[]): Promise<number | undefined> {
  try {
    await program().parseAsync(args, { from: 'user' })
    return undefined
  } catch (error) {
    // Commander has said already what was wrong; help and version are no errors.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    return failure(error, args.includes('--json'))
  }
}
