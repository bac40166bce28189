/** What each curve shows: where it is measured, and what is drawn. */
import { rawScatter } from '../raw-scatter.ts'
import { withRaw } from '../rig.ts'
import { rawRuns } from '../runs.ts'
import { type CurveName, runsOf } from './works.ts'

export interface Panel {
  /** Name of the axis, with the unit. */
  readonly axis: string
  readonly isLog: boolean
  /** Label of a line, by the name of its value. */
  readonly lines: Readonly<Record<string, string>>
}

export interface Curve {
  readonly title: string
  readonly axis: string
  readonly isLog: boolean
  readonly xs: readonly number[]
  /** No point beyond it unless `--max` asks for it. */
  readonly max: number
  readonly panels: readonly Panel[]
  /** The same with nothing in between: the value `raw`. */
  raw?(url: string, x: number): Promise<number>
}

const TENS = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]
const memory = (node: string): Panel => {
  return { axis: 'peak RSS (MB)', isLog: false, lines: { nodeMb: node, serverMb: 'nats-server' } }
}
const rate = (lines: Panel['lines'], isLog = true): Panel => ({ axis: 'instances/s', isLog, lines })

export const CURVES: Readonly<Record<CurveName, Curve>> = {
  size: {
    title: 'Scatter of N instances that do nothing',
    axis: 'N (instances)',
    isLog: true,
    xs: TENS,
    max: 1_000_000,
    panels: [rate({ rate: 'FlowStone', raw: 'raw' }), memory('engine, worker and client')],
    raw: async (url, n) =>
      n / ((await withRaw(url, (connection, topology) => rawScatter(connection, topology, n))) / 1000),
  },
  payload: {
    title: 'Scatter whose instances return values of B bytes',
    axis: 'B (bytes of a value)',
    isLog: true,
    xs: [10, 100, 1_024, 4_096, 16_384, 65_536, 262_144],
    max: 262_144,
    panels: [
      rate({ rate: 'instances/s' }),
      { axis: 'MB/s of values', isLog: true, lines: { mbPerSecond: 'MB/s' } },
      memory('engine, worker and client'),
    ],
  },
  workers: {
    title: 'Scatter over W workers, each a process with 10 slots',
    axis: 'W (workers)',
    isLog: false,
    xs: [1, 2, 3, 4],
    max: 4,
    panels: [
      rate({ waits: 'code that waits 5 ms' }, false),
      rate({ rate: 'code that does nothing' }, false),
      memory('engine, workers and client'),
    ],
  },
  barriers: {
    title: 'Scatter of 10,000 beside B open barriers',
    axis: 'B (open barriers)',
    isLog: true,
    xs: [1, 10, 100, 1_000, 10_000],
    max: 10_000,
    panels: [rate({ rate: 'scatter of 10,000' }, false), memory('engine, worker and client')],
  },
  scatters: {
    title: 'S scatters of 100 instances at the same time',
    axis: 'S (scatters)',
    isLog: true,
    xs: [1, 10, 100, 1_000],
    max: 1_000,
    panels: [rate({ rate: 'all scatters' }), memory('engine, worker and client')],
  },
  log: {
    title: 'A log of F facts of ended runs',
    axis: 'F (facts)',
    isLog: true,
    xs: TENS,
    max: 1_000_000,
    panels: [
      { axis: 'ms', isLog: true, lines: { startMs: 'start of an engine', rebuildMs: 'rebuild of the state' } },
      { axis: 'ms (p50)', isLog: false, lines: { runMs: 'run of three assets, one caller' } },
      memory('engine'),
    ],
  },
  callers: {
    title: 'Runs of three assets by C callers',
    axis: 'C (callers)',
    isLog: true,
    xs: [1, 3, 10, 30, 100, 300, 1_000],
    max: 1_000,
    panels: [
      { axis: 'runs/s', isLog: true, lines: { rate: 'FlowStone', raw: 'raw' } },
      { axis: 'ms (p50)', isLog: true, lines: { runMs: 'time of a run' } },
      memory('engine, worker and callers'),
    ],
    raw: async (url, n) => (await rawRuns(url, n, runsOf(n))).perSecond,
  },
}
