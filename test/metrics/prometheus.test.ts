import { describe, expect, it } from 'vitest'
import { METRICS, type MetricName, SERVER_METRICS } from '../../src/metrics/catalog.ts'
import { collect } from '../../src/metrics/collect.ts'
import { prometheusName, Registry } from '../../src/metrics/prometheus.ts'
import { emit } from '../../src/telemetry.ts'
import { parseMetrics, seriesValue } from '../kit/prometheus.ts'

const names = Object.keys(METRICS) as MetricName[]

describe('the catalog of metrics', () => {
  it('gives each metric a name of its own, in OpenTelemetry and in Prometheus', () => {
    expect(new Set(names.map(prometheusName)).size).toBe(names.length)
    for (const name of names) expect(name).toMatch(/^flowstone(\.[a-z_]+)+$/)
    expect(prometheusName('flowstone.run.duration')).toBe('flowstone_run_duration_seconds')
    expect(prometheusName('flowstone.runs.finished')).toBe('flowstone_runs_finished_total')
    expect(prometheusName('flowstone.stream.size')).toBe('flowstone_stream_size_bytes')
    expect(prometheusName('flowstone.limiter.slots.held')).toBe('flowstone_limiter_slots_held')
  })

  it('has bounds that rise for each histogram, and a unit that says what is counted', () => {
    for (const name of names) {
      const { kind, unit, buckets = [] } = METRICS[name]
      expect(unit, name).toMatch(kind === 'histogram' ? /^s$/ : /^(\{[a-z]+\}|By)$/)
      expect(buckets, name).toEqual([...buckets].toSorted((a, b) => a - b))
      if (kind === 'histogram') expect(buckets.length, name).toBeGreaterThan(5)
    }
  })
})

describe('the text of /metrics', () => {
  it('holds counters, gauges and histograms as Prometheus reads them', () => {
    const registry = new Registry()
    registry.add('flowstone.runs.finished', 1, { pipeline: 'p', status: 'failed' })
    registry.add('flowstone.runs.finished', 2, { pipeline: 'p', status: 'failed' })
    registry.set('flowstone.engine.active', 1, { shard: 0 })
    registry.add('flowstone.limiter.slots.held', 2)
    registry.add('flowstone.limiter.slots.held', -1)
    for (const seconds of [0.0005, 0.001, 0.002, 99])
      registry.record('flowstone.engine.checkpoint.duration', seconds, { shard: 1 })
    const parsed = parseMetrics(registry.text())
    const of = { flowstone_pipeline: 'p', flowstone_status: 'failed' }
    expect(seriesValue(parsed, 'flowstone_runs_finished_total', of)).toBe(3)
    expect(seriesValue(parsed, 'flowstone_engine_active', { flowstone_shard: '0' })).toBe(1)
    expect(seriesValue(parsed, 'flowstone_limiter_slots_held')).toBe(1)
    const bucket = (le: string) =>
      seriesValue(parsed, 'flowstone_engine_checkpoint_duration_seconds_bucket', { flowstone_shard: '1', le })
    expect([bucket('0.001'), bucket('0.0025'), bucket('10'), bucket('+Inf')]).toEqual([2, 3, 3, 4])
    expect(seriesValue(parsed, 'flowstone_engine_checkpoint_duration_seconds_sum')).toBeCloseTo(99.0035)
    // What has no attributes is there before anything happens.
    expect(seriesValue(parsed, 'flowstone_tasks_returned_total')).toBe(0)
  })

  it('escapes what a label holds', () => {
    const registry = new Registry()
    const stream = 'a"b\\c\nd'
    registry.set('flowstone.storage.full', 1, { stream })
    expect(seriesValue(parseMetrics(registry.text()), 'flowstone_storage_full', { flowstone_stream: stream })).toBe(1)
  })

  it('holds at most 2,000 series of a metric, and one more for the rest', () => {
    const registry = new Registry()
    for (let i = 0; i < 5000; i++) registry.add('flowstone.runs.requested', 1, { pipeline: `p${i}` })
    const samples = parseMetrics(registry.text()).get('flowstone_runs_requested_total')?.samples ?? []
    expect(samples).toHaveLength(2001)
    expect(samples.reduce((sum, { value }) => sum + value, 0)).toBe(5000)
    expect(samples.at(-1)?.labels).toEqual({ otel_metric_overflow: 'true' })
  })

  it('holds what was read from the server', () => {
    const samples = Object.keys(SERVER_METRICS).map((name) => ({
      name: name as keyof typeof SERVER_METRICS,
      value: 7,
      attributes: { pipeline: 'p', queue: 'q', shard: 0, stream: 's' },
    }))
    const parsed = parseMetrics(new Registry().text({ samples }))
    expect(seriesValue(parsed, 'flowstone_queue_depth', { flowstone_queue: 'q' })).toBe(7)
    for (const { name } of samples) expect(parsed.get(prometheusName(name))?.samples, name).toHaveLength(1)
  })
})

describe('what several processes count', () => {
  const said = (act: (registry: Registry) => void): unknown => {
    const registry = new Registry()
    act(registry)
    return JSON.parse(JSON.stringify(registry.counted()))
  }
  const of = { pipeline: 'p', asset: 'a', phase: 'execute', outcome: 'value' }
  const attempt = (registry: Registry, seconds: number) => registry.record('flowstone.attempt.duration', seconds, of)

  it('is shown as one: counters and sums are added, a gauge is the highest', () => {
    const registry = new Registry()
    attempt(registry, 0.004)
    registry.add('flowstone.tasks.returned', 1)
    const one = said((other) => {
      attempt(other, 0.02)
      other.add('flowstone.tasks.returned', 2)
      other.add('flowstone.limiter.slots.held', 3)
      other.set('flowstone.connection.away', 1)
    })
    registry.show('one', one)
    registry.show('one', one)
    registry.show(
      'two',
      said((other) => attempt(other, 7)),
    )
    const read = (name: string, labels = {}) => seriesValue(parseMetrics(registry.text()), name, labels)
    const bucket = (le: string) => read('flowstone_attempt_duration_seconds_bucket', { le })
    expect(['0.005', '0.025', '5', '10', '+Inf'].map(bucket)).toEqual([1, 2, 2, 3, 3])
    expect(read('flowstone_tasks_returned_total')).toBe(3)
    expect(read('flowstone_limiter_slots_held')).toBe(3)
    expect(read('flowstone_connection_away')).toBe(1)
    registry.hasEnded('one')
    registry.hasEnded('one')
    expect(read('flowstone_attempt_duration_seconds_count')).toBe(3)
    expect(read('flowstone_tasks_returned_total')).toBe(3)
    expect(read('flowstone_limiter_slots_held')).toBe(0)
    expect(read('flowstone_connection_away')).toBe(0)
  })

  it('leaves out what is no count', () => {
    const registry = new Registry()
    const text = registry.text()
    for (const none of [undefined, 'x', [1], [{ name: 'flowstone.other', labels: '', value: 1, counts: [], count: 0 }]])
      registry.show('one', none)
    expect(registry.text()).toBe(text)
  })
})

it('what happens is counted until the counting ends', () => {
  const registry = new Registry()
  const end = collect(registry)
  const run = { engine: 'e', run: '0-a', pipeline: 'p', target: 't', traceparent: '' }
  const lease = { worker: 'w', run: '0-a', pipeline: 'p', asset: 'a', durationMs: 20 }
  emit('flowstone:run.requested', run)
  // Calls of hooks are no runs that somebody has asked for.
  const call = { ...run, target: 'hook__late', internal: true } as const
  emit('flowstone:run.requested', call)
  emit('flowstone:run.finished', { ...call, status: 'failed', durationMs: 9000 })
  const failed = { flowstone_pipeline: 'p', flowstone_status: 'failed' }
  expect(seriesValue(parseMetrics(registry.text()), 'flowstone_runs_finished_total', failed)).toBe(0)
  emit('flowstone:run.finished', { ...run, status: 'succeeded', durationMs: 1500 })
  emit('flowstone:lease.stop', { ...lease, instances: 9, succeeded: 7, failed: 2, suspended: 0, returned: 0 })
  emit('flowstone:connection.away', { server: 's' })
  end()
  emit('flowstone:run.finished', { ...run, status: 'succeeded', durationMs: 1500 })
  const parsed = parseMetrics(registry.text())
  expect(seriesValue(parsed, 'flowstone_runs_requested_total')).toBe(1)
  expect(seriesValue(parsed, 'flowstone_runs_finished_total')).toBe(1)
  expect(seriesValue(parsed, 'flowstone_run_duration_seconds_sum')).toBe(1.5)
  expect(seriesValue(parsed, 'flowstone_instances_ended_total', { flowstone_outcome: 'succeeded' })).toBe(7)
  expect(seriesValue(parsed, 'flowstone_instances_ended_total', { flowstone_outcome: 'failed' })).toBe(2)
  expect(seriesValue(parsed, 'flowstone_instances_ended_total', { flowstone_outcome: 'returned' })).toBeUndefined()
  expect(seriesValue(parsed, 'flowstone_connection_away')).toBe(1)
})
