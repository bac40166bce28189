/** Assets that start runs, for the kill tests: loaded where KILL_CHILDREN is set. */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../../src/index.ts'
import { note, quick } from './pipelines.ts'

/** Where a parent is when a test kills a process. */
export const STEPS = ['asks', 'waits', 'goes on'] as const

/** While its file is there: a test wants code to be in the middle of it. */
async function held(what: string, step: string | undefined): Promise<void> {
  note(`${what} ${step}`)
  while (step === what && existsSync(process.env.KILL_HOLD ?? '')) await sleep(10)
}

export const made = asset('made', {
  retry: quick,
  execute: async ({ partition }) => {
    await held('waits', partition)
    return `made for ${partition}`
  },
})

export const parent = asset('parent', {
  retry: quick,
  execute: async (ctx) => {
    await held('asks', ctx.partition)
    return ctx.run(made, { partition: `${ctx.partition}` })
  },
  onRun: async (ctx, { value }) => {
    await held('goes on', ctx.partition)
    return value
  },
})

export const parents = asset('parents', {
  retry: quick,
  scatter: () => [...STEPS],
  execute: async (ctx) => {
    await held('asks', ctx.scatterKey)
    return ctx.run(made, { partition: ctx.scatterKey })
  },
  onRun: async (ctx, { value }) => {
    await held('goes on', ctx.scatterKey)
    return value
  },
})

export const childKills = pipeline('child_kills', [made, parent, parents])
