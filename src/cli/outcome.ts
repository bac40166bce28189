/** Runs the command that was typed, and says how it ended. */
import { type Command, CommanderError } from 'commander'
import { InvalidError } from '../../streams/errors.ts'
import { asTyped } from './as-typed.ts'
import { EXIT, failure } from './output.ts'
import { program } from './program.ts'

/** The exit code, where it is not that of the process. `args`: behind the name of the command. */
export async function outcomeOf(args: readonly string[]): Promise<number | undefined> {
  const isJson = args.includes('--json')
  let typed: Command | undefined
  try {
    await program(isJson)
      .hook('preAction', (_, command) => {
        typed = command
      })
      .parseAsync(args, { from: 'user' })
    return undefined
  } catch (error) {
    if (!(error instanceof CommanderError)) return failure(asTyped(error, typed), isJson)
    // Help and version are no errors.
    if (error.exitCode === 0) return EXIT.ok
    // As text, commander has said it.
    return isJson ? failure(usageError(error), true) : EXIT.usage
  }
}

function usageError({ code, message }: CommanderError): InvalidError {
  const text = code === 'commander.help' ? 'no command was named' : message.replace(/^error: /, '')
  return new InvalidError(`${text}; flowstone COMMAND --help lists what it takes`)
}
