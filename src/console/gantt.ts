/** The timeline of a run: what is drawn where. Pure: an answer of the API in, rows out. */
import type { RunPage, Span } from './api/types.ts'
import { counted, duration } from './format.ts'
import { remaining } from './gates.ts'
import { assetState, type UiState } from './words.ts'

export interface GanttBar {
  /** Shares of the width: 0 to 1. */
  readonly from: number
  readonly to: number
  /** `thin`: a line, for waiting. `expected`: it is not yet there. */
  readonly kind: 'solid' | 'thin' | 'gate' | 'expected'
  readonly state: UiState
  /** Of a scatter: how much of it failed. */
  readonly failed?: number
}

export interface GanttRow {
  readonly asset: string
  readonly state: UiState
  readonly isScatter: boolean
  readonly bars: readonly GanttBar[]
  /** Behind the last bar. */
  readonly text: string
  readonly textAt: number
}

export interface Gantt {
  readonly from: number
  readonly to: number
  readonly ticks: readonly { readonly time: number; readonly at: number }[]
  /** Undefined: the run has ended. */
  readonly now: number | undefined
  readonly rows: readonly GanttRow[]
}

const MINUTE = 60_000
const STEPS = [1, 2, 5, 10, 15, 30].map((seconds) => seconds * 1000)
const LONG_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440, 2880, 10_080].map((minutes) => minutes * MINUTE)
const TICKS_MAX = 7
/** Behind the present there is room for what is expected. */
const ROOM = 1.12

export function ganttOf({ run, scatters, gates, timeline }: RunPage, now: number, ticks = TICKS_MAX): Gantt {
  const from = Date.parse(run.requestedAt)
  const end = run.finishedAt === undefined ? undefined : Date.parse(run.finishedAt)
  const expected = scatters.flatMap(({ estimatedEnd, status }) =>
    estimatedEnd !== undefined && status === 'open' ? [Date.parse(estimatedEnd)] : [],
  )
  const last = Math.max(end ?? Math.max(now, ...expected), from + 1000)
  const to = end === undefined ? from + (last - from) * ROOM : last + (last - from) * 0.1
  const share = (time: number): number => Math.max(0, Math.min(1, (time - from) / (to - from)))
  const present = end ?? now
  const rows = Object.entries(run.assets).map(([asset, about]): GanttRow & { first: number } => {
    const state = assetState(about)
    const spans = timeline.filter(
      (span) => span.asset === asset && (span.to !== undefined || goesOn(span, about.status)),
    )
    const scatter = scatters.find(({ id }) => id === `${run.id}.${asset}`)
    const bars = barsOf(spans, { share, present, about, scatter })
    const first = spans[0] ? Date.parse(spans[0].from) : Number.POSITIVE_INFINITY
    const untouched = bars.length === 0 && end === undefined && (state === 'wait' || state === 'retry')
    if (untouched) bars.push({ kind: 'thin', state: 'wait', from: 0, to: share(present) })
    const gate = gates.find((one) => one.asset === asset && one.status === 'waiting' && one.index === undefined)
    return {
      asset,
      state,
      isScatter: scatter !== undefined,
      bars,
      text: textOf(spans, about.status, gate && `${gate.kind}, ${remaining(gate, now)}`, scatter?.total, present),
      textAt: Math.max(0, ...bars.flatMap((bar) => (bar.kind === 'expected' ? [] : [bar.to]))),
      first,
    }
  })
  // What began first stands first; what has not begun, in the order of the plan.
  const sorted = rows.toSorted((a, b) => (a.first === b.first ? 0 : a.first - b.first))
  return {
    from,
    to,
    ticks: ticksOf(from, to, ticks).map((time) => ({ time, at: share(time) })),
    now: end === undefined ? share(now) : undefined,
    rows: sorted,
  }
}

/** A start that was stored behind the end of its attempt has no end of its own. */
function goesOn(span: Span, status: string): boolean {
  return span.kind === 'gate' ? status === 'suspended' : status === 'running' || status === 'scattering'
}

interface Drawn {
  readonly share: (time: number) => number
  readonly present: number
  readonly about: RunPage['run']['assets'][string]
  readonly scatter: RunPage['scatters'][number] | undefined
}

function barsOf(spans: readonly Span[], { share, present, about, scatter }: Drawn): GanttBar[] {
  const bars: GanttBar[] = []
  let last: Span | undefined
  for (const span of spans) {
    const from = Date.parse(span.from)
    const isAgain =
      span.kind === 'attempt' && last?.kind === 'attempt' && last.outcome === 'error' && last.to !== undefined
    if (isAgain && last?.to)
      bars.push({ kind: 'thin', state: 'retry', from: share(Date.parse(last.to)), to: share(from) })
    const to = share(span.to === undefined ? present : Date.parse(span.to))
    const ended = scatter && span.kind === 'scatter' ? Math.max(1, scatter.succeeded + scatter.failed) : undefined
    bars.push({
      kind: span.kind === 'gate' ? 'gate' : 'solid',
      state: stateOf(span),
      from: share(from),
      to,
      ...(ended && scatter ? { failed: scatter.failed / ended } : {}),
    })
    last = span
  }
  if (last?.to && about.status === 'queued')
    bars.push({ kind: 'thin', state: 'retry', from: share(Date.parse(last.to)), to: share(present) })
  if (scatter?.estimatedEnd !== undefined && scatter.status === 'open')
    bars.push({ kind: 'expected', state: 'wait', from: share(present), to: share(Date.parse(scatter.estimatedEnd)) })
  return bars
}

function stateOf({ kind, to, outcome }: Span): UiState {
  if (kind === 'gate') return 'gate'
  if (to === undefined) return 'run'
  if (outcome === 'error' || outcome === 'failed' || outcome === 'lost') return 'fail'
  return outcome === 'cancelled' ? 'off' : 'done'
}

function textOf(
  spans: readonly Span[],
  status: string,
  gate: string | undefined,
  total: number | undefined,
  present: number,
): string {
  if (gate !== undefined) return gate
  if (['skipped', 'cancelled', 'reused', 'given'].includes(status)) return status
  const attempts = spans.filter(({ kind, phase }) => kind === 'attempt' && phase === 'execute').length
  const first = spans[0]
  if (!first) return ''
  const end = Math.max(...spans.map(({ to }) => (to === undefined ? present : Date.parse(to))))
  const took = duration(end - Date.parse(first.from))
  if (total !== undefined) return `${took}, ${counted(total, 'instance')}`
  return attempts > 1 ? `${counted(attempts, 'attempt')}, ${took}` : took
}

function ticksOf(from: number, to: number, most: number): number[] {
  const step = [...STEPS, ...LONG_STEPS].find((one) => (to - from) / one <= most) ?? (to - from) / most
  const zone = new Date(from).getTimezoneOffset() * MINUTE
  const first = Math.ceil((from - zone) / step) * step + zone
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, i) => first + i * step)
}

export interface TimeShare {
  readonly name: string
  readonly state: UiState
  readonly share: number
}

/**
 * Where the time of a run went. Each moment counts once, for the first of: code ran, a scatter was
 * open, an attempt waited for its retry, a gate was open. In the rest it waited for a worker.
 */
export function timeWent({ run, timeline }: Pick<RunPage, 'run' | 'timeline'>, now: number): TimeShare[] {
  const from = Date.parse(run.requestedAt)
  const end = run.finishedAt === undefined ? now : Date.parse(run.finishedAt)
  const all = Math.max(1, end - from)
  const closed = timeline.filter((span) => span.to !== undefined || goesOn(span, run.assets[span.asset]?.status ?? ''))
  const until = (to: string | undefined): number => (to === undefined ? end : Date.parse(to))
  const of = (kind: Span['kind']): Stretch[] =>
    union(closed.filter((span) => span.kind === kind).map((span): Stretch => [Date.parse(span.from), until(span.to)]))
  const retries = union(retriesIn(closed, end, run.assets))
  const kinds: readonly (readonly [name: string, state: UiState, stretches: readonly Stretch[]])[] = [
    ['Code ran', 'done', of('attempt')],
    ['Instances ran', 'run', of('scatter')],
    ['Waited for retries', 'retry', retries],
    ['Waited for gates', 'gate', of('gate')],
  ]
  let taken: readonly Stretch[] = []
  const shares = kinds.map(([name, state, stretches]): TimeShare => {
    const own = without(stretches, taken)
    taken = union([...taken, ...own])
    return { name, state, share: own.reduce((sum, [a, b]) => sum + Math.min(b, end) - Math.max(a, from), 0) / all }
  })
  const rest = 1 - shares.reduce((sum, { share }) => sum + share, 0)
  return [...shares, { name: 'Waited for its turn', state: 'wait', share: Math.max(0, rest) }]
}

type Stretch = readonly [from: number, to: number]

function retriesIn(spans: readonly Span[], end: number, assets: RunPage['run']['assets']): Stretch[] {
  const byAsset = Map.groupBy(
    spans.filter(({ kind }) => kind === 'attempt'),
    ({ asset }) => asset,
  )
  return [...byAsset].flatMap(([asset, own]) =>
    own.flatMap((span, i): Stretch[] => {
      if (span.outcome !== 'error' || span.to === undefined) return []
      const next = own[i + 1]
      if (!next && assets[asset]?.status !== 'queued') return []
      return [[Date.parse(span.to), next ? Date.parse(next.from) : end]]
    }),
  )
}

function union(stretches: readonly Stretch[]): Stretch[] {
  const all: [number, number][] = []
  for (const [from, to] of stretches.toSorted((a, b) => a[0] - b[0])) {
    const last = all.at(-1)
    if (last && from <= last[1]) last[1] = Math.max(last[1], to)
    else if (to > from) all.push([from, to])
  }
  return all
}

/** Both without overlaps, in order. */
function without(stretches: readonly Stretch[], taken: readonly Stretch[]): Stretch[] {
  return stretches.flatMap(([from, to]) => {
    const left: Stretch[] = []
    let at = from
    for (const [begin, stop] of taken) {
      if (stop <= at || begin >= to) continue
      if (begin > at) left.push([at, begin])
      at = Math.max(at, stop)
    }
    if (at < to) left.push([at, to])
    return left
  })
}
