import { context, type SpanContext, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import {
  AlwaysOnSampler,
  InMemorySpanExporter,
  ParentBasedSampler,
  SimpleSpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { METRICS, SERVER_METRICS } from '../../src/metrics/catalog.ts'
import { type InstrumentOptions, instrument } from '../../src/otel/index.ts'
import { OtelMetrics } from '../../src/otel/meter.ts'
import { emit } from '../../src/telemetry.ts'
import { type TracedSpan, type Tracing, tracing } from '../../src/tracing.ts'
import { partSpan, runSpan } from '../../streams/trace.ts'

const contexts = new AsyncLocalStorageContextManager().enable()
beforeAll(() => {
  context.setGlobalContextManager(contexts)
})
afterAll(() => {
  context.disable()
})

const of = { namespace: 'shop', run: '0-abc' }
const what = (part: string): TracedSpan => ({
  name: part,
  of,
  span: partSpan(of, part),
  parent: runSpan(of),
  attributes: { 'flowstone.asset': 'a', 'flowstone.partition': undefined },
})
const run: TracedSpan = { name: 'run', of, span: runSpan(of), parent: undefined, attributes: {} }

/** What was exported, once the process has an instrument with these options. */
function spansOf(options: InstrumentOptions, act: (traced: Tracing) => void) {
  const exporter = new InMemorySpanExporter()
  const tracerProvider = new TracerProvider({
    sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
    spanProcessors: [new SimpleSpanProcessor({ exporter })],
  })
  using _on = instrument({ tracerProvider, meterProvider: false, ...options })
  const traced = tracing()
  if (!traced) throw new Error('not instrumented')
  act(traced)
  return exporter.getFinishedSpans()
}

describe('a span', () => {
  it('has the ids that follow from what it is of, and a first one has no parent', () => {
    const [part, first] = spansOf({}, (traced) => {
      traced.begin(what('attempt.a.1')).end()
      traced.record(run, 1_700_000_000_000, 1_700_000_002_000)
    })
    const { traceId, spanId } = runSpan(of)
    expect(first?.spanContext()).toMatchObject({ traceId, spanId })
    expect(first?.parentSpanContext).toBeUndefined()
    expect(first?.startTime[0]).toBe(1_700_000_000)
    expect(first?.duration).toEqual([2, 0])
    expect(part?.spanContext()).toMatchObject({ traceId, spanId: partSpan(of, 'attempt.a.1').spanId })
    expect(part?.parentSpanContext).toMatchObject({ traceId, spanId })
    expect(part?.attributes).toEqual({ 'flowstone.asset': 'a' })
  })

  it('is active in the code that runs in it, and only there', async () => {
    let seen: SpanContext | undefined
    let later: Promise<SpanContext | undefined> | undefined
    const [inner] = spansOf({}, (traced) => {
      const span = traced.begin(what('attempt.a.1'))
      span.run(() => {
        seen = trace.getActiveSpan()?.spanContext()
        expect(traced.active()?.traceparent).toContain(partSpan(of, 'attempt.a.1').spanId)
        later = Promise.resolve().then(() => trace.getActiveSpan()?.spanContext())
      })
      expect(traced.active()).toBeUndefined()
      span.end()
    })
    expect(seen?.spanId).toBe(inner?.spanContext().spanId)
    expect((await later)?.spanId).toBe(inner?.spanContext().spanId)
  })

  it.each([
    ['an error', new TypeError('no'), 'TypeError', 'no'],
    ['an error with a code', Object.assign(new Error('no'), { code: 'ENOENT' }), 'ENOENT', 'no'],
    ['what the log has of one', { code: 'timeout', message: 'late' }, 'timeout', 'late'],
    ['a text', 'broken', 'Error', 'broken'],
    ['nothing', null, 'Error', 'null'],
  ])('records %s as an exception', (_, thrown, type, message) => {
    const [span] = spansOf({}, (traced) => traced.begin(what('attempt.a.1')).end({}, thrown))
    expect(span?.status).toMatchObject({ code: 2, message })
    expect(span?.attributes['error.type']).toBe(type)
    expect(span?.events).toMatchObject([{ name: 'exception', attributes: { 'exception.message': message } }])
  })

  it('is left out where the requester, or the share of runs, says so', () => {
    const unsampled = { ...of, trace: { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00` } }
    const asked = { ...what('attempt.a.1'), of: unsampled, span: partSpan(unsampled, 'x'), parent: runSpan(unsampled) }
    expect(spansOf({}, (traced) => traced.begin(asked).end())).toEqual([])
    const sampled = { ...unsampled, trace: { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` } }
    const wanted = { ...asked, of: sampled, span: partSpan(sampled, 'x'), parent: runSpan(sampled) }
    expect(spansOf({ sampleRuns: 0 }, (traced) => traced.begin(wanted).end())).toHaveLength(1)
    expect(spansOf({ sampleRuns: 0 }, (traced) => traced.record(run, 1, 2))).toEqual([])
    const share = spansOf({ sampleRuns: 0.25 }, (traced) => {
      for (let i = 0; i < 1000; i++) {
        const other = { namespace: 'shop', run: `0-${i}` }
        traced.record({ ...run, of: other, span: runSpan(other) }, 1, 2)
      }
    })
    expect(share.length).toBeGreaterThan(180)
    expect(share.length).toBeLessThan(320)
  })

  it('that cannot be made fails nothing', () => {
    const broken = () => {
      throw new Error('broken')
    }
    const processor = { onStart: broken, onEnd: broken, forceFlush: async () => {}, shutdown: async () => {} }
    for (const one of [processor, { ...processor, onStart: () => {} }]) {
      const tracerProvider = new TracerProvider({ spanProcessors: [one] })
      spansOf({ tracerProvider }, (traced) => {
        const span = traced.begin(what('attempt.a.1'))
        expect(span.run(() => traced.active()?.traceparent)).toContain(partSpan(of, 'attempt.a.1').spanId)
        span.end({}, new Error('no'))
        traced.record(run, 1, 2)
      })
    }
  })

  it('of an instance is sampled alike by all processes', () => {
    spansOf({ sampleInstances: 0.1 }, (traced) => {
      const sampled = Array.from({ length: 1000 }, (_, i) => traced.isSampled(of, 'a', i))
      const count = sampled.filter(Boolean).length
      expect(count).toBeGreaterThan(60)
      expect(count).toBeLessThan(150)
      expect(Array.from({ length: 1000 }, (_, i) => traced.isSampled(of, 'a', i))).toEqual(sampled)
    })
    spansOf({}, (traced) => expect(traced.isSampled(of, 'a', 0)).toBe(false))
  })
})

it('a meter that throws harms nobody who emits', () => {
  const add = (): never => {
    throw new Error('the exporter is broken')
  }
  const instruments = { add, record: add }
  const meter = new Proxy(new MeterProvider().getMeter('x'), { get: () => () => instruments })
  const counted = new OtelMetrics(meter)
  counted.add('flowstone.tasks.lost', 1, { kind: 'lease' })
  counted.set('flowstone.connection.away', 1)
  counted.record('flowstone.worker.blocked.duration', 1)
})

it('metrics have their names, units and attributes', async () => {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
  const meterProvider = new MeterProvider({ readers: [reader] })
  const load = { queues: [], unmatched: 3, triggers: 0, workers: { p: 2 }, streams: [] }
  const flow = { inspect: { shards: async () => [], load: async () => load } }
  using _on = instrument({ tracerProvider: false, meterProvider, flow })
  emit('flowstone:task.received', { worker: 'w', task: 't', kind: 'lease', delivery: 1 })
  emit('flowstone:worker.blocked', { worker: 'w', blockedMs: 2000, assets: [] })
  emit('flowstone:engine.active', { engine: 'e', shard: 1, seq: 0 })
  await meterProvider.forceFlush()
  const metrics = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((scope) => scope.metrics))
  const pointOf = (name: string) => {
    const { descriptor, dataPoints } = metrics.find((metric) => metric.descriptor.name === name) ?? {}
    return { unit: descriptor?.unit, attributes: dataPoints?.[0]?.attributes, value: dataPoints?.[0]?.value }
  }
  expect(pointOf('flowstone.tasks.received')).toEqual({
    unit: '{task}',
    attributes: { 'flowstone.kind': 'lease' },
    value: 1,
  })
  expect(pointOf('flowstone.engine.active')).toMatchObject({ attributes: { 'flowstone.shard': 1 }, value: 1 })
  expect(pointOf('flowstone.worker.blocked.duration')).toMatchObject({
    unit: 's',
    value: { sum: 2, count: 1, buckets: { boundaries: METRICS['flowstone.worker.blocked.duration'].buckets } },
  })
  expect(pointOf('flowstone.queue.unmatched')).toMatchObject({ value: 3 })
  expect(pointOf('flowstone.workers')).toMatchObject({ attributes: { 'flowstone.pipeline': 'p' }, value: 2 })
  expect(Object.keys(SERVER_METRICS)).toContain('flowstone.server.readable')
  expect(pointOf('flowstone.server.readable')).toMatchObject({ value: 1 })
})

it('instrument refuses bad options, and to be called twice, by name', () => {
  const wrong = (options: object) => () => instrument(options)
  expect(wrong({ sampleRuns: 2 })).toThrow('instrument: sampleRuns must be a number from 0 to 1, got 2')
  expect(wrong({ sampleInstances: '1' })).toThrow('instrument: sampleInstances must be')
  expect(wrong({ tracerProvider: {} })).toThrow('instrument: tracerProvider must have getTracer')
  expect(wrong({ flow: {} })).toThrow('instrument: flow must be a flow')
  expect(wrong({ sample: 1 })).toThrow('sample')
  using _on = instrument({ meterProvider: false })
  expect(wrong({})).toThrow('it was called before in this process')
})
