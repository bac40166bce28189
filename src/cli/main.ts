#!/usr/bin/env node
/** The command `flowstone`. A supervisor loads next to nothing: it lives as long as its worker. */
import { tooOld } from '../../streams/node-version.ts'
import { needsSupervisor, supervise } from './supervise.ts'

const refusal = tooOld(process.versions.node)
if (refusal !== undefined) {
  console.error(refusal)
  process.exit(1)
}
if (needsSupervisor(process.argv[2])) process.exit(await supervise(process.argv.slice(2)))
await import('./command.ts')
