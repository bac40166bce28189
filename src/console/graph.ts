/** The graph of assets: what is laid out, and where it is drawn. Pure. */
import { cut } from '../../streams/text.ts'
import type { Asset } from './api/types.ts'

export interface GraphNode {
  readonly name: string
  readonly dependsOn: readonly string[]
}

/** A lane for each pipeline. */
export interface GraphInput {
  readonly lanes: readonly { readonly pipeline: string; readonly nodes: readonly GraphNode[] }[]
}

export interface PlacedNode {
  readonly id: string
  readonly name: string
  readonly x: number
  readonly y: number
  readonly width: number
}

export interface PlacedEdge {
  readonly from: string
  readonly to: string
  readonly points: readonly (readonly [number, number])[]
}

export interface PlacedLane {
  readonly pipeline: string
  readonly y: number
  readonly width: number
  readonly height: number
  readonly nodes: readonly PlacedNode[]
  readonly edges: readonly PlacedEdge[]
}

export interface Layout {
  readonly lanes: readonly PlacedLane[]
  readonly width: number
  readonly height: number
}

export const NODE_HEIGHT = 48
export const NODE_MIN_WIDTH = 128
const NODE_MAX_WIDTH = 208
const BESIDE_NAME = 46
const CHAR_WIDTH = 7.2
/** Above and below the nodes of a lane. */
export const LANE_TOP = 52
export const LANE_BOTTOM = 32
export const MARGIN = 24

export function nodeId(pipeline: string, name: string): string {
  return `${pipeline}/${name}`
}

/** Dependencies that nobody may see are left out. */
export function graphInput(assets: readonly Pick<Asset, 'pipeline' | 'name' | 'dependsOn'>[]): GraphInput {
  const lanes = Map.groupBy(assets, ({ pipeline }) => pipeline)
  return {
    lanes: [...lanes].map(([pipeline, own]) => {
      const names = new Set(own.map(({ name }) => name))
      const nodes = own.map(({ name, dependsOn }) => ({ name, dependsOn: dependsOn.filter((dep) => names.has(dep)) }))
      return { pipeline, nodes }
    }),
  }
}

/** The same graph has the same one: FNV-1a. */
export function graphHash(input: GraphInput): string {
  let hash = 0x811c9dc5
  for (const char of JSON.stringify(input)) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193)
  return (hash >>> 0).toString(16)
}

/** All nodes of a lane are as wide as its longest name wants, within bounds. */
export function nodeWidth(names: readonly string[]): number {
  const longest = Math.max(0, ...names.map((name) => name.length))
  return Math.ceil(Math.min(NODE_MAX_WIDTH, Math.max(NODE_MIN_WIDTH, BESIDE_NAME + longest * CHAR_WIDTH)))
}

/** A name as far as it fits into a node. */
export function fitted(text: string, width: number, charWidth = CHAR_WIDTH, beside = BESIDE_NAME): string {
  const most = Math.floor((width - beside) / charWidth)
  return text.length <= most ? text : cut(text, Math.max(1, most - 1), '…')
}

/** A smooth line through points from left to right. */
export function edgePath(points: PlacedEdge['points']): string {
  const [first, ...others] = points
  if (!first) return ''
  let [x, y] = first
  let path = `M${x} ${y}`
  for (const [toX, toY] of others) {
    const bend = (toX - x) / 2
    path += `C${x + bend} ${y} ${toX - bend} ${toY} ${toX} ${toY}`
    x = toX
    y = toY
  }
  return path
}

export interface View {
  /** Where the origin of the graph is on the screen. */
  readonly x: number
  readonly y: number
  readonly zoom: number
}

export interface Size {
  readonly width: number
  readonly height: number
}

/** A piece of the graph, in its own coordinates. */
export interface Area {
  readonly left: number
  readonly top: number
  readonly right: number
  readonly bottom: number
}

export const DOTS_BELOW = 0.6
const ZOOM_MIN = 0.05
const ZOOM_MAX = 2
/** Beyond the view, less than two of these are drawn, so that not each step draws anew. */
const CELL = 400
const KEPT_IN_VIEW = 80

export function areaOf({ x, y, zoom }: View, { width, height }: Size): Area {
  const cell = CELL / zoom
  const down = (value: number): number => (Math.floor(value / cell) - 0.5) * cell
  const up = (value: number): number => (Math.ceil(value / cell) + 0.5) * cell
  return {
    left: down(-x / zoom),
    top: down(-y / zoom),
    right: up((width - x) / zoom),
    bottom: up((height - y) / zoom),
  }
}

export function isNodeIn({ x, y, width }: Pick<PlacedNode, 'x' | 'y' | 'width'>, area: Area): boolean {
  return x + width >= area.left && x <= area.right && y + NODE_HEIGHT >= area.top && y <= area.bottom
}

export function isEdgeIn({ points }: Pick<PlacedEdge, 'points'>, area: Area): boolean {
  const xs = points.map(([x]) => x)
  const ys = points.map(([, y]) => y)
  return (
    Math.max(...xs) >= area.left &&
    Math.min(...xs) <= area.right &&
    Math.max(...ys) >= area.top &&
    Math.min(...ys) <= area.bottom
  )
}

/** Some of the graph stays in view. */
export function held({ x, y, zoom }: View, layout: Size, size: Size): View {
  const within = (value: number, length: number, room: number): number =>
    Math.min(Math.max(value, KEPT_IN_VIEW - length * zoom), room - KEPT_IN_VIEW)
  return { zoom, x: within(x, layout.width, size.width), y: within(y, layout.height, size.height) }
}

/** The point of the screen stays where it is. */
export function zoomed({ x, y, zoom }: View, by: number, atX: number, atY: number): View {
  const next = Math.min(ZOOM_MAX, Math.max(ZOOM_MIN, zoom * by))
  const scale = next / zoom
  return { zoom: next, x: atX - (atX - x) * scale, y: atY - (atY - y) * scale }
}

/** All of it in view, and not larger than it is. */
export function fitting(layout: Size, size: Size): View {
  const zoom = Math.min(1, Math.max(ZOOM_MIN, Math.min(size.width / layout.width, size.height / layout.height)))
  return { zoom, x: Math.max(0, (size.width - layout.width * zoom) / 2), y: 0 }
}

/** The node is in view; where it already is, nothing moves. */
export function showing(view: View, node: Pick<PlacedNode, 'x' | 'y' | 'width'>, size: Size): View {
  const { zoom } = view
  const left = node.x * zoom + view.x
  const top = node.y * zoom + view.y
  const [width, height] = [node.width * zoom, NODE_HEIGHT * zoom]
  const isIn = left >= 0 && top >= 0 && left + width <= size.width && top + height <= size.height
  if (isIn) return view
  return { zoom, x: size.width / 2 - node.x * zoom - width / 2, y: size.height / 2 - node.y * zoom - height / 2 }
}

/** All that it is made from, and all that is made from it, with itself. */
export function related(lane: Pick<PlacedLane, 'edges'>, id: string): ReadonlySet<string> {
  const reach = (next: (edge: PlacedEdge) => readonly [string, string]): Set<string> => {
    const steps = Map.groupBy(lane.edges.map(next), ([from]) => from)
    const found = new Set([id])
    // It grows while it is walked.
    for (const one of found) for (const [, to] of steps.get(one) ?? []) found.add(to)
    return found
  }
  return new Set([...reach(({ from, to }) => [from, to]), ...reach(({ from, to }) => [to, from])])
}

export type Direction = 'ArrowLeft' | 'ArrowRight' | 'ArrowUp' | 'ArrowDown'

/** The nearest node in a direction: what is straight ahead goes before what is aside. */
export function neighbour(nodes: readonly PlacedNode[], from: PlacedNode, towards: Direction): PlacedNode | undefined {
  const isAcross = towards === 'ArrowLeft' || towards === 'ArrowRight'
  const sign = towards === 'ArrowRight' || towards === 'ArrowDown' ? 1 : -1
  let best: { node: PlacedNode; far: number } | undefined
  for (const node of nodes) {
    const [dx, dy] = [node.x - from.x, node.y - from.y]
    const ahead = sign * (isAcross ? dx : dy)
    if (ahead <= 1) continue
    const far = ahead + 2 * Math.abs(isAcross ? dy : dx)
    if (!best || far < best.far) best = { node, far }
  }
  return best?.node
}
