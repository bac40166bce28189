import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { chartOf } from '../bench/curves/chart.ts'
import { CURVES } from '../bench/curves/curves.ts'
import { type Point, withPoint } from '../bench/curves/points.ts'
import { startRig } from '../bench/rig.ts'

function point(x: number, values: Point['values'], date = '2026-11-28'): Point {
  return { x, values, date, machine: '2 cores' }
}

describe('withPoint', () => {
  it('puts a point in the place of the one at its x, in order, and leaves other curves', () => {
    const other = [point(1, { rate: 1 })]
    const before = { size: [point(10, { rate: 1 }), point(1000, { rate: 3 })], log: other }
    const after = withPoint(withPoint(before, 'size', point(100, { rate: 2 })), 'size', point(10, { rate: 9 }))
    expect(after.size?.map(({ x, values }) => [x, values.rate])).toEqual([
      [10, 9],
      [100, 2],
      [1000, 3],
    ])
    expect(after.log).toBe(other)
  })
})

describe('chartOf', () => {
  it('draws a line for each value that a panel names, over the x of all points', () => {
    const points = [
      point(10, { rate: 100, raw: 300, nodeMb: 150, serverMb: 20 }),
      point(1000, { rate: 9000, nodeMb: 160, serverMb: 21 }, '2026-11-29'),
    ]
    const { option } = chartOf(CURVES.size, points)
    expect(option).toMatchObject({
      title: { text: 'Scatter of N instances that do nothing', subtext: '2 cores, 2026-11-28 to 2026-11-29' },
      xAxis: [
        { type: 'log', min: 10, max: 1000, name: '' },
        { type: 'log', min: 10, max: 1000, name: 'N (instances)' },
      ],
      yAxis: [{ name: 'instances/s' }, { name: 'peak RSS (MB)' }],
      series: [
        {
          name: 'FlowStone',
          yAxisIndex: 0,
          data: [
            [10, 100],
            [1000, 9000],
          ],
        },
        { name: 'raw', yAxisIndex: 0, data: [[10, 300]] },
        {
          name: 'engine, worker and client',
          yAxisIndex: 1,
          data: [
            [10, 150],
            [1000, 160],
          ],
        },
        {
          name: 'nats-server',
          yAxisIndex: 1,
          data: [
            [10, 20],
            [1000, 21],
          ],
        },
      ],
    })
  })

  it('finds all of its values in what the curve over facts measures on a filled log', async () => {
    await using rig = await startRig('default')
    const { stdout } = await promisify(execFile)(process.execPath, ['bench/curves/point.ts', 'log', '10', rig.url])
    const lines = CURVES.log.panels.flatMap((panel) => Object.keys(panel.lines))
    // The server's is measured outside.
    expect(Object.keys(JSON.parse(stdout)).toSorted()).toEqual(lines.filter((name) => name !== 'serverMb').toSorted())
  })
})
