/** How far a run and its scatters are, as lines. Pure. */
import stringWidth from 'string-width'
import type { AssetStatus } from '../../projections/state.ts'
import { count, counted, duration, percent, rate } from '../../streams/amounts.ts'
import type { RunUpdate, ScatterView } from '../client/run.ts'
import type { RunView } from '../client/run-view.ts'
import type { ScatterStatus } from '../client/scatter-status.ts'
import { inColour, painted } from './colour.ts'
import { fitted, padded } from './table.ts'

/** What the log says of the speed of a scatter. */
export type Pace = Pick<ScatterStatus, 'perSecond' | 'estimatedEnd' | 'paused'>
type Counts = Pick<ScatterView, 'total' | 'stored' | 'succeeded' | 'failed' | 'suspended'>

export interface RunProgress extends RunUpdate {
  /** By asset. */
  readonly paces: ReadonlyMap<string, Pace>
  /** Why what waits is waiting. */
  readonly reasons: readonly string[]
}

const BAR_MAX = 30
const BAR_MIN = 8
const NAME_MAX = 30
const ASSETS_MAX = 15
const REASONS_MAX = 10

/** For a terminal: a line for each asset, and bars for its scatters. */
export function runBlock({ run, scatters, paces, reasons }: RunProgress, width: number, nowMs: number): string[] {
  const assets = Object.entries(run.assets)
  const rows = shownOf(assets)
  const nameWidth = Math.min(NAME_MAX, Math.max(0, ...rows.map(([name]) => stringWidth(name))))
  const done = assets.filter(([, { status }]) => isDone(status)).length
  const more = assets.length - rows.length
  return [
    `${painted(run.status)}: ${count(done)} of ${count(assets.length)} assets, ${duration((run.finishedAt?.getTime() ?? nowMs) - run.requestedAt.getTime())}`,
    ...rows.map(([name, asset]) => {
      const scatter = scatters.find((one) => one.asset === name)
      const text =
        scatter?.status === 'open'
          ? barLine(scatter, paces.get(name), width - nameWidth - 4, nowMs)
          : `${painted(asset.status)}${whereOf(asset)}${endOf(scatter)}`
      return `  ${padded(fitted(name, nameWidth), nameWidth)}  ${text}`
    }),
    ...(more > 0 ? [`  … and ${more} more assets`] : []),
    ...(run.finishedAt ? [] : waitLines(reasons)),
  ]
}

/** `██████░░░░ 62.0 %  1,240 of 2,000  31/s  25 s left`; without the bar where it is narrow. */
export function barLine(counts: Counts, pace: Pace | undefined, width: number, nowMs: number): string {
  const { total, stored, succeeded, failed, suspended } = counts
  const done = succeeded + failed
  const parts = (paint: typeof inColour) => [
    total === undefined ? `${count(done)} of ${count(stored)} so far` : `${count(done)} of ${count(total)}`,
    ...paceParts(pace, nowMs, paint),
    ...(suspended > 0 ? [paint('yellow', `${count(suspended)} at gates`)] : []),
    ...(failed > 0 ? [paint('red', `${count(failed)} failed`)] : []),
  ]
  if (total === undefined) return parts(inColour).join('  ')
  const share = percent(done, total).padStart(7)
  const said = (paint: typeof inColour): string => `${share}  ${parts(paint).join('  ')}`
  const bar = Math.min(BAR_MAX, width - stringWidth(said((_, text) => text)))
  if (bar < BAR_MIN) return said(inColour).trimStart()
  return `${barOf(total === 0 ? 1 : done / total, total === 0 ? 0 : failed / total, bar)}${said(inColour)}`
}

/** Of a scatter that has ended: `, 400 instances, 8 failed`. */
function endOf(scatter: Counts | undefined): string {
  if (scatter?.total === undefined) return ''
  const failed = scatter.failed > 0 ? `, ${inColour('red', `${count(scatter.failed)} failed`)}` : ''
  return `, ${counted(scatter.total, 'instance')}${failed}`
}

function paceParts(pace: Pace | undefined, nowMs: number, paint: typeof inColour): string[] {
  if (!pace) return []
  if (pace.paused) return [paint('yellow', 'paused')]
  const { perSecond, estimatedEnd } = pace
  return [
    ...(perSecond > 0 ? [`${rate(perSecond)}/s`] : []),
    ...(estimatedEnd ? [`${duration(estimatedEnd.getTime() - nowMs)} left`] : []),
  ]
}

/** What has failed is at its end, and seen if it is one of a million. */
function barOf(share: number, failed: number, width: number): string {
  const full = Math.min(width, Math.floor(share * width))
  const bad = Math.min(full, Math.ceil(failed * width))
  return `${inColour('green', '█'.repeat(full - bad))}${inColour('red', '█'.repeat(bad))}${'░'.repeat(width - full)}`
}

/** For a pipe: one line, the same until something has changed. */
export function runLine({ run, scatters }: RunUpdate): string {
  const assets = Object.entries(run.assets).map(([name, asset]) => {
    const scatter = scatters.find((one) => one.asset === name && one.status === 'open')
    const counts = scatter ? ` ${scatter.succeeded + scatter.failed}/${scatter.total ?? '?'}` : ''
    return `${name} ${asset.status}${whereOf(asset)}${counts}`
  })
  return `  ${run.status}: ${assets.join(', ')}`
}

/** For a pipe: one line, without what changes all the time. */
export function scatterLine({ id, status, total, stored, succeeded, failed, paused }: ScatterStatus): string {
  const counts = `${succeeded + failed}/${total ?? `${stored}+`}`
  return `${id} ${status}${paused ? ', paused' : ''} ${counts}${failed > 0 ? `, ${failed} failed` : ''}`
}

export function waitLines(reasons: readonly string[]): string[] {
  const more = reasons.length - REASONS_MAX
  return [
    ...reasons.slice(0, REASONS_MAX).map((reason) => `  waits for ${reason}`),
    ...(more > 0 ? [`  … and ${more} more`] : []),
  ]
}

type AssetView = RunView['assets'][string]

/** What moves or has failed comes before what waits or is done, where there is no room for all. */
function shownOf(assets: readonly [string, AssetView][]): readonly [string, AssetView][] {
  if (assets.length <= ASSETS_MAX) return assets
  const order = ({ status }: AssetView): number =>
    status === 'waiting' ? 1 : isDone(status) && status !== 'failed' ? 2 : 0
  return [...assets].sort(([, a], [, b]) => order(a) - order(b)).slice(0, ASSETS_MAX)
}

const OPEN: ReadonlySet<AssetStatus> = new Set(['waiting', 'queued', 'running', 'suspended', 'scattering'])

function isDone(status: AssetStatus): boolean {
  return !OPEN.has(status)
}

function whereOf({ gate, waitsForRun }: AssetView): string {
  return `${gate === undefined ? '' : ` at gate ${gate}`}${waitsForRun === undefined ? '' : ` for run ${waitsForRun}`}`
}
