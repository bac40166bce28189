/** Runs the command that was typed, and ends the process with its exit code. */
import { chooseColours } from './colour.ts'
import { outcomeOf } from './outcome.ts'
import { EXIT } from './output.ts'

// The reader of standard output may have read enough (| head). A short command then just ends. A
// part that runs until it is asked to stop does not end in the middle of its work. It stops in
// order, with exit code 1, so that its supervisor starts it again.
let isClosed = false
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  if (isClosed) return
  isClosed = true
  if (process.listenerCount('SIGTERM') === 0) process.exit(EXIT.ok)
  console.error('flowstone: nobody reads standard output any more; it stops')
  process.exitCode = EXIT.failed
  process.emit('SIGTERM', 'SIGTERM')
})
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

chooseColours(process.argv.slice(2))
process.exitCode = (await outcomeOf(process.argv.slice(2))) ?? process.exitCode

// Code of the user's that was loaded may have left timers and connections behind. The command is
// over.
await new Promise<void>((resolve) => process.stdout.write('', () => resolve()))
process.exit()
