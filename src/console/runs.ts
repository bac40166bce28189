/** What rows of runs say. Pure. */
import type { ErrorShown, Run, Scatter } from './api/types.ts'
import { count, percent } from './format.ts'
import { assetState, type UiState } from './words.ts'

const ORDER: readonly UiState[] = ['done', 'fail', 'run', 'retry', 'gate', 'off']

/** Of a bar. */
export interface BarPart {
  readonly state: UiState
  /** Of the whole: 0 to 1. */
  readonly share: number
}

export interface Progress {
  readonly parts: readonly BarPart[]
  readonly text: string
  /** When a scatter of it ends, at its rate. */
  readonly end: string | undefined
}

/** By the instances of its largest open scatter; without one, by its assets. */
export function progressOf({ id, assets }: Pick<Run, 'id' | 'assets'>, scatters: readonly Scatter[]): Progress {
  const own = scatters.filter((scatter) => scatter.id.startsWith(`${id}.`) && scatter.status === 'open')
  const largest = own.toSorted((a, b) => (b.total ?? b.stored) - (a.total ?? a.stored))[0]
  if (largest) return progressOfScatter(largest, id)
  const states = Object.values(assets).map(assetState)
  const share = (state: UiState): number => states.filter((one) => one === state).length / Math.max(1, states.length)
  const done = states.filter((state) => state === 'done').length
  return {
    parts: ORDER.map((state) => ({ state, share: share(state) })),
    text: `${count(done)} of ${count(states.length)} assets`,
    end: undefined,
  }
}

function progressOfScatter(scatter: Scatter, run: string): Progress {
  const { succeeded, failed, running, leased, waitingForRetry, suspended, total, stored, estimatedEnd } = scatter
  const all = Math.max(1, total ?? stored)
  const ended = succeeded + failed
  const name = scatter.id.slice(run.length + 1)
  const of = total === undefined ? `${count(stored)} or more` : count(total)
  return {
    parts: [
      { state: 'done', share: succeeded / all },
      { state: 'fail', share: failed / all },
      { state: 'run', share: Math.max(running, leased) / all },
      { state: 'retry', share: waitingForRetry / all },
      { state: 'gate', share: suspended / all },
    ],
    text: `${percent(ended, all, 0)} of ${of} ${name}`,
    end: estimatedEnd,
  }
}

/** Which asset failed first, by name, and why. */
export function failureOf({ assets, status }: Pick<Run, 'assets' | 'status'>): {
  asset: string | undefined
  text: string
} {
  const found = Object.entries(assets).find(([, asset]) => asset.status === 'failed')
  if (!found) return { asset: undefined, text: status }
  const [name, { error, attempt }] = found
  const text = error ? lineOf(error) : 'failed'
  return { asset: name, text: attempt > 1 ? `${text} (attempt ${attempt})` : text }
}

export function lineOf({ code, message }: ErrorShown): string {
  const [line = ''] = message.split('\n')
  return line === '' ? code : line
}

export interface ChainLink {
  readonly code: string
  readonly message: string
}

/** An error, what caused it, and so on. Several causes follow one another. */
export function chainOf(error: ErrorShown, most = 10): ChainLink[] {
  const chain: ChainLink[] = []
  const add = (one: ErrorShown): void => {
    if (chain.length >= most) return
    chain.push({ code: one.code, message: one.message })
    if (one.cause) add(one.cause)
    for (const other of one.errors ?? []) add(other)
  }
  add(error)
  return chain
}

export type Show = 'all' | 'open' | 'failed' | 'succeeded' | 'cancelled'

export interface RunFilter {
  readonly open?: boolean
  readonly status?: string
  readonly target?: string
  readonly tag?: string
}

/** `find`: an asset (`orders/invoice`) or a tag (`name=value`). */
export function filterOf(show: Show, find: string): RunFilter {
  return {
    ...(show === 'open' ? { open: true } : show === 'all' ? {} : { status: show }),
    ...(find === '' ? {} : find.includes('=') ? { tag: find } : { target: find }),
  }
}

export function newestFirst(a: Pick<Run, 'requestedAt' | 'id'>, b: Pick<Run, 'requestedAt' | 'id'>): number {
  return Date.parse(b.requestedAt) - Date.parse(a.requestedAt) || (a.id < b.id ? 1 : -1)
}

/** What stands in the line of a run: why it failed, else what it is of. */
export function noteOf(run: Run): string {
  if (run.status === 'failed') return failureOf(run).text
  const tags = Object.entries(run.tags ?? {}).map(([name, value]) => `${name}=${value}`)
  return [run.pipeline, ...(run.partition ? [run.partition] : []), ...tags].join(' ')
}

/** What started it, as far as the run says. */
export function startedBy({ schedule, sensor, parent, retryOf }: Run): string {
  if (schedule) return `schedule ${schedule.name}`
  if (sensor !== undefined) return `sensor ${sensor}`
  if (parent) return `run, asset ${parent.asset}`
  return retryOf === undefined ? '' : 'retry'
}

export interface ErrorOfAsset {
  readonly asset: string
  readonly error: ErrorShown
  readonly attempt: number
  /** False: it is tried again. */
  readonly isLast: boolean
}

/** What failed for good first. */
export function errorsOf({ assets }: Pick<Run, 'assets'>): ErrorOfAsset[] {
  return Object.entries(assets)
    .flatMap(([asset, { error, attempt, status }]) =>
      error ? [{ asset, error, attempt, isLast: status === 'failed' }] : [],
    )
    .filter(({ asset, isLast }) => isLast || assetState(assets[asset] ?? { status: 'waiting', attempt: 0 }) !== 'done')
    .toSorted((a, b) => Number(b.isLast) - Number(a.isLast))
}
