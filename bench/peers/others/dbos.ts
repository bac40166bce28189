/**
 * DBOS: a workflow enqueues one for each instance and waits for all of them. It sees that they have
 * ended and does not read their values, which would be one more commit for each. Three steps are a
 * workflow of three steps, called in this process.
 */
import { DBOS } from '@dbos-inc/dbos-sdk'
import { type InstanceKey, instanceKey, instanceValue } from '../../payload.ts'
import type { Works } from '../peer.ts'
import { startPostgres } from '../servers.ts'

const QUEUE = 'instances'
const DEQUEUE_MS = 50
const WAIT_MS = 200

export async function begin(): Promise<Works> {
  await using stack = new AsyncDisposableStack()
  const postgres = stack.use(await startPostgres())
  DBOS.setConfig({
    name: 'peers',
    systemDatabaseUrl: postgres.url.replace('/postgres', '/dbos'),
    systemDatabasePoolSize: 20,
    logLevel: 'error',
  })
  const instance = DBOS.registerWorkflow(async (_key: InstanceKey) => instanceValue(1), { name: 'instance' })
  const fanOut = DBOS.registerWorkflow(
    async (n: number) => {
      const start = DBOS.startWorkflow(instance, { queueName: QUEUE })
      const handles = await Promise.all(Array.from({ length: n }, (_, i) => start(instanceKey(i))))
      return (await DBOS.waitAll(handles, { pollingIntervalMs: WAIT_MS })).length
    },
    { name: 'fanOut' },
  )
  const threeSteps = DBOS.registerWorkflow(
    async () => {
      for (const step of [1, 2, 3]) await DBOS.runStep(async () => instanceValue(step), { name: `step-${step}` })
    },
    { name: 'threeSteps' },
  )
  stack.defer(() => DBOS.shutdown({ deregister: true }))
  await DBOS.launch()
  await DBOS.registerQueue(QUEUE, { minPollingIntervalMs: DEQUEUE_MS })
  const open = stack.move()
  return {
    version: postgres.version,
    fanOut: (n) => fanOut(n),
    threeSteps: () => threeSteps(),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  }
}
