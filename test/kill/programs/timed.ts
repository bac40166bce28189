/** A schedule whose functions run code, and a sensor: each in a pipeline of its own. */
import { z } from 'zod'
import { asset, input, pipeline, schedule, sensor } from '../../../src/index.ts'
import { dieHere } from './dying.ts'

const time = input('time', z.string())
const stamped = asset('stamped', {
  dependsOn: [time],
  execute: ({ partition }, deps) => [partition, deps.time],
})
const found = asset('found', { execute: ({ partition }) => partition })

function mayDie(): void {
  if (process.env.KILL_IN_CODE) dieHere()
}

const coded = schedule('coded', {
  every: '1s',
  run: stamped,
  overlap: 'queue',
  catchUp: 'all',
  partition: (at) => {
    mayDie()
    return at.toISOString()
  },
  input: (at) => ({ time: at.toISOString() }),
})
const counter = sensor('counter', {
  every: '1s',
  run: found,
  evaluate: (_ctx, cursor: number = 0) => {
    mayDie()
    const next = cursor + 1
    return { cursor: next, runs: [{ partition: `a${next}` }, { partition: `b${next}` }] }
  },
})
export const scheduled = pipeline('scheduled', [time, stamped], { schedules: [coded] })
export const sensed = pipeline('sensed', [found], { sensors: [counter] })
/** The same without them. */
export const ended = [pipeline('scheduled', [time, stamped]), pipeline('sensed', [found])]
