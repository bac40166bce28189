/**
 * A quick layout of one large lane: layers from left to right, each ordered by where its neighbours
 * are (the barycentre method of Sugiyama, Tagawa and Toda, 1981). The time grows with the number of
 * edges, where the library's grows with the layers that they cross, too. Lines are straight ahead,
 * and not led around what is in between.
 */
import type { GraphNode } from './graph.ts'

const SWEEPS = 8

interface Place {
  readonly layer: number
  /** In its layer, of which 0 is the middle. */
  readonly at: number
}

/** By name. */
export function layersOf(nodes: readonly GraphNode[]): ReadonlyMap<string, Place> {
  const known = new Map(nodes.map((node) => [node.name, node]))
  const neighbours = new Map<string, { readonly before: string[]; readonly behind: string[] }>()
  for (const { name } of nodes) neighbours.set(name, { before: [], behind: [] })
  for (const { name, dependsOn } of nodes)
    for (const dep of dependsOn) {
      neighbours.get(name)?.before.push(dep)
      neighbours.get(dep)?.behind.push(name)
    }
  const layerOf = new Map<string, number>()
  for (const { name } of ordered(nodes, known))
    layerOf.set(name, Math.max(0, ...(known.get(name)?.dependsOn ?? []).map((dep) => (layerOf.get(dep) ?? 0) + 1)))
  // As near to what needs it as may be: what nothing comes before would else all be at the left.
  for (const { name } of ordered(nodes, known).toReversed()) {
    const { before = [], behind = [] } = neighbours.get(name) ?? {}
    if (before.length === 0 && behind.length > 0)
      layerOf.set(name, Math.min(...behind.map((next) => layerOf.get(next) ?? 0)) - 1)
  }
  const layers: string[][] = []
  for (const { name } of nodes) {
    const layer = layerOf.get(name) ?? 0
    layers[layer] ??= []
    layers[layer].push(name)
  }
  const place = new Map<string, number>()
  const settle = (layer: readonly string[]): void => {
    for (const [i, name] of layer.entries()) place.set(name, i - (layer.length - 1) / 2)
  }
  for (const layer of layers) settle(layer ?? [])
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isAhead = sweep % 2 === 0
    for (const layer of isAhead ? layers : layers.toReversed()) {
      if (!layer) continue
      const wish = new Map(
        layer.map((name) => {
          const { before = [], behind = [] } = neighbours.get(name) ?? {}
          const from = isAhead ? before : behind
          const sum = from.reduce((total, one) => total + (place.get(one) ?? 0), 0)
          return [name, from.length === 0 ? (place.get(name) ?? 0) : sum / from.length]
        }),
      )
      layer.sort((a, b) => (wish.get(a) ?? 0) - (wish.get(b) ?? 0))
      settle(layer)
    }
  }
  return new Map(nodes.map(({ name }) => [name, { layer: layerOf.get(name) ?? 0, at: place.get(name) ?? 0 }]))
}

/** Each behind what it depends on. */
function ordered(nodes: readonly GraphNode[], known: ReadonlyMap<string, GraphNode>): GraphNode[] {
  const left = new Map(nodes.map(({ name, dependsOn }) => [name, dependsOn.length]))
  const behind = new Map<string, string[]>()
  for (const { name, dependsOn } of nodes)
    for (const dep of dependsOn) behind.set(dep, [...(behind.get(dep) ?? []), name])
  const found = nodes.filter(({ dependsOn }) => dependsOn.length === 0)
  // It grows while it is walked.
  for (const { name } of found)
    for (const next of behind.get(name) ?? []) {
      const rest = (left.get(next) ?? 0) - 1
      left.set(next, rest)
      const node = known.get(next)
      if (rest === 0 && node) found.push(node)
    }
  return found
}
