import { expect, test } from 'vitest'
import type { Effect } from '../../projections/effects.ts'
import { DecidedBefore } from '../../src/engine/shard/decided-before.ts'
import { factPath } from '../../streams/facts.ts'
import { assetName, runId } from '../../streams/ids.ts'

const run = runId(0, 'a')
const ids = { pipeline: 'p', run, asset: assetName('x') }
const skipped = {
  do: 'fact',
  fact: { name: 'asset.cancelled', ids, data: { run, asset: 'x', pipeline: 'p', reason: 'why' } },
} as const satisfies Effect

test('a decision waits until its place on the log is taken, by whatever end', () => {
  const decided = new DecidedBefore()
  expect(decided.hold(skipped, 1)).toBe(true)
  decided.see(factPath('asset.materialized', { ...ids, asset: 'y' }))
  decided.see(undefined)
  expect(decided.take()).toEqual([{ effect: skipped, timeMs: 1 }])
  expect(decided.take()).toEqual([])
  expect(decided.hold(skipped, 2)).toBe(true)
  decided.see(factPath('asset.materialized', ids))
  expect(decided.take()).toEqual([])
})

test('what is no fact, or may stand on the log more than once, does not wait', () => {
  const decided = new DecidedBefore()
  expect(decided.hold({ do: 'plan', run }, 1)).toBe(false)
  const outcomes = { name: 'scatter.outcomes', ids: { run, asset: assetName('x') }, data: {} }
  expect(decided.hold({ do: 'fact', fact: outcomes } as unknown as Effect, 1)).toBe(false)
  expect(decided.take()).toEqual([])
})
