/** What the page of the log says. Pure. */
import type { FactName } from '../../streams/facts.ts'
import { cut } from '../../streams/text.ts'
import type { Said } from './answers.ts'
import type { Fact } from './api/types.ts'
import { clock, count, counted } from './format.ts'
import type { UiState } from './words.ts'

/** Characters of a field, in a line. */
const VALUE_MAX = 80

export type LogShow = 'all' | 'runs' | 'assets' | 'scatters' | 'gates' | 'starts' | 'failed' | 'refused'

/** Which facts each filter asks for. None: all. */
export const KINDS: Readonly<Record<LogShow, readonly FactName[]>> = {
  all: [],
  runs: ['run.requested', 'run.planned', 'run.cancel_requested', 'run.adopted', 'run.finished'],
  assets: [
    'asset.started',
    'attempt.ended',
    'asset.materialized',
    'asset.failed',
    'asset.skipped',
    'asset.cancelled',
    'asset.suspended',
  ],
  scatters: [
    'scatter.started',
    'scatter.items',
    'scatter.sized',
    'scatter.begun',
    'scatter.outcomes',
    'scatter.paused',
    'scatter.resumed',
    'scatter.closed',
    'lease.lost',
    'lease.returned',
  ],
  gates: ['gate.created', 'gate.extended', 'gate.timer_fired', 'gate.resolved'],
  starts: ['schedule.fired', 'schedule.skipped', 'schedule.missed', 'schedule.triggered', 'subscription.taken'],
  failed: ['asset.failed', 'lease.lost'],
  refused: ['trigger.refused', 'event.refused'],
}

/** Of whatever is in the data: what a line says about a fact. */
export function factLine({ data, preview }: Pick<Fact, 'data' | 'preview'>): string {
  if (preview !== undefined) return preview.slice(0, 200)
  if (typeof data !== 'object' || data === null) return ''
  const said = Object.entries(data).flatMap(([name, value]) => {
    if (value === null || value === undefined) return []
    if (typeof value === 'object') {
      const message = 'message' in value ? value.message : undefined
      return typeof message === 'string' ? [`${name}: ${message.split('\n')[0]}`] : []
    }
    return [`${name}: ${cut(String(value), VALUE_MAX)}`]
  })
  return said.slice(0, 5).join(', ')
}

/** `catalog/pages`, a run, a gate: what it is about. */
export function factOf({ ids }: Pick<Fact, 'ids'>): string {
  const { pipeline, asset, run, gate, schedule, sensor, subscription } = ids
  const thing = asset ?? schedule ?? sensor ?? subscription
  const of = [pipeline, thing].filter((part) => part !== undefined).join('/')
  const name = of === '' ? (run ?? Object.values(ids)[0] ?? '') : of
  return gate === undefined ? name : `${name} ${gate}`
}

export function factTone(kind: string): UiState | undefined {
  if (kind.startsWith('gate') || kind === 'asset.suspended') return 'gate'
  if (/failed|refused|missed|\.lost$/.test(kind)) return 'fail'
  if (kind === 'attempt.ended') return 'retry'
  return kind.startsWith('run') ? 'run' : undefined
}

/** `14:32:08.120`. */
export function exactly(time: string): string {
  const { 1: ms = '' } = /\.(\d{3})/.exec(new Date(time).toISOString()) ?? []
  return `${clock(time)}.${ms}`
}

/** What happened, in what order? */
export function logAnswer(facts: readonly Fact[], more: boolean, now: number, when: string | undefined): Said[] {
  const before = when === undefined ? '' : ` before ${when}`
  if (facts.length === 0) return [{ text: `No facts of this kind before ${when ?? 'this moment'}.` }]
  const newest = Date.parse(facts[0]?.at ?? '')
  const minute = facts.filter(({ at }) => Date.parse(at) > now - 60_000).length
  const failed = facts.filter(({ kind }) => factTone(kind) === 'fail').length
  const many =
    more && minute === facts.length
      ? `More than ${count(minute)} facts`
      : minute === 0
        ? 'No fact'
        : counted(minute, 'fact')
  const said: Said[] = [{ text: `${many} in the minute${before === '' ? ' before now' : before}. ` }]
  if (failed > 0)
    said.push({ text: `${count(failed)} of the last ${count(facts.length)} say that something failed.`, tone: 'fail' })
  else said.push({ text: `The last is of ${clock(newest)}.` })
  return said
}

export function factId({ shard, seq }: Pick<Fact, 'shard' | 'seq'>): string {
  return `${shard}.${seq}`
}

/** All that was read, newest first, each once. */
export function merged(newer: readonly Fact[], older: readonly Fact[]): Fact[] {
  const seen = new Set(newer.map(factId))
  return [...newer, ...older.filter((fact) => !seen.has(factId(fact)))]
}
