import { deepEqual, equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

let isFixed = false
const sizes = asset('sizes', {
  scatter: () => ['/a', '/b', '/c'],
  scatterOptions: {
    failureMode: 'partial',
    failureThreshold: { count: 1 },
    retry: { maxAttempts: 1 },
  },
  execute: (ctx) =>
    ctx.scatterKey === '/b' && !isFixed ? ctx.fail('no such page') : ctx.scatterKey.length,
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [sizes]))
const run = await flow.materialize(sizes)
await waitFor(() => flow.scatter.status(`${run.id}.sizes`))
// #region operate
const id = `${run.id}.sizes` // of the scatter: <run>.<asset>
const { running, waitingFor, estimatedEnd } = await flow.scatter.status(id)
console.log(running, waitingFor, estimatedEnd)

await flow.scatter.pause(id, 'the site is down') // begins no other instance
await flow.scatter.resume(id)
// #endregion
equal((await run.result()).length, 2)
isFixed = true
// #region redrive
for await (const { key, error } of flow.scatter.failures(id)) console.log(key, error.message)

const redriven = await flow.scatter.redrive(id) // a new run, of what did not succeed
console.log(await redriven.result())
// #endregion
deepEqual(await redriven.result(), [
  { key: '/a', value: 2 },
  { key: '/b', value: 2 },
  { key: '/c', value: 2 },
])
await flow.close()

/** A scatter has a status from its first key on. */
async function waitFor<T>(look: () => Promise<T>): Promise<T> {
  for (let looks = 0; ; looks++) {
    try {
      return await look()
    } catch (error) {
      if (looks > 200) throw error
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}
