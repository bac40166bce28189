/**
 * The map of all instances, and of one tile. One tab stop: arrows move, Enter opens, Esc goes back,
 * and a live line reads where one is.
 */
import type { JSX } from 'preact'
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { theme } from '../state/theme.ts'
import { cellGrid, type Grid, moved, placeOf, type Room, rowLabels, squareAt, tileGrid } from './layout.ts'
import { type MapView, Painter, paletteNow } from './painter.ts'
import type { Lit } from './pixels.ts'

export interface PixelMapProps {
  readonly view: MapView
  readonly lit: Lit
  /** Instances of a tile. */
  readonly tileSize: number
  readonly label: string
  /** What a square says: of a tile, or of an instance. */
  readonly textOf: (square: number) => string
  readonly onOpen: (square: number) => void
  /** The square that a drawer shows. */
  readonly chosen: number | undefined
  /** What stands below it while nothing is pointed at. */
  readonly line: JSX.Element
  /** A row begins with this instance: as a short text. */
  readonly rowText: (n: number) => string
}

export const PHONE = '(max-width: 760px)'
const SCALE_MAX = 2

export function PixelMap(props: PixelMapProps): JSX.Element {
  const { view, lit, tileSize, textOf, onOpen, chosen } = props
  const [box, room] = useRoom()
  const canvas = useRef<HTMLCanvasElement>(null)
  const painter = useRef<Painter>(undefined)
  const grid = useGrid(view, room, tileSize)
  const [cursor, setCursor] = useState(0)
  const [pointed, setPointed] = useState<number | undefined>(undefined)
  const [isFocused, setFocused] = useState(false)
  const [spoken, setSpoken] = useState('')
  const dark = theme.value
  const palette = useMemo(paletteNow, [dark])
  const place = viewKey(view)
  useEffect(() => {
    setCursor(0)
    setPointed(undefined)
    if (isFocused) setSpoken(textOf(0))
  }, [place])
  useLayoutEffect(() => {
    if (!canvas.current || !grid) return
    painter.current ??= new Painter(canvas.current)
    painter.current.show({ view, grid, lit, palette })
  }, [view, grid, lit, palette])
  useEffect(() => ('cells' in view ? view.cells.listen(() => painter.current?.touch()) : undefined), [view])
  useEffect(() => () => painter.current?.stop(), [])
  const shown = pointed ?? (isFocused ? cursor : undefined)
  const first = view.kind === 'cells' || view.kind === 'range' ? view.from : 0
  const onKeyDown = (event: KeyboardEvent): void => {
    if (!grid) return
    const to = moved(grid, cursor, event.key)
    if (to !== undefined) {
      setFocused(true)
      setCursor(to)
      setPointed(undefined)
      setSpoken(textOf(to))
    } else if (event.key === 'Enter' || event.key === ' ') onOpen(cursor)
    else return
    event.preventDefault()
    event.stopPropagation()
  }
  return (
    <>
      <div class={`map-box map-${view.kind}`}>
        <div class="map-labels" aria-hidden="true">
          {grid && !room?.isPhone
            ? rowLabels(grid, grid.kind === 'tiles' ? tileSize : 1, first, props.rowText).map(({ row, text }) => (
                <span style={{ top: `${(row * grid.rowPitch) / grid.scale}px` }}>{text}</span>
              ))
            : null}
        </div>
        <div class="map-room" ref={box}>
          <div
            class="map"
            // biome-ignore lint/a11y/noNoninteractiveTabindex: keys move within it, as in any application
            tabIndex={0}
            role="application"
            aria-label={props.label}
            style={grid ? { width: `${grid.width / grid.scale}px`, height: `${grid.height / grid.scale}px` } : {}}
            onPointerMove={(event) => {
              if (grid && event.pointerType !== 'touch') setPointed(squareAt(grid, event.offsetX, event.offsetY))
            }}
            onPointerLeave={() => setPointed(undefined)}
            onClick={(event) => {
              const at = grid && squareAt(grid, event.offsetX, event.offsetY)
              if (at === undefined) return
              setCursor(at)
              onOpen(at)
            }}
            onKeyDown={onKeyDown}
            onFocus={(event) => {
              // Whoever presses a button of the mouse sees where that is.
              if (!event.currentTarget.matches(':focus-visible')) return
              setFocused(true)
              setSpoken(textOf(cursor))
            }}
            onBlur={() => setFocused(false)}
          >
            <canvas ref={canvas} />
          </div>
          {grid && chosen !== undefined && chosen >= 0 && chosen < grid.count ? (
            <Frame grid={grid} square={chosen} class="map-chosen" />
          ) : null}
          {grid && shown !== undefined && shown < grid.count ? (
            <Frame grid={grid} square={shown} class="map-cursor" />
          ) : null}
        </div>
      </div>
      <div class="map-line">{shown === undefined ? props.line : <span>{textOf(shown)}</span>}</div>
      <p class="hidden" aria-live="polite">
        {spoken}
      </p>
    </>
  )
}

/** Around a square. Not on the canvas, so that moving it draws nothing. */
function Frame(props: { grid: Grid; square: number; class: string }): JSX.Element {
  const { grid, square } = props
  const { x, y } = placeOf(grid, square)
  const side = grid.side / grid.scale
  return (
    <i
      class={props.class}
      aria-hidden="true"
      style={{ left: `${x / grid.scale}px`, top: `${y / grid.scale}px`, width: `${side}px`, height: `${side}px` }}
    />
  )
}

function viewKey(view: MapView): string {
  return view.kind === 'cells' || view.kind === 'range' ? `cells ${view.from}` : 'tiles'
}

function useGrid(view: MapView, room: Room | undefined, tileSize: number): Grid | undefined {
  const isTiles = view.kind === 'tiles' || view.kind === 'summaries'
  const count =
    view.kind === 'tiles'
      ? Math.ceil(view.limit / tileSize)
      : view.kind === 'summaries'
        ? view.tiles.length
        : view.to - view.from
  return useMemo(
    () => room && (isTiles ? tileGrid(count, room) : cellGrid(count, room)),
    [isTiles, count, room?.width, room?.scale, room?.isPhone],
  )
}

function useRoom(): [{ current: HTMLDivElement | null }, Room | undefined] {
  const box = useRef<HTMLDivElement>(null)
  const [room, setRoom] = useState<Room | undefined>(undefined)
  useLayoutEffect(() => {
    const look = (): void => {
      const width = box.current?.clientWidth ?? 0
      const scale = Math.min(SCALE_MAX, Math.max(1, devicePixelRatio))
      if (width > 0) setRoom({ width, scale, isPhone: matchMedia(PHONE).matches })
    }
    look()
    const watch = new ResizeObserver(look)
    if (box.current) watch.observe(box.current)
    return () => watch.disconnect()
  }, [])
  return [box, room]
}
