/**
 * The graph of assets. Moving it sets one attribute; only when another piece comes into view are
 * nodes drawn anew. Far away, a node is a dot and a lane its name and counts.
 */
import type { JSX } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { countStates, NODE_WORDS, type NodeInfo } from '../assets.ts'
import { count } from '../format.ts'
import {
  type Area,
  areaOf,
  type Direction,
  DOTS_BELOW,
  edgePath,
  fitted,
  fitting,
  held,
  isEdgeIn,
  isNodeIn,
  type Layout,
  NODE_HEIGHT,
  neighbour,
  type PlacedEdge,
  type PlacedLane,
  type PlacedNode,
  related,
  type Size,
  showing,
  type View,
  zoomed,
} from '../graph.ts'
import { go, href } from '../state/place.ts'
import type { UiState } from '../words.ts'
import { GLYPHS } from './glyph.tsx'

const STEP = 1.25
const PAN = 80
const DRAG_FROM = 4

export interface GraphProps {
  readonly layout: Layout
  readonly infos: ReadonlyMap<string, NodeInfo>
  /** `pipeline/asset`. */
  readonly selected: string | undefined
  readonly isDim: (info: NodeInfo) => boolean
  /** What a link keeps. */
  readonly query: Readonly<Record<string, string>>
  /** Nodes that a search has found: the first one is shown. */
  readonly found: string | undefined
}

export function GraphView(props: GraphProps): JSX.Element {
  const { layout, selected, found } = props
  const { box, stage, drawn, size, move, view } = useView(layout)
  const nodes = layout.lanes.flatMap((lane) => lane.nodes)
  const wanted = found ?? selected
  useEffect(() => {
    const node = nodes.find(({ id }) => id === wanted)
    if (node && size.width > 0) move((now) => showing(now, node, size))
  }, [wanted, layout, size.width])
  const onKey = (event: KeyboardEvent): void => {
    const [x, y] = [size.width / 2, size.height / 2]
    const node = nodes.find(({ id }) => id === (event.target as Element).getAttribute('data-node'))
    const pan = ({ ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] } as const)[
      event.key as Direction
    ]
    if (event.key === '+' || event.key === '=') move((now) => zoomed(now, STEP, x, y))
    else if (event.key === '-') move((now) => zoomed(now, 1 / STEP, x, y))
    else if (event.key === '0') move(() => fitting(layout, size))
    else if (!pan) return
    else if (node && !event.shiftKey) {
      const lane = layout.lanes.find((one) => one.nodes.includes(node))
      const next =
        neighbour(lane?.nodes ?? [], node, event.key as Direction) ?? neighbour(nodes, node, event.key as Direction)
      if (next) {
        move((now) => showing(now, next, size))
        requestAnimationFrame(() =>
          stage.current?.querySelector<SVGElement>(`[data-node="${CSS.escape(next.id)}"]`)?.focus(),
        )
      }
    } else move((now) => ({ ...now, x: now.x + pan[0], y: now.y + pan[1] }))
    event.preventDefault()
  }
  const lane = layout.lanes.find((one) => one.nodes.some(({ id }) => id === selected))
  // One node is reached by the tabulator; arrow keys go on from there.
  const inView = nodes.filter((node) => isNodeIn(node, drawn.area))
  const stop = (inView.find(({ id }) => id === selected) ?? inView[0])?.id
  const near = lane && selected !== undefined ? related(lane, selected) : undefined
  return (
    <div class="graph-frame">
      <div class="graph" ref={box} role="application" aria-label="Graph of assets" onKeyDown={onKey}>
        <svg width="100%" height="100%" aria-label="Assets by pipeline, from left to right">
          <g ref={stage}>
            {layout.lanes.map((one) => (
              <Lane
                key={one.pipeline}
                lane={one}
                area={drawn.area}
                isFar={drawn.isFar}
                near={near}
                stop={stop}
                {...props}
              />
            ))}
          </g>
        </svg>
      </div>
      <div class="segments graph-zoom">
        <button
          type="button"
          aria-label="Smaller"
          onClick={() => move((now) => zoomed(now, 1 / STEP, size.width / 2, size.height / 2))}
        >
          −
        </button>
        <button type="button" title="All of it" onClick={() => move(() => fitting(layout, size))}>
          {Math.round(view.zoom * 100)} %
        </button>
        <button
          type="button"
          aria-label="Larger"
          onClick={() => move((now) => zoomed(now, STEP, size.width / 2, size.height / 2))}
        >
          +
        </button>
      </div>
    </div>
  )
}

interface Drawn {
  readonly area: Area
  readonly isFar: boolean
}

const NOWHERE: Area = { left: 0, top: 0, right: 0, bottom: 0 }

/** Where the graph is, and which piece of it is drawn. */
function useView(layout: Layout): {
  box: { current: HTMLDivElement | null }
  stage: { current: SVGGElement | null }
  drawn: Drawn
  size: Size
  view: View
  move: (change: (view: View) => View) => void
} {
  const box = useRef<HTMLDivElement>(null)
  const stage = useRef<SVGGElement>(null)
  const view = useRef<View>({ x: 0, y: 0, zoom: 1 })
  const size = useRef<Size>({ width: 0, height: 0 })
  const [drawn, setDrawn] = useState<Drawn>({ area: NOWHERE, isFar: false })
  const [, setZoom] = useState('1')
  const current = useRef(layout)
  current.current = layout
  const show = (): void => {
    const { x, y, zoom } = view.current
    stage.current?.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${zoom.toFixed(4)})`)
    stage.current?.style.setProperty('--inverse', (1 / zoom).toFixed(3))
    box.current?.style.setProperty('background-position', `${x.toFixed(0)}px ${y.toFixed(0)}px`)
    const next = { area: areaOf(view.current, size.current), isFar: zoom < DOTS_BELOW }
    setDrawn((last) => (JSON.stringify(last) === JSON.stringify(next) ? last : next))
    setZoom(zoom.toFixed(2))
  }
  const move = (change: (now: View) => View): void => {
    view.current = held(change(view.current), current.current, size.current)
    show()
  }
  useLayoutEffect(show, [layout])
  useEffect(() => {
    const element = box.current
    if (!element) return
    const watch = new ResizeObserver(() => {
      size.current = { width: element.clientWidth, height: element.clientHeight }
      show()
    })
    watch.observe(element)
    const leave = listen(element, move)
    return () => {
      watch.disconnect()
      leave()
    }
  }, [])
  return { box, stage, drawn, size: size.current, view: view.current, move }
}

/** Wheel and pinch zoom or move it, one pointer moves it. Returns how to stop. */
function listen(element: HTMLElement, move: (change: (view: View) => View) => void): () => void {
  const pointers = new Map<number, { x: number; y: number }>()
  let dragged = 0
  const at = ({ clientX, clientY }: MouseEvent): { x: number; y: number } => {
    const { left, top } = element.getBoundingClientRect()
    return { x: clientX - left, y: clientY - top }
  }
  const leave = new AbortController()
  const on = <K extends keyof HTMLElementEventMap>(name: K, act: (event: HTMLElementEventMap[K]) => void): void =>
    element.addEventListener(name, act, { signal: leave.signal, passive: false, capture: name === 'click' })
  on('wheel', (event) => {
    event.preventDefault()
    const { x, y } = at(event)
    // Pinching on a touchpad comes as a wheel with ctrl.
    if (event.ctrlKey || event.metaKey) move((view) => zoomed(view, Math.exp(-event.deltaY / 200), x, y))
    else move((view) => ({ ...view, x: view.x - event.deltaX, y: view.y - event.deltaY }))
  })
  on('pointerdown', (event) => {
    if (pointers.size === 0) dragged = 0
    pointers.set(event.pointerId, at(event))
  })
  on('pointermove', (event) => {
    const before = pointers.get(event.pointerId)
    if (!before) return
    const now = at(event)
    dragged += Math.abs(now.x - before.x) + Math.abs(now.y - before.y)
    // What is held moves with the pointer, also beside the graph; a click stays a click.
    if (dragged > DRAG_FROM && !element.hasPointerCapture(event.pointerId)) element.setPointerCapture(event.pointerId)
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1]
    pointers.set(event.pointerId, now)
    if (!other) {
      if (dragged > DRAG_FROM) move((view) => ({ ...view, x: view.x + now.x - before.x, y: view.y + now.y - before.y }))
      return
    }
    const apart = (one: { x: number; y: number }): number => Math.max(1, Math.hypot(one.x - other.x, one.y - other.y))
    move((view) => zoomed(view, apart(now) / apart(before), other.x, other.y))
  })
  const end = ({ pointerId }: PointerEvent): void => {
    pointers.delete(pointerId)
  }
  on('pointerup', end)
  on('pointercancel', end)
  on('click', (event) => {
    if (dragged <= DRAG_FROM) return
    event.preventDefault()
    event.stopPropagation()
  })
  on('dragstart', (event) => event.preventDefault())
  return () => leave.abort()
}

interface LaneProps extends GraphProps {
  readonly lane: PlacedLane
  readonly area: Area
  readonly isFar: boolean
  readonly near: ReadonlySet<string> | undefined
  readonly stop: string | undefined
}

function Lane(props: LaneProps): JSX.Element | null {
  const { lane, area, isFar, infos, near, selected } = props
  if (lane.y > area.bottom || lane.y + lane.height < area.top) return null
  const nodes = lane.nodes.filter((node) => isNodeIn(node, area))
  const edges = lane.edges.filter((edge) => isEdgeIn(edge, area))
  const related = edges.filter(({ from, to }) => near?.has(from) && near.has(to))
  const rest = related.length === 0 ? edges : edges.filter((edge) => !related.includes(edge))
  const flowing = isFar ? [] : rest.filter(({ from, to }) => isFlowing(infos.get(from), infos.get(to)))
  return (
    <g>
      {lane.y === 0 ? null : <path class="lane-line" d={`M-9999 ${lane.y}H99999`} />}
      <path
        class="edge"
        d={rest
          .filter((edge) => !flowing.includes(edge))
          .map(pathOf)
          .join('')}
      />
      {flowing.length === 0 ? null : <path class="edge flow" d={flowing.map(pathOf).join('')} />}
      {related.length === 0 ? null : <path class="edge near" d={related.map(pathOf).join('')} />}
      {nodes.map((node) => {
        const info = infos.get(node.id)
        if (!info) return null
        const isSelected = node.id === selected
        return isFar ? (
          <Dot key={node.id} node={node} info={info} isSelected={isSelected} {...props} />
        ) : (
          <Node key={node.id} node={node} info={info} isSelected={isSelected} {...props} />
        )
      })}
      <text class="lane-name" x={24} y={lane.y + 30}>
        {lane.pipeline}
        {isFar ? <tspan class="lane-counts">{`  ${laneCounts(lane, infos)}`}</tspan> : null}
      </text>
    </g>
  )
}

function pathOf({ points }: PlacedEdge): string {
  return edgePath(points)
}

function isFlowing(from: NodeInfo | undefined, to: NodeInfo | undefined): boolean {
  return to?.state === 'run' && from?.state !== 'wait'
}

const COUNTED: readonly UiState[] = ['fail', 'gate', 'run', 'late', 'wait']

function laneCounts(lane: PlacedLane, infos: ReadonlyMap<string, NodeInfo>): string {
  const own = lane.nodes.flatMap(({ id }) => infos.get(id) ?? [])
  const counts = countStates(own)
  const words = COUNTED.filter((state) => counts[state] > 0).map(
    (state) => `${count(counts[state])} ${NODE_WORDS[state]}`,
  )
  return [`${count(own.length)} assets`, ...words].join(', ')
}

interface NodeProps extends GraphProps {
  readonly node: PlacedNode
  readonly info: NodeInfo
  readonly isSelected: boolean
  readonly stop: string | undefined
}

/** A link whose name is all that its looks say. */
function linkOf({ node, info, isSelected, isDim, stop, query }: NodeProps, names: string): JSX.IntrinsicElements['a'] {
  const { pipeline, name } = info.asset
  const path = ['assets', pipeline, name]
  return {
    href: href(path, query),
    class: `${names} tone-${info.state} ${isSelected ? 'selected' : ''} ${isDim(info) ? 'is-dim' : ''}`,
    tabIndex: node.id === stop ? 0 : -1,
    // It begins with what is seen of it.
    'aria-label': `${shownName(node, info)} ${shownLine(node, info)}, ${NODE_WORDS[info.state]}, ${info.id}`,
    ...({ 'data-nav': '', 'data-node': node.id } as object),
    onKeyDown: (event) => {
      if (event.key === ' ') {
        event.preventDefault()
        go(path, query)
      }
    },
  }
}

function shownName({ width }: PlacedNode, { asset }: NodeInfo): string {
  return fitted(asset.name, width)
}

function shownLine({ width }: PlacedNode, { line }: NodeInfo): string {
  return fitted(line, width, 6.4, 20)
}

function Dot(props: NodeProps): JSX.Element {
  const { node } = props
  return (
    <a {...linkOf(props, 'dot')}>
      <circle cx={node.x + node.width / 2} cy={node.y + NODE_HEIGHT / 2} r={17} />
    </a>
  )
}

function Node(props: NodeProps): JSX.Element {
  const { node, info } = props
  const { width } = node
  const { asset, state, progress } = info
  const bar = width - 20
  return (
    <a {...linkOf(props, 'node')}>
      <g transform={`translate(${node.x} ${node.y})`}>
        {asset.kind === 'scatter' ? (
          <>
            <rect class="node-back" x={6} y={-5} width={width - 12} height={20} rx={6} />
            <rect class="node-back" x={3} y={-2.5} width={width - 6} height={20} rx={6.5} />
          </>
        ) : null}
        <rect class="node-body" width={width} height={NODE_HEIGHT} rx={state === 'gate' ? 14 : 7} />
        <svg x={10} y={9} width={14} height={14} viewBox="0 0 14 14" aria-hidden="true">
          {GLYPHS[state]}
        </svg>
        <text class="node-name" x={30} y={20}>
          {shownName(node, info)}
        </text>{' '}
        <text class="node-line" x={10} y={38}>
          {shownLine(node, info)}
        </text>
        {progress === undefined ? null : (
          <>
            <rect class="node-rest" x={10} y={43.5} width={bar} height={2.5} rx={1.25} />
            <rect class="node-done" x={10} y={43.5} width={bar * Math.min(1, progress)} height={2.5} rx={1.25} />
          </>
        )}
      </g>
    </a>
  )
}
