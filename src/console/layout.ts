/** Lays the graph out: each lane by itself, one below the other. Pure, and slow: see the worker. */
import { Graph, layout as layOutGraph } from '@dagrejs/dagre'
import {
  type GraphInput,
  type GraphNode,
  LANE_BOTTOM,
  LANE_TOP,
  type Layout,
  MARGIN,
  NODE_HEIGHT,
  nodeId,
  nodeWidth,
  type PlacedEdge,
  type PlacedLane,
  type PlacedNode,
} from './graph.ts'
import { layersOf } from './layers.ts'

const BESIDE = 24
const BETWEEN = 28
/** Between layers of many, whose lines go far up and down. */
const FAR_BETWEEN = 96
/** A lane of more is laid out in layers: the library takes seconds for it. */
const LANE_MAX = 100
/** The same in a graph of more, of which each lane takes its part of a second. */
const GRAPH_MAX = 400
const LANE_OF_MANY_MAX = 30

export function layOut({ lanes }: GraphInput): Layout {
  const placed: PlacedLane[] = []
  const all = lanes.reduce((sum, { nodes }) => sum + nodes.length, 0)
  const most = all > GRAPH_MAX ? LANE_OF_MANY_MAX : LANE_MAX
  let y = 0
  for (const { pipeline, nodes } of lanes) {
    const lane = nodes.length > most ? inLayers(pipeline, nodes, y) : layOutLane(pipeline, nodes, y)
    placed.push(lane)
    y += lane.height
  }
  return { lanes: placed, width: Math.max(0, ...placed.map(({ width }) => width)), height: y }
}

function layOutLane(pipeline: string, nodes: readonly GraphNode[], y: number): PlacedLane {
  const width = nodeWidth(nodes.map(({ name }) => name))
  const graph = new Graph()
  graph.setGraph({ rankdir: 'LR', nodesep: BESIDE, ranksep: BETWEEN, ranker: 'network-simplex' })
  graph.setDefaultEdgeLabel(() => ({}))
  for (const { name } of nodes) graph.setNode(name, { width, height: NODE_HEIGHT })
  for (const { name, dependsOn } of nodes) for (const dep of dependsOn) graph.setEdge(dep, name)
  layOutGraph(graph)
  const top = y + LANE_TOP
  // It gives the middle of nodes.
  const corner = (name: string): { x: number; y: number } => {
    const at = graph.node(name) as { x: number; y: number }
    return { x: Math.round(at.x - width / 2) + MARGIN, y: Math.round(at.y - NODE_HEIGHT / 2) + top }
  }
  const placed = nodes.map(({ name }): PlacedNode => ({ id: nodeId(pipeline, name), name, width, ...corner(name) }))
  const edges = nodes.flatMap(({ name, dependsOn }) =>
    dependsOn.map((dep): PlacedEdge => {
      const { points = [] } = graph.edge(dep, name) as { points?: { x: number; y: number }[] }
      const [from, to] = [corner(dep), corner(name)]
      // One in the middle is of neighbours. More of them lead around what is in between.
      const between = points.length > 3 ? points.slice(1, -1) : []
      return {
        from: nodeId(pipeline, dep),
        to: nodeId(pipeline, name),
        points: [
          [from.x + width, from.y + NODE_HEIGHT / 2],
          ...between.map((point): [number, number] => [Math.round(point.x) + MARGIN, Math.round(point.y) + top]),
          [to.x, to.y + NODE_HEIGHT / 2],
        ],
      }
    }),
  )
  const right = Math.max(0, ...placed.map((node) => node.x + width))
  const bottom = Math.max(top, ...placed.map((node) => node.y + NODE_HEIGHT))
  return { pipeline, y, width: right + MARGIN, height: bottom + LANE_BOTTOM - y, nodes: placed, edges }
}

function inLayers(pipeline: string, nodes: readonly GraphNode[], y: number): PlacedLane {
  const width = nodeWidth(nodes.map(({ name }) => name))
  const layers = layersOf(nodes)
  const first = Math.min(0, ...[...layers.values()].map(({ at }) => at))
  const top = y + LANE_TOP
  const corner = (name: string): { x: number; y: number } => {
    const { layer, at } = layers.get(name) ?? { layer: 0, at: 0 }
    return {
      x: layer * (width + FAR_BETWEEN) + MARGIN,
      y: Math.round((at - first) * (NODE_HEIGHT + BESIDE)) + top,
    }
  }
  const placed = nodes.map(({ name }): PlacedNode => ({ id: nodeId(pipeline, name), name, width, ...corner(name) }))
  const edges = nodes.flatMap(({ name, dependsOn }) =>
    dependsOn.map((dep): PlacedEdge => {
      const [from, to] = [corner(dep), corner(name)]
      return {
        from: nodeId(pipeline, dep),
        to: nodeId(pipeline, name),
        points: [
          [from.x + width, from.y + NODE_HEIGHT / 2],
          [to.x, to.y + NODE_HEIGHT / 2],
        ],
      }
    }),
  )
  const right = Math.max(0, ...placed.map((node) => node.x + width))
  const bottom = Math.max(top, ...placed.map((node) => node.y + NODE_HEIGHT))
  return { pipeline, y, width: right + MARGIN, height: bottom + LANE_BOTTOM - y, nodes: placed, edges }
}
