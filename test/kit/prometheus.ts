/**
 * A strict parser of the text format of Prometheus. It throws for what a lenient one lets pass: a
 * sample without its type, two of the same labels, a histogram whose buckets do not add up.
 */

export interface ParsedSample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface ParsedMetric {
  readonly type: string
  readonly help: string
  readonly samples: readonly ParsedSample[]
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)/
const SUFFIXES: Readonly<Record<string, readonly string[]>> = { histogram: ['_bucket', '_sum', '_count'] }

export function parseMetrics(text: string): Map<string, ParsedMetric> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const metrics = new Map<string, { type: string; help: string; samples: ParsedSample[] }>()
  let current = ''
  let help: readonly [string, string] | undefined
  for (const line of text.slice(0, -1).split('\n')) {
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (kind === 'HELP') {
      help = [name, rest]
      continue
    }
    if (kind === 'TYPE') {
      if (metrics.has(name)) throw new Error(`${name} comes twice`)
      if (help?.[0] !== name) throw new Error(`${name} has no help`)
      if (!['counter', 'gauge', 'histogram'].includes(rest)) throw new Error(`${name} is of type ${rest}`)
      metrics.set(name, { type: rest, help: help[1], samples: [] })
      current = name
      continue
    }
    if (line.startsWith('# ')) continue
    const sample = parseSample(line)
    const metric = metrics.get(current)
    const names = (SUFFIXES[metric?.type ?? ''] ?? ['']).map((suffix) => `${current}${suffix}`)
    if (!metric || !names.includes(sample.name)) throw new Error(`a sample without its type: ${line}`)
    metric.samples.push(sample)
  }
  for (const [name, metric] of metrics) check(name, metric)
  return metrics
}

function parseSample(line: string): ParsedSample {
  const [, name = '', all, value = ''] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (!NAME.test(name)) throw new Error(`no sample: ${line}`)
  const labels: Record<string, string> = {}
  for (let rest = all ?? ''; rest !== ''; ) {
    const [found, label = '', text = ''] = LABEL.exec(rest) ?? []
    if (found === undefined) throw new Error(`no labels: ${rest}`)
    if (label in labels) throw new Error(`label ${label} comes twice: ${line}`)
    labels[label] = text.replaceAll(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char))
    rest = rest.slice(found.length)
  }
  const number = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value)
  if (value === '' || Number.isNaN(number)) throw new Error(`no value: ${line}`)
  return { name, labels, value: number }
}

function check(name: string, { type, samples }: ParsedMetric): void {
  const seen = new Set<string>()
  for (const sample of samples) {
    const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).toSorted())}`
    if (seen.has(key)) throw new Error(`twice: ${key}`)
    seen.add(key)
    if (type === 'counter' && (!name.endsWith('_total') || sample.value < 0)) throw new Error(`no counter: ${key}`)
  }
  if (type !== 'histogram') return
  const bySeries = Map.groupBy(samples, ({ labels: { le: _, ...others } }) => JSON.stringify(others))
  for (const [labels, own] of bySeries) {
    const buckets = own.filter((sample) => sample.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels: { le } }) => (le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le)))
    const count = own.find((sample) => sample.name === `${name}_count`)?.value
    if (bounds.some((bound, i) => i > 0 && bound <= (bounds[i - 1] ?? 0)))
      throw new Error(`${name}: bounds of ${labels}`)
    if (buckets.some(({ value }, i) => i > 0 && value < (buckets[i - 1]?.value ?? 0)))
      throw new Error(`${name}: buckets of ${labels} fall`)
    if (bounds.at(-1) !== Number.POSITIVE_INFINITY || buckets.at(-1)?.value !== count)
      throw new Error(`${name}: +Inf of ${labels}`)
    if (!own.some((sample) => sample.name === `${name}_sum`)) throw new Error(`${name}: no sum of ${labels}`)
  }
}

/** The value of one series; undefined where it is not there. */
export function seriesValue(
  metrics: ReadonlyMap<string, ParsedMetric>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const all = [...metrics.values()].flatMap(({ samples }) => samples)
  return all.find(
    (sample) => sample.name === name && Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
  )?.value
}
