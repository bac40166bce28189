/** What the page of assets says. Pure. */
import type { Linker, Said } from './answers.ts'
import type { Asset, Gate, Run, Scatter } from './api/types.ts'
import { count, counted, duration, percent } from './format.ts'
import { leftOf } from './gates.ts'
import { nodeId } from './graph.ts'
import { STATE_WORDS, type UiState } from './words.ts'

export const NODE_WORDS: Readonly<Record<UiState, string>> = {
  ...STATE_WORDS,
  done: 'fresh',
  off: 'no value',
  late: 'behind',
}

export type AssetShow = 'all' | 'run' | 'wait' | 'gate' | 'fail' | 'late' | 'none'

export interface NodeInfo {
  readonly id: string
  readonly asset: Asset
  readonly state: UiState
  /** What stands below its name. */
  readonly line: string
  /** 0 to 1, of a scatter that runs. */
  readonly progress: number | undefined
}

const STATES: Readonly<Record<Asset['state'], UiState>> = {
  running: 'run',
  waiting: 'wait',
  gate: 'gate',
  failed: 'fail',
  made: 'done',
  none: 'off',
}

/** Behind its dependencies: made, and late. */
export function nodeState({ state, behind }: Pick<Asset, 'state' | 'behind'>): UiState {
  return state === 'made' && behind.length > 0 ? 'late' : STATES[state]
}

export function nodeInfos(
  assets: readonly Asset[],
  scatters: readonly Scatter[],
  gates: readonly Gate[],
  now: number,
): Map<string, NodeInfo> {
  const byId = new Map(assets.map((asset) => [nodeId(asset.pipeline, asset.name), asset]))
  return new Map(
    [...byId].map(([id, asset]) => {
      const scatter = scatters.find(
        (one) => one.status === 'open' && asset.openRuns.some((run) => one.id === `${run}.${asset.name}`),
      )
      const gate = gates.find((one) => one.asset === asset.name && asset.openRuns.includes(one.run))
      const progress = scatter && (scatter.succeeded + scatter.failed) / Math.max(1, scatter.total ?? scatter.stored)
      return [id, { id, asset, state: nodeState(asset), line: lineOf(asset, byId, scatter, gate, now), progress }]
    }),
  )
}

function lineOf(
  asset: Asset,
  byId: ReadonlyMap<string, Asset>,
  scatter: Scatter | undefined,
  gate: Gate | undefined,
  now: number,
): string {
  const { state, behind, newest, kind } = asset
  if (state === 'running') {
    if (!scatter) return 'runs'
    const ended = scatter.succeeded + scatter.failed
    const { total } = scatter
    return total === undefined ? `${count(ended)} so far` : `${percent(ended, total, 0)} of ${count(total)}`
  }
  if (state === 'waiting') return waitsFor(asset, byId)
  if (state === 'gate') {
    if (!gate) return 'at a gate'
    const what = gate.kind === 'approval' ? 'approval' : 'signal'
    return gate.deadline === undefined ? what : `${what}, ${leftOf(gate, now).text}`
  }
  if (state === 'failed') return asset.error ? `failed: ${asset.error.message.split('\n')[0] ?? ''}` : 'failed'
  if (state === 'none') return kind === 'input' ? 'given to runs' : 'not made yet'
  if (behind.length > 0) return behind.length === 1 ? `${behind[0]} is newer` : `${behind.length} are newer`
  return newest ? `${duration(now - Date.parse(newest.at))} old` : 'made'
}

function waitsFor({ pipeline, dependsOn }: Asset, byId: ReadonlyMap<string, Asset>): string {
  const open = dependsOn.filter((dep) => {
    const state = byId.get(nodeId(pipeline, dep))?.state
    return state === 'running' || state === 'waiting' || state === 'gate'
  })
  const [first] = open
  return first === undefined ? 'in the queue' : open.length === 1 ? `waits for ${first}` : `waits for ${open.length}`
}

export function isShown({ state }: Pick<NodeInfo, 'state'>, show: AssetShow): boolean {
  return show === 'all' || (show === 'none' ? state === 'off' : state === show)
}

/** Each word of a search is somewhere in `pipeline/asset`. */
export function isFound(id: string, search: string): boolean {
  const name = id.toLowerCase()
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => name.includes(word))
}

export function countStates(infos: Iterable<NodeInfo>): Readonly<Record<UiState, number>> {
  const counts: Record<UiState, number> = { done: 0, run: 0, wait: 0, retry: 0, gate: 0, fail: 0, off: 0, late: 0 }
  for (const { state } of infos) counts[state]++
  return counts
}

/** What is fresh, what is not? */
export function assetsAnswer(infos: readonly NodeInfo[], link: Linker): Said[] {
  if (infos.length === 0) return [{ text: 'No pipeline is registered.' }]
  // Values of inputs are given, and never made.
  const made = infos.filter(({ asset }) => asset.kind !== 'input')
  const counts = countStates(made)
  const to = (show: AssetShow): string => link(['assets'], { show })
  const fresh = counts.done
  const said: Said[] = [
    {
      text:
        fresh === made.length
          ? `All ${counted(made.length, 'asset')} are fresh.`
          : `${count(fresh)} of ${counted(made.length, 'asset')} ${fresh === 1 ? 'is' : 'are'} fresh.`,
    },
  ]
  const add = (n: number, text: string, tone: UiState, show: AssetShow): void => {
    if (n > 0) said.push({ text: said.length === 1 ? ' ' : ', ' }, { text, tone, href: to(show) })
  }
  add(counts.fail, `${count(counts.fail)} failed`, 'fail', 'fail')
  add(counts.gate, `${count(counts.gate)} at a gate`, 'gate', 'gate')
  add(counts.run, `${count(counts.run)} ${counts.run === 1 ? 'runs' : 'run'}`, 'run', 'run')
  add(counts.late, `${count(counts.late)} behind`, 'late', 'late')
  return said.length === 1 ? said : [...said, { text: '.' }]
}

/** The sentence of one asset: how it is, and why. */
export function assetSentence({ asset, state, line }: NodeInfo, now: number): string {
  const { newest, behind, partitions } = asset
  const age = newest ? duration(now - Date.parse(newest.at)) : ''
  if (state === 'done')
    return `Fresh: made ${age} ago${partitions > 1 ? `, the newest of ${count(partitions)} partitions` : ''}.`
  if (state === 'late')
    return `Made ${age} ago. ${behind.join(', ')} ${behind.length === 1 ? 'has' : 'have'} a newer value.`
  if (state === 'off') return asset.kind === 'input' ? 'Its value is given to each run.' : 'No run has made it yet.'
  const before = newest ? ` The value before is ${age} old.` : ''
  return `${line.charAt(0).toUpperCase()}${line.slice(1)}.${before}`
}

export interface RunBar {
  readonly id: string
  readonly state: UiState
  /** Of the longest: 0 to 1. */
  readonly height: number
  readonly text: string
}

/** Runs that were asked for an asset, the oldest first. */
export function runBars(runs: readonly Run[], now: number): RunBar[] {
  const length = ({ requestedAt, finishedAt }: Run): number =>
    (finishedAt ? Date.parse(finishedAt) : now) - Date.parse(requestedAt)
  const longest = Math.max(1, ...runs.map(length))
  const states: Readonly<Record<Run['status'], UiState>> = {
    queued: 'wait',
    requested: 'wait',
    running: 'run',
    succeeded: 'done',
    failed: 'fail',
    cancelled: 'off',
  }
  return runs.toReversed().map((run) => ({
    id: run.id,
    state: states[run.status],
    height: Math.max(0.15, length(run) / longest),
    text: `${run.status}, ${duration(length(run))}`,
  }))
}

export function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)]
}

const LINES = 24

/** Indented JSON, as far as it fits. */
export function valueLines(value: unknown, preview: string | undefined): { text: string; isCut: boolean } {
  if (preview !== undefined) return { text: preview.slice(0, 1500), isCut: true }
  const lines = (JSON.stringify(value, undefined, 2) ?? 'undefined').split('\n')
  return { text: lines.slice(0, LINES).join('\n'), isCut: lines.length > LINES }
}
