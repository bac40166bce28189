/**
 * The pipeline of the logs that are kept of each version, see version-fixture.ts. Logs that are
 * kept have its hash: to change it, make another one beside it.
 *
 * It takes what declares assets, so that an older package can declare the same.
 */
import type { asset as makeAsset, pipeline as makePipeline } from '../../src/index.ts'

export const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }

export function declare({ asset, pipeline }: { asset: typeof makeAsset; pipeline: typeof makePipeline }) {
  const numbers = asset('numbers', { execute: () => [3, 1, 2] })
  const sum = asset('sum', {
    dependsOn: [numbers],
    execute: (_ctx, deps) => deps.numbers.reduce((a, b) => a + b, 0),
  })
  const large = asset('large', { execute: () => 'large '.repeat(20_000) })
  const failing = asset('failing', {
    retry: { maxAttempts: 2, backoff: '10ms' },
    execute: () => {
      throw new Error('it is broken')
    },
  })
  const many = asset('many', {
    scatter: () => Array.from({ length: 40 }, (_, i) => i),
    scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
    execute: ({ scatterKey }) => {
      if (scatterKey === 7) throw new Error('no seven')
      return scatterKey
    },
    gather: async (results) => {
      let total = 0
      for await (const result of results) if (result.status === 'ok') total += result.value
      return total
    },
  })
  const asks = asset('asks', {
    execute: (ctx) => ctx.signalGate({ timeout: Number.POSITIVE_INFINITY, correlationKey: `asks ${ctx.runId}` }),
    onSignal: (_ctx, payload) => ({ heard: payload }),
  })
  const answered = asset('answered', { dependsOn: [asks, sum], execute: (_ctx, deps) => [deps.asks, deps.sum] })
  return {
    numbers,
    sum,
    large,
    failing,
    many,
    asks,
    answered,
    all: pipeline('kept', [numbers, sum, large, failing, many, asks, answered]),
  }
}
