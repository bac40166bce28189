/** Metrics by OpenTelemetry. */
import type { Counter, Gauge, Histogram, Meter as OtelMeter, UpDownCounter } from '@opentelemetry/api'
import {
  type Attributes,
  attributeName,
  type Meter,
  PROCESS_METRICS,
  type ProcessMetric,
  SERVER_METRICS,
} from '../metrics/catalog.ts'
import type { ServerMetrics } from '../metrics/server.ts'
import { guarded } from './spans.ts'

export class OtelMetrics implements Meter {
  readonly #counters = new Map<string, Counter | UpDownCounter>()
  readonly #histograms = new Map<string, Histogram>()
  readonly #gauges = new Map<string, Gauge>()

  constructor(meter: OtelMeter) {
    for (const [name, metric] of Object.entries(PROCESS_METRICS)) {
      const { kind, unit, help: description } = metric
      if (kind === 'counter') this.#counters.set(name, meter.createCounter(name, { unit, description }))
      else if (kind === 'sum') this.#counters.set(name, meter.createUpDownCounter(name, { unit, description }))
      else if (kind === 'gauge') this.#gauges.set(name, meter.createGauge(name, { unit, description }))
      else {
        const advice = { explicitBucketBoundaries: [...(metric.buckets ?? [])] }
        this.#histograms.set(name, meter.createHistogram(name, { unit, description, advice }))
      }
    }
  }

  add(name: ProcessMetric, count: number, attributes: Attributes = {}): void {
    guarded(() => this.#counters.get(name)?.add(count, named(attributes)))
  }

  record(name: ProcessMetric, value: number, attributes: Attributes = {}): void {
    guarded(() => this.#histograms.get(name)?.record(value, named(attributes)))
  }

  set(name: ProcessMetric, value: number, attributes: Attributes = {}): void {
    guarded(() => this.#gauges.get(name)?.record(value, named(attributes)))
  }
}

/** Has the metrics of the namespace read whenever the SDK collects; returns what ends that. */
export function observeServer(meter: OtelMeter, server: ServerMetrics): () => void {
  const gauges = new Map(
    Object.entries(SERVER_METRICS).map(([name, { unit, help: description }]) => [
      name,
      meter.createObservableGauge(name, { unit, description }),
    ]),
  )
  const all = [...gauges.values()]
  const observe: Parameters<OtelMeter['addBatchObservableCallback']>[0] = async (result) => {
    for (const { name, value, attributes } of (await server.read()).samples) {
      const gauge = gauges.get(name)
      if (gauge) result.observe(gauge, value, named(attributes))
    }
  }
  meter.addBatchObservableCallback(observe, all)
  return () => meter.removeBatchObservableCallback(observe, all)
}

function named(attributes: Attributes): Record<string, string | number | boolean> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [attributeName(name), value]))
}
