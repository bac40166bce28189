import { asset, connect, pipeline } from '../../../src/index.ts'
import { pino } from './pino.ts'

async function send(_city: string): Promise<number> {
  return 1
}
const cities = asset('cities', { execute: () => ['Oslo', 'Lima'] })

// #region log
const invoices = asset('invoices', {
  dependsOn: [cities],
  scatter: ({ cities }, { log }) => {
    log.info('found cities', { count: cities.length })
    return cities
  },
  execute: async ({ log, scatterKey }) => {
    log.debug('sends')
    try {
      return await send(scatterKey)
    } catch (error) {
      log.warn('no answer', { error, city: scatterKey })
      throw error
    }
  },
})
// #endregion

const flow = await connect()
await flow.engine()

// #region worker
await flow.worker(pipeline('shop', [cities, invoices]), {
  logger: pino({ level: 'info' }),
  logs: { level: 'info' }, // debug lines are not kept; `logs: false` keeps none
})
// #endregion

const run = await flow.materialize(invoices)

// #region read
for await (const { at, level, asset, index, message } of flow.logs(run.id, {
  level: 'warn',
  follow: true,
}))
  console.log(at, level, asset, index, message)
// #endregion

await flow.close()
