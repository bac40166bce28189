/**
 * The metrics of this process as Prometheus reads them: text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */
import { z } from 'zod'
import {
  type Attributes,
  attributeName,
  METRICS,
  type Meter,
  type Metric,
  type MetricName,
  PROCESS_METRICS,
  type ProcessMetric,
} from './catalog.ts'
import type { ServerReading } from './server.ts'

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Series of one metric. What comes beyond shares one series, as in the SDK of OpenTelemetry. */
const SERIES_MAX = 2000
const OVERFLOW = '{otel_metric_overflow="true"}'

interface Series {
  value: number
  /** Of a histogram: how many are in each bucket, the last of all above; and how many in all. */
  readonly counts: number[]
  count: number
}

type AllSeries = Map<ProcessMetric, Map<string, Series>>

const counted = z.array(
  z.object({
    name: z.enum(Object.keys(PROCESS_METRICS) as [ProcessMetric, ...ProcessMetric[]]),
    labels: z.string(),
    value: z.number(),
    // JSON has null for a bucket that nothing fell into.
    counts: z.array(
      z
        .number()
        .nullable()
        .transform((count) => count ?? 0),
    ),
    count: z.number(),
  }),
)

/** What a process has counted, to send to another one. */
export type Counted = Readonly<z.infer<typeof counted>>

export class Registry implements Meter {
  readonly #series: AllSeries = new Map()
  /** By process: what it has counted so far. */
  readonly #others = new Map<unknown, Counted>()

  constructor() {
    // What has no attributes is there from the beginning: a rate needs the zero before the one.
    for (const [name, { attributes, kind }] of entries(PROCESS_METRICS))
      if (attributes.length === 0 && kind !== 'histogram') this.#of(name, {})
  }

  counted(): Counted {
    return [...this.#series].flatMap(([name, all]) => [...all].map(([labels, one]) => ({ name, labels, ...one })))
  }

  /**
   * Shows what another process has counted so far, beside its own. What is no count is left out:
   * user code may send messages, too.
   */
  show(process: unknown, said: unknown): void {
    const { data } = counted.safeParse(said)
    if (data) this.#others.set(process, data)
  }

  /** Another process has ended: its counts stay, its gauges and sums do not. */
  hasEnded(process: unknown): void {
    const lasting = (this.#others.get(process) ?? []).filter(({ name }) =>
      ['counter', 'histogram'].includes(METRICS[name].kind),
    )
    this.#others.delete(process)
    merge(this.#series, lasting)
  }

  add(name: ProcessMetric, count: number, attributes: Attributes = {}): void {
    this.#of(name, attributes).value += count
  }

  set(name: ProcessMetric, value: number, attributes: Attributes = {}): void {
    this.#of(name, attributes).value = value
  }

  record(name: ProcessMetric, value: number, attributes: Attributes = {}): void {
    const { buckets = [] } = METRICS[name]
    const series = this.#of(name, attributes)
    const at = buckets.findIndex((bound) => value <= bound)
    const bucket = at < 0 ? buckets.length : at
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1
    series.value += value
    series.count += 1
  }

  /** `samples`: what was read from the server; `problem`: why they are not all. */
  text({ samples, problem }: ServerReading = { samples: [] }): string {
    const lines: string[] = []
    for (const [name, series] of this.#all()) {
      lines.push(...head(name))
      for (const [labels, one] of series) lines.push(...linesOf(name, labels, one))
    }
    const byName = Map.groupBy(samples, ({ name }) => name)
    for (const [name, those] of byName) {
      lines.push(...head(name))
      for (const { attributes, value } of those)
        lines.push(`${prometheusName(name)}${labelsOf(name, attributes)} ${value}`)
    }
    if (problem !== undefined)
      lines.push(`# The metrics of the namespace could not be read: ${problem.replaceAll(/\s+/g, ' ')}`)
    return `${lines.join('\n')}\n`
  }

  #of(name: ProcessMetric, attributes: Attributes): Series {
    return seriesOf(this.#series, name, labelsOf(name, attributes))
  }

  #all(): AllSeries {
    if (this.#others.size === 0) return this.#series
    const all: AllSeries = new Map()
    for (const those of [this.counted(), ...this.#others.values()]) merge(all, those)
    return all
  }
}

function seriesOf(series: AllSeries, name: ProcessMetric, labels: string): Series {
  let all = series.get(name)
  if (!all) {
    all = new Map()
    series.set(name, all)
  }
  const known = all.get(labels)
  if (known) return known
  const key = all.size >= SERIES_MAX ? OVERFLOW : labels
  const one = all.get(key) ?? { value: 0, counts: [], count: 0 }
  all.set(key, one)
  return one
}

/** A gauge of several processes is the highest, and all else their sum. */
function merge(into: AllSeries, those: Counted): void {
  for (const { name, labels, value, counts, count } of those) {
    const one = seriesOf(into, name, labels)
    one.value = METRICS[name].kind === 'gauge' ? Math.max(one.value, value) : one.value + value
    one.count += count
    counts.forEach((more, bucket) => {
      one.counts[bucket] = (one.counts[bucket] ?? 0) + more
    })
  }
}

function entries<K extends string, V>(record: Readonly<Record<K, V>>): [K, V][] {
  return Object.entries(record) as [K, V][]
}

/** As the collector of OpenTelemetry writes it: with the unit, and `_total` for counters. */
export function prometheusName(name: MetricName): string {
  const { kind, unit }: Metric = METRICS[name]
  const suffix = unit === 's' ? '_seconds' : unit === 'By' ? '_bytes' : ''
  return `${name.replaceAll('.', '_')}${suffix}${kind === 'counter' ? '_total' : ''}`
}

/** All names under which series of a metric stand. */
export function seriesNames(name: MetricName): string[] {
  const own = prometheusName(name)
  return METRICS[name].kind === 'histogram' ? [`${own}_bucket`, `${own}_sum`, `${own}_count`] : [own]
}

function head(name: MetricName): string[] {
  const { kind, help } = METRICS[name]
  const own = prometheusName(name)
  return [
    `# HELP ${own} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
    `# TYPE ${own} ${kind === 'sum' ? 'gauge' : kind}`,
  ]
}

function linesOf(name: MetricName, labels: string, { value, counts, count }: Series): string[] {
  const own = prometheusName(name)
  const { kind, buckets = [] } = METRICS[name]
  if (kind !== 'histogram') return [`${own}${labels} ${value}`]
  let below = 0
  const bounds = buckets.map((bound, i) => {
    below += counts[i] ?? 0
    return `${own}_bucket${withLabel(labels, `le="${bound}"`)} ${below}`
  })
  return [
    ...bounds,
    `${own}_bucket${withLabel(labels, 'le="+Inf"')} ${count}`,
    `${own}_sum${labels} ${value}`,
    `${own}_count${labels} ${count}`,
  ]
}

function withLabel(labels: string, more: string): string {
  return labels === '' ? `{${more}}` : `${labels.slice(0, -1)},${more}}`
}

function labelsOf(name: MetricName, given: Attributes): string {
  const { attributes } = METRICS[name]
  if (attributes.length === 0) return ''
  const pairs = attributes.map((attribute) => `${labelName(attribute)}="${escaped(String(given[attribute] ?? ''))}"`)
  return `{${pairs.join(',')}}`
}

export function labelName(attribute: string): string {
  return attributeName(attribute).replaceAll('.', '_')
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}
