/**
 * An engine that starts once, in a process of its own, and says how long that took and how many
 * messages it read. The time to load the code is not counted.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { Flow } from '../src/client/flow.ts'
import { Namespace } from '../src/client/namespace.ts'
import { Connection } from '../src/log/connection.ts'
import { quietLogger } from '../src/telemetry.ts'
import { type Started, WINDOW_MS } from './start.ts'

const settings = z.object({ url: z.string(), namespace: z.string(), run: z.string() })
const { url, namespace, run } = settings.parse(JSON.parse(process.argv.at(-1) ?? ''))

const watching = await Connection.open({ servers: url })
const decided = Promise.withResolvers<void>()
watching.nc.subscribe(`${namespace}.work.0.>`, {
  callback: (_, message) => {
    if (message.headers?.get('Fs-Task').startsWith(run)) decided.resolve()
  },
})
await watching.nc.flush()

// As `connect` does, with a connection that can be asked what it has read.
const startedMs = performance.now()
const connection = await Connection.open({ servers: url })
const found = new Namespace(connection, { namespace }, quietLogger)
await found.look()
await using flow = new Flow(connection, found, {})
const engine = await flow.engine()
await engine.active
const activeMs = performance.now() - startedMs
await decided.promise
const decidedMs = performance.now() - startedMs
const read = connection.nc.stats().inMsgs
await sleep(Math.max(0, WINDOW_MS - decidedMs))
const started: Started = { activeMs, decidedMs, read, readInWindow: connection.nc.stats().inMsgs }
await engine.stop()
process.stdout.write(`${JSON.stringify(started)}\n`)
await watching.close()
