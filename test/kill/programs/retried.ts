/** A run that fails while KILL_BROKEN is there, and may be tried again afterwards. */
import { existsSync } from 'node:fs'
import { asset, pipeline } from '../../../src/index.ts'
import { note } from './pipelines.ts'

const retry = { maxAttempts: 1 }

const bill = asset('bill', {
  execute: () => {
    note('bill')
    return 'bill'
  },
})
const work = asset('work', {
  retry,
  scatter: () => [0, 1, 2, 3],
  scatterOptions: { retry, failureMode: 'partial', failureThreshold: { count: 0 } },
  execute: ({ scatterKey }) => {
    note(`work ${scatterKey}`)
    if (scatterKey === 2 && existsSync(process.env.KILL_BROKEN ?? '')) throw new Error('broken')
    return scatterKey * 10
  },
})
export const letter = asset('letter', {
  dependsOn: [bill, work],
  execute: (_, deps) => {
    note('letter')
    return `${deps.bill}: ${deps.work.map(({ value }) => value)}`
  },
})
export const retriedKills = pipeline('retried', [bill, work, letter])
