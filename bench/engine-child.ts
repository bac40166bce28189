/**
 * An engine in a process of its own, as `flowstone engine` is. Each line is a namespace to be at
 * work in from now on, and no longer in the one before; an empty one: in none.
 */
import { createInterface } from 'node:readline'
import { connect, type Flow } from '../src/index.ts'

const url = process.argv.at(-1) ?? ''
let flow: Flow | undefined
for await (const namespace of createInterface({ input: process.stdin })) {
  await flow?.close()
  flow = undefined
  if (namespace !== '') {
    flow = await connect({ servers: url, namespace })
    const engine = await flow.engine()
    await engine.active
  }
  process.stdout.write('ready\n')
}
await flow?.close()
