/** A pipeline with hooks, for the kill tests: loaded where KILL_HOOKS is set. */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../../src/index.ts'
import { dieHere } from './dying.ts'
import { note } from './pipelines.ts'

const OFTEN = { backoff: '20ms..100ms', maxAttempts: 20 } as const

export const checked = asset('checked', {
  // Its worker may be killed meanwhile: then it is tried again, and fails with its own error.
  retry: OFTEN,
  execute: (ctx) => ctx.fail(`no ${ctx.partition}`),
})

/** While the file of KILL_HOLD is there it does not end. */
async function heard(what: string): Promise<void> {
  if (process.env.KILL_IN_CODE === what) dieHere()
  note(what)
  while (existsSync(process.env.KILL_HOLD ?? '')) await sleep(10)
}

export const hookedKills = pipeline('hooked', [checked], {
  hooks: {
    retry: OFTEN,
    onRunFailed: async (_ctx, { partition, error }) => await heard(`failed ${partition} ${error.message}`),
    onRunFinished: async (_ctx, { partition, status }) => await heard(`finished ${partition} ${status}`),
  },
})
