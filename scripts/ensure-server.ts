// Gets a nats-server if none is there. Part of setup.mjs, in a file of its own because it needs a
// Node that runs TypeScript.
import { ensureNatsServer } from '../src/server/index.ts'
import { messageOf } from '../streams/errors.ts'

try {
  await ensureNatsServer()
} catch (error) {
  process.stderr.write(`flowstone: ${messageOf(error)}\n`)
  process.exitCode = 1
}
