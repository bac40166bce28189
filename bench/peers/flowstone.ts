/** FlowStone: engine, worker and callers in this process, as the others' workers and callers. */
import { asset, connect, pipeline } from '../../src/index.ts'
import { instanceKey, instanceValue } from '../payload.ts'
import { startRig } from '../rig.ts'
import { third, threeAssets } from '../three-assets.ts'
import type { Works } from './peer.ts'
import { register } from './servers.ts'

export async function begin(): Promise<Works> {
  await using stack = new AsyncDisposableStack()
  const rig = stack.use(register(await startRig('always')))
  let size = 0
  const instances = asset('instances', {
    scatter: () => Array.from({ length: size }, (_, i) => instanceKey(i)),
    execute: (ctx) => instanceValue(ctx.index),
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  const flow = stack.use(await connect({ servers: rig.url, namespace: 'peers' }))
  const engine = await flow.engine()
  await flow.worker(pipeline('instances', [instances]))
  await flow.worker(threeAssets)
  await engine.active
  const open = stack.move()
  return {
    version: `nats-server ${rig.serverVersion}`,
    async fanOut(n) {
      size = n
      return await (await flow.materialize(instances)).result()
    },
    async threeSteps() {
      await (await flow.materialize(third)).result()
    },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  }
}
