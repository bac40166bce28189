#!/usr/bin/env node
/** The command `flowstone`. A supervisor loads next to nothing: it lives as long as its worker. */
import { needsSupervisor, supervise } from './supervise.ts'

if (needsSupervisor(process.argv[2])) process.exit(await supervise(process.argv.slice(2)))
await import('./command.ts')
