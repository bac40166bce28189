import { describe, expect, it } from 'vitest'
import type { Known } from '../../projections/run/plan.ts'
import { type Earlier, planRetry, type RetryPlan } from '../../projections/run/retry.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { spec } from './harness.ts'

const of = (assets: AssetSpec[], version = 'v1'): PipelineSpec => ({ name: 'p', version, assets })
const order = spec('order', { input: { schema: {} } })
const bill = spec('bill', { dependsOn: ['order'] })
const rates = spec('rates')
const scattered = spec('scattered', {
  dependsOn: ['rates'],
  scatter: { failureMode: 'partial', threshold: { fraction: 0 }, strategy: 'individual', duplicates: 'allow' },
})
const target = spec('target', { dependsOn: ['bill', 'scattered'] })
const pipeline = of([order, bill, rates, scattered, target])
const known = (seq: number): Known => ({ value: { shard: 0, seq }, run: '0-a', hash: `h${seq}` })

function plan(of: Partial<Omit<RetryPlan, 'earlier'>> & { earlier?: Partial<Earlier> } = {}) {
  const earlier: Earlier = {
    values: new Map([
      ['bill', known(1)],
      ['rates', known(2)],
    ]),
    scatters: new Map([['scattered', { run: '0-a', total: 10 }]]),
    inputs: { order: 'one' },
    pipeline,
    ...of.earlier,
  }
  const common = { pipeline, target: 'target', upstream: 'all', from: undefined, given: { order: 'one' } } as const
  const { assets, error } = planRetry({ ...common, catalog: () => undefined, ...of, earlier })
  const told = assets.map(({ name, reuse, from, candidate, redrive }) => {
    const how = reuse
      ? `taken ${from?.why}`
      : redrive
        ? `redriven of ${redrive.total}`
        : candidate
          ? 'candidate'
          : 'made'
    return `${name} ${how}`
  })
  return error ?? told
}

describe('the plan of a run that is tried again', () => {
  it('takes what has a value, redrives the scatter that has none, and makes the rest', () => {
    expect(plan()).toEqual([
      'bill taken earlier_run',
      'rates taken earlier_run',
      'scattered redriven of 10',
      'target made',
    ])
  })

  it('makes what goes back to another input again', () => {
    expect(plan({ given: { order: 'two' } })).toEqual([
      'order made',
      'bill made',
      'rates taken earlier_run',
      'scattered redriven of 10',
      'target made',
    ])
  })

  it('makes the named asset again with all downstream, and a scatter behind it whole', () => {
    const values = new Map([...['bill', 'rates', 'scattered', 'target'].entries()].map(([i, name]) => [name, known(i)]))
    expect(plan({ from: 'rates' })).toEqual(['bill taken earlier_run', 'rates made', 'scattered made', 'target made'])
    const earlier = { values, scatters: new Map() }
    expect(plan({ from: 'scattered', earlier })).toEqual([
      'bill taken earlier_run',
      'rates taken earlier_run',
      'scattered made',
      'target made',
    ])
    expect(plan({ from: 'scattered' })).toContain('scattered redriven of 10')
  })

  it('makes again what has another shape in the new version, and its scatter whole', () => {
    const other = of(
      pipeline.assets.map((asset) => (asset.name === 'rates' ? { ...asset, shape: 'other' } : asset)),
      'v2',
    )
    expect(plan({ pipeline: other })).toEqual(['bill taken earlier_run', 'rates made', 'scattered made', 'target made'])
    const late = of(
      pipeline.assets.map((asset) => (asset.name === 'scattered' ? { ...asset, shape: 'other' } : asset)),
      'v2',
    )
    expect(plan({ pipeline: late })).toContain('scattered made')
  })

  it('says what the new version has not', () => {
    expect(plan({ pipeline: of([order, bill], 'v2') })).toMatchObject({ code: 'not_retryable' })
    expect(plan({ from: 'gone' })).toMatchObject({ code: 'not_retryable' })
    expect(plan({ given: {}, earlier: { inputs: {}, values: new Map() } })).toMatchObject({ code: 'missing_input' })
  })

  it('looks for what the earlier run did not have where the mode says so', () => {
    const earlier = { values: new Map([['bill', known(1)]]), scatters: new Map() }
    const catalog = (name: string): Known | undefined =>
      name === 'target' ? undefined : { ...known(9), fingerprint: 'f' }
    expect(plan({ upstream: 'missing', earlier, catalog })).toEqual([
      'bill taken earlier_run',
      'scattered taken present',
      'target made',
    ])
    expect(plan({ upstream: 'stale', earlier, catalog })).toEqual([
      'bill taken earlier_run',
      'rates candidate',
      'scattered candidate',
      'target made',
    ])
    expect(plan({ upstream: 'none', earlier })).toMatchObject({ code: 'missing_upstream' })
    expect(plan({ upstream: 'none', from: 'bill', earlier, catalog })).toContain('bill made')
  })
})
