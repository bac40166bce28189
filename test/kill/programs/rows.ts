/** Assets that follow one another: one task brings all of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../../src/index.ts'
import { note, quick } from './pipelines.ts'

const pauseMs = Number(process.env.KILL_STEP_MS ?? 0)

async function step(name: string, attempt: number): Promise<string> {
  note(`${name} ${attempt}`)
  await sleep(pauseMs)
  return name
}

const one = asset('one', { retry: quick, execute: (ctx) => step('one', ctx.attempt) })
const two = asset('two', {
  retry: quick,
  dependsOn: [one],
  execute: async (ctx, deps) => `${deps.one} ${await step('two', ctx.attempt)}`,
})
export const three = asset('three', {
  retry: quick,
  dependsOn: [two],
  execute: async (ctx, deps) => `${deps.two} ${await step('three', ctx.attempt)}`,
})

export const rows = pipeline('rows', [one, two, three])
