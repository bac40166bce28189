/** A curve as an option of echarts: one panel below the other, all over the same x. */
import type { Curve } from './curves.ts'
import type { Point } from './points.ts'

export interface Chart {
  readonly width: number
  readonly height: number
  readonly option: object
}

const WIDTH = 720
const HEAD = 70
const PANEL = 190
const GAP = 60
const COLOURS = ['#1f5fbf', '#c2501b', '#2f7d32', '#7b3fa0']
const TEXT = '#222'
const LINES = '#ddd'

export function chartOf({ title, axis, isLog, panels }: Curve, points: readonly Point[]): Chart {
  const xs = points.map(({ x }) => x)
  const [min, max] = [Math.min(...xs), Math.max(...xs)]
  const series = panels.flatMap(({ lines }, panel) =>
    Object.entries(lines).map(([value, name], i) => ({
      name,
      type: 'line',
      xAxisIndex: panel,
      yAxisIndex: panel,
      symbolSize: 7,
      color: COLOURS[i],
      lineStyle: { width: 2, type: value === 'raw' ? 'dashed' : 'solid' },
      data: points.flatMap(({ x, values: { [value]: y } }) => (y === undefined ? [] : [[x, Number(y.toPrecision(3))]])),
    })),
  )
  const top = (panel: number): number => HEAD + panel * (PANEL + GAP)
  const text = { color: TEXT, fontFamily: 'sans-serif' }
  return {
    width: WIDTH,
    height: top(panels.length),
    option: {
      animation: false,
      backgroundColor: '#fff',
      textStyle: text,
      title: { text: title, subtext: subtitleOf(points), left: 12, top: 8, textStyle: text, subtextStyle: text },
      legend: panels.map(({ lines }, panel) => ({
        data: Object.values(lines),
        right: 20,
        itemGap: 20,
        top: top(panel) - 6,
        textStyle: text,
      })),
      grid: panels.map((_, panel) => ({ left: 70, right: 24, top: top(panel) + 22, height: PANEL - 22 })),
      xAxis: panels.map((_, gridIndex) => ({
        gridIndex,
        type: isLog ? 'log' : 'value',
        min,
        max,
        interval: 1,
        name: gridIndex === panels.length - 1 ? axis : '',
        nameLocation: 'middle',
        nameGap: 24,
        axisLabel: text,
        splitLine: { lineStyle: { color: LINES } },
      })),
      yAxis: panels.map(({ axis: name, isLog }, gridIndex) => ({
        gridIndex,
        type: isLog ? 'log' : 'value',
        ...(isLog ? {} : { min: 0 }),
        name,
        nameTextStyle: { ...text, align: 'left', padding: [0, 0, 0, -50] },
        axisLabel: text,
        splitLine: { lineStyle: { color: LINES } },
      })),
      series,
    },
  }
}

/** All machines and days that the points are of. */
function subtitleOf(points: readonly Point[]): string {
  const machines = [...new Set(points.map(({ machine }) => machine))].join('; ')
  const dates = points.map(({ date }) => date).sort()
  const [first, last] = [dates[0], dates.at(-1)]
  return `${machines}, ${first === last ? first : `${first} to ${last}`}`
}
