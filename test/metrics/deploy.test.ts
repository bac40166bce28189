/** What deploy/ and the page of metrics name is there, and what is there is named. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { METRICS, type MetricName } from '../../src/metrics/catalog.ts'
import { labelName, prometheusName, seriesNames } from '../../src/metrics/prometheus.ts'
import { pathOf } from '../docs/pages.ts'

const names = Object.keys(METRICS) as MetricName[]
const series = new Set(names.flatMap(seriesNames))
const labels = new Set(names.flatMap((name) => METRICS[name].attributes.map(labelName)))

const read = (file: string): string => readFileSync(pathOf(file), 'utf8')
const target = z.object({ expr: z.string() })
const panel = z.object({
  id: z.number(),
  title: z.string(),
  targets: z.array(target).default([]),
  gridPos: z.object({ h: z.number(), w: z.number(), x: z.number(), y: z.number() }),
})
const dashboard = z
  .object({
    panels: z.array(panel),
    templating: z.object({ list: z.array(z.object({ name: z.string(), query: z.unknown() })) }),
  })
  .parse(JSON.parse(read('deploy/grafana/flowstone.json')))
const rule = z.object({
  alert: z.string(),
  expr: z.string(),
  for: z
    .string()
    .regex(/^\d+[smh]$/)
    .optional(),
  labels: z.object({ severity: z.enum(['critical', 'warning']) }),
  annotations: z.object({ summary: z.string(), description: z.string().optional() }),
})
const rules = z
  .object({ groups: z.array(z.object({ name: z.string(), rules: z.array(rule) })) })
  .parse(parse(read('deploy/prometheus/alerts.yml')))
  .groups.flatMap((group) => group.rules)

const expressions = [
  ...dashboard.panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [title, expr] as const)),
  ...dashboard.templating.list.map(({ name, query }) => [`variable ${name}`, JSON.stringify(query)] as const),
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
]

/** Series that an expression reads, and labels that it names. */
function namedIn(expression: string): { readonly series: string[]; readonly labels: string[] } {
  const words = expression.match(/\bflowstone_\w+/g) ?? []
  return { series: words.filter((word) => !labels.has(word)), labels: words.filter((word) => labels.has(word)) }
}

describe('the dashboard and the alerts', () => {
  it.each(expressions)('read only metrics that there are: %s', (_, expression) => {
    expect(namedIn(expression).series.filter((name) => !series.has(name))).toEqual([])
  })

  it.each(expressions)('name only labels that those metrics have: %s', (_, expression) => {
    const own = namedIn(expression)
    const has = new Set(
      names
        .filter((name) => seriesNames(name).some((one) => own.series.includes(one)))
        .flatMap((name) => METRICS[name].attributes.map(labelName)),
    )
    expect(own.labels.filter((label) => !has.has(label))).toEqual([])
    // Parentheses and braces are balanced.
    for (const [open, close] of ['()', '{}', '[]'])
      expect(expression.split(open ?? '').length, expression).toBe(expression.split(close ?? '').length)
  })

  it('show all metrics', () => {
    const read = new Set(expressions.flatMap(([, expression]) => namedIn(expression).series))
    expect(names.filter((name) => !seriesNames(name).some((one) => read.has(one)))).toEqual([])
  })

  it('have panels that do not overlap, and names of their own', () => {
    const taken = new Set<string>()
    for (const { gridPos: at, title } of dashboard.panels)
      for (let x = at.x; x < at.x + at.w; x++)
        for (let y = at.y; y < at.y + at.h; y++) {
          expect(taken.has(`${x} ${y}`), `${title} at ${x} ${y}`).toBe(false)
          taken.add(`${x} ${y}`)
        }
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  })
})

it('docs/opentelemetry.md lists all metrics with units and attributes, and no others', () => {
  const rows = [
    ...read('docs/opentelemetry.md').matchAll(/^\| `(flowstone\.[\w.]+)` \| (\S+) \| `([^`]+)` \|(.*)\|.*\|$/gm),
  ]
  const listed = rows.map(([, name = '', kind = '', unit = '', attributes = '']) => [
    name,
    kind,
    unit,
    [...attributes.matchAll(/`(\w+)`/g)].map(([, attribute = '']) => attribute),
  ])
  const declared = names.map((name) => {
    const { kind, unit, attributes } = METRICS[name]
    return [name, kind, unit, [...attributes]]
  })
  expect(listed).toEqual(declared)
  expect(prometheusName('flowstone.tasks.lost')).toBe('flowstone_tasks_lost_total')
})
