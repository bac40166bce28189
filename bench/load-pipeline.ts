/** The pipeline of the bench `load`: a scatter, three assets in a row, and a gate, on one queue. */
import { asset, type ConnectOptions, pipeline } from '../src/index.ts'
import { instanceKey, instanceValue } from './payload.ts'

export const LOAD_SETTINGS: ConnectOptions = { gates: { secrets: [{ id: 'bench', secret: 'b'.repeat(32) }] } }

/** Its partition is the number of instances. */
export const many = asset('many', {
  *scatter(_, { partition }) {
    for (let i = 0; i < Number(partition); i++) yield instanceKey(i)
  },
  execute: ({ index }) => instanceValue(index),
  async gather(results) {
    let count = 0
    for await (const _ of results) count += 1
    return count
  },
})

/** Its partition is the correlation key of its gate. */
export const waits = asset('waits', {
  execute: async (ctx) => (await ctx.openGate({ timeout: '1d', correlationKey: ctx.partition ?? '' })).wait(),
})

const first = asset('first', { execute: () => instanceValue(1) })
const second = asset('second', { dependsOn: [first], execute: () => instanceValue(2) })
export const small = asset('small', { dependsOn: [second], execute: () => instanceValue(3) })
export const loadPipeline = pipeline('load', [many, first, second, small, waits])
