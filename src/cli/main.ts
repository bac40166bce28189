#!/usr/bin/env node
/** The command `flowstone`. */
import { CommanderError } from 'commander'
import { EXIT, failure } from './output.ts'
import { program } from './program.ts'

// Whoever reads may have read enough (| head): no fault, and nobody is left to tell more.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(EXIT.ok)
})

try {
  await program().parseAsync()
} catch (error) {
  // Commander has said already what was wrong; help and version are no errors.
  process.exitCode =
    error instanceof CommanderError
      ? error.exitCode === 0
        ? EXIT.ok
        : EXIT.usage
      : failure(error, process.argv.includes('--json'))
}
