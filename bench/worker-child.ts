/**
 * A worker of the pipeline `three` in a process of its own. It is spoken to as `engine-child.ts`
 * is: each line is a namespace to work in from now on.
 */
import { createInterface } from 'node:readline'
import { connect, type Flow } from '../src/index.ts'
import { threeAssets } from './three-assets.ts'

const url = process.argv.at(-1) ?? ''
let flow: Flow | undefined
for await (const namespace of createInterface({ input: process.stdin })) {
  await flow?.close()
  flow = undefined
  if (namespace !== '') {
    flow = await connect({ servers: url, namespace })
    await flow.worker(threeAssets)
  }
  process.stdout.write('ready\n')
}
await flow?.close()
