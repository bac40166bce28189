/**
 * What a process of a bench does that works in one namespace after the other. Each line is the
 * namespace to work in from now on, and no longer in the one before. An empty line: in none.
 */
import { createInterface } from 'node:readline'
import { type ConnectOptions, connect, type Flow } from '../src/index.ts'

export async function workInNamespaces(
  begin: (flow: Flow) => Promise<unknown>,
  settings: ConnectOptions = {},
): Promise<void> {
  const url = process.argv.at(-1) ?? ''
  let flow: Flow | undefined
  for await (const namespace of createInterface({ input: process.stdin })) {
    await flow?.close()
    flow = undefined
    if (namespace !== '') {
      flow = await connect({ ...settings, servers: url, namespace })
      await begin(flow)
    }
    process.stdout.write('ready\n')
  }
  await flow?.close()
}
