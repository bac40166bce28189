import { expect, it } from 'vitest'
import type { Asset } from '../../src/console/api/types.ts'
import { assetsAnswer, isFound, nodeInfos } from '../../src/console/assets.ts'
import {
  areaOf,
  edgePath,
  fitted,
  fitting,
  graphHash,
  graphInput,
  held,
  isNodeIn,
  NODE_HEIGHT,
  neighbour,
  nodeWidth,
  related,
  showing,
  zoomed,
} from '../../src/console/graph.ts'
import { layOut } from '../../src/console/layout.ts'

const SIZE = { width: 1000, height: 600 }

function node(name: string, dependsOn: string[] = [], more: Partial<Asset> = {}): Asset {
  const common = { kind: 'asset' as const, queue: 'default', priority: 1, maxAttempts: 3, limits: [], shape: 'x' }
  return {
    ...common,
    name,
    dependsOn,
    pipeline: 'shop',
    state: 'none',
    partitions: 0,
    behind: [],
    openRuns: [],
    ...more,
  }
}

const assets = [
  node('a'),
  node('b', ['a']),
  node('c', ['a']),
  node('d', ['b', 'c', 'gone']),
  { ...node('x'), pipeline: 'mail' },
  { ...node('y', ['x']), pipeline: 'mail' },
]

it('a lane of a thousand nodes is laid out in layers, where no node lies on another and lines go on', () => {
  // Each depends on one to three of the forty before it.
  const many = Array.from({ length: 1000 }, (_, i) =>
    node(
      `n${i}`,
      [1, 7, 31].filter((n, k) => i >= n * (k + 1) && i % (k + 1) === 0).map((n, k) => `n${i - n * (k + 1)}`),
    ),
  )
  const [lane] = layOut(graphInput(many)).lanes
  const places = new Map(lane?.nodes.map((one) => [one.id, one]))
  expect(places.size).toBe(1000)
  expect(new Set(lane?.nodes.map(({ x, y }) => `${x} ${y}`)).size).toBe(1000)
  const columns = [...Map.groupBy(lane?.nodes ?? [], ({ x }) => x).values()]
  for (const column of columns) {
    const tops = column.map(({ y }) => y).toSorted((a, b) => a - b)
    for (const [i, top] of tops.slice(1).entries()) expect(top - (tops[i] ?? 0)).toBeGreaterThanOrEqual(NODE_HEIGHT)
  }
  for (const { from, to } of lane?.edges ?? [])
    expect((places.get(from)?.x ?? 0) + (places.get(from)?.width ?? 0)).toBeLessThan(places.get(to)?.x ?? 0)
})

it('a graph is laid out in lanes, from left to right, and no node lies on another', () => {
  const layout = layOut(graphInput(assets))
  const [shop, mail] = layout.lanes
  expect([shop?.pipeline, mail?.pipeline]).toEqual(['shop', 'mail'])
  expect(mail?.y).toBe(shop?.height)
  // What nobody may see is no dependency.
  expect(shop?.edges.map(({ from, to }) => `${from} ${to}`)).toHaveLength(4)
  const nodes = layout.lanes.flatMap((lane) => lane.nodes)
  for (const lane of layout.lanes)
    for (const { from, to, points } of lane.edges) {
      const [start, end] = [from, to].map((id) => nodes.find((one) => one.id === id))
      expect((start?.x ?? 0) + (start?.width ?? 0)).toBeLessThan(end?.x ?? 0)
      expect(points[0]?.[0]).toBe((start?.x ?? 0) + (start?.width ?? 0))
      expect(points.at(-1)?.[0]).toBe(end?.x)
    }
  for (const [i, one] of nodes.entries())
    for (const other of nodes.slice(i + 1)) {
      const isApart =
        Math.abs(one.x - other.x) >= Math.min(one.width, other.width) || Math.abs(one.y - other.y) >= NODE_HEIGHT
      expect(isApart, `${one.id} ${other.id}`).toBe(true)
      expect(one.y + NODE_HEIGHT).toBeLessThanOrEqual(layout.height)
    }
})

it('the same graph has the same hash, and another one another', () => {
  expect(graphHash(graphInput(assets))).toBe(graphHash(graphInput(assets.map((one) => ({ ...one, state: 'made' })))))
  expect(graphHash(graphInput(assets))).not.toBe(graphHash(graphInput(assets.slice(1))))
})

it('a name fits into its node, or is cut', () => {
  for (const name of ['a', 'tariff_check', 'a_name_of_twenty_one']) expect(fitted(name, nodeWidth([name]))).toBe(name)
  const long = 'x'.repeat(60)
  expect(fitted(long, nodeWidth([long]))).toMatch(/^x{15,}…$/)
  expect(
    edgePath([
      [0, 0],
      [10, 4],
    ]),
  ).toBe('M0 0C5 0 5 4 10 4')
})

it('a view zooms at a point, keeps some of the graph, and shows a node', () => {
  const view = { x: 10, y: 20, zoom: 1 }
  const twice = zoomed(view, 2, 110, 220)
  expect([(110 - twice.x) / twice.zoom, (220 - twice.y) / twice.zoom]).toEqual([100, 200])
  expect(zoomed(view, 1000, 0, 0).zoom).toBe(2)
  const layout = { width: 4000, height: 3000 }
  expect(held({ x: -99_999, y: 99_999, zoom: 1 }, layout, SIZE)).toEqual({ x: -3920, y: 520, zoom: 1 })
  expect(fitting(layout, SIZE).zoom).toBeCloseTo(0.2)
  const far = { x: 3000, y: 2000, width: 128 }
  const moved = showing(view, far, SIZE)
  expect(isNodeIn(far, areaOf(view, SIZE))).toBe(false)
  expect(isNodeIn(far, areaOf(moved, SIZE))).toBe(true)
  expect(showing(moved, far, SIZE)).toBe(moved)
  // A small step draws nothing anew.
  expect(areaOf({ ...moved, x: moved.x + 1 }, SIZE)).toEqual(areaOf(moved, SIZE))
})

it('what an asset is made from and for is found, and the nearest node in a direction', () => {
  const [shop] = layOut(graphInput(assets)).lanes
  if (!shop) throw new Error('no lane')
  expect([...related(shop, 'shop/b')].toSorted()).toEqual(['shop/a', 'shop/b', 'shop/d'])
  const at = (id: string) => shop.nodes.find((one) => one.id === id)
  const a = at('shop/a')
  if (!a) throw new Error('no node')
  expect(['shop/b', 'shop/c']).toContain(neighbour(shop.nodes, a, 'ArrowRight')?.id)
  expect(neighbour(shop.nodes, a, 'ArrowLeft')).toBeUndefined()
})

it('a node says how its asset is, and the page how many are fresh', () => {
  const now = Date.parse('2026-11-28T12:00:00Z')
  const made = { state: 'made', newest: { run: '0-r', partition: '', at: '2026-11-28T11:00:00Z' } } as const
  const infos = nodeInfos(
    [
      node('a', [], made),
      node('b', ['a'], { ...made, behind: ['a'] }),
      node('c', ['a'], { state: 'running', kind: 'scatter', openRuns: ['0-r'] }),
      node('d', ['c'], { state: 'waiting' }),
      node('e', [], { state: 'failed', error: { code: 'error', message: 'no paper\nat x' } }),
      node('f', [], { state: 'gate', openRuns: ['0-r'] }),
    ],
    [{ id: '0-r.c', status: 'open', total: 1000, stored: 1000, succeeded: 700, failed: 60, timedOut: 0 } as never],
    [{ run: '0-r', asset: 'f', kind: 'approval', deadline: '2026-11-28T12:58:00Z' } as never],
    now,
  )
  expect([...infos.values()].map(({ state, line }) => [state, line])).toEqual([
    ['done', '60 min old'],
    ['late', 'a is newer'],
    ['run', '76 % of 1,000'],
    ['wait', 'waits for c'],
    ['fail', 'failed: no paper'],
    ['gate', 'approval, 58 min'],
  ])
  const said = assetsAnswer([...infos.values()], (path) => `#/${path.join('/')}`)
  expect(said.map(({ text }) => text).join('')).toBe('1 of 6 assets is fresh. 1 failed, 1 at a gate, 1 runs, 1 behind.')
  expect(assetsAnswer([], () => '').map(({ text }) => text)).toEqual(['No pipeline is registered.'])
  expect([isFound('shop/Pages', 'pag SHOP'), isFound('shop/pages', 'x')]).toEqual([true, false])
})
