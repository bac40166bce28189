/** The card with the map, one tile of it, or the same as a list. */
import type { JSX } from 'preact'
import { useMemo, useRef } from 'preact/hooks'
import { count } from '../format.ts'
import { Bar, Segments } from '../parts/card.tsx'
import { Icon } from '../parts/glyph.tsx'
import { VirtualList } from '../parts/list.tsx'
import type { MapView } from './painter.ts'
import { PHONE, PixelMap } from './pixel-map.tsx'
import type { Lit } from './pixels.ts'
import { barOf, countTexts, keysText, type SegmentRow, segmentText, worstFirst } from './segments.ts'
import { UI_STATES, wordOf } from './states.ts'

export interface MapCardProps {
  readonly view: MapView
  readonly lit: Lit
  readonly tileSize: number
  /** All instances that are known so far. */
  readonly whole: number
  /** The tile that is open. */
  readonly tile: number | undefined
  /** Without it there is one tile only, which is always open. */
  readonly hasTiles: boolean
  readonly isList: boolean
  readonly chosen: number | undefined
  readonly rowOf: (tile: number) => SegmentRow
  readonly stateOf: (instance: number) => number
  readonly isFiltered: boolean
  /** The states have come. */
  readonly isKnown: boolean
  readonly onTile: (tile: number | undefined) => void
  readonly onInstance: (instance: number) => void
  readonly onList: (isList: boolean) => void
  readonly onClear: () => void
}

const ROW = 36
const PHONE_ROW = 44

export function MapCard(props: MapCardProps): JSX.Element {
  const { view, tile, tileSize, whole, hasTiles, isList, rowOf, stateOf } = props
  const isCells = view.kind === 'cells' || view.kind === 'range'
  const shown = isList && !isCells
  const textOf = (square: number): string =>
    isCells
      ? `Instance ${count(view.from + square)}: ${wordOf(stateOf(view.from + square))}`
      : segmentText(rowOf(square))
  return (
    <section class="card map-card" aria-label="Instances">
      <header>
        <Where {...props} isCells={isCells} />
        <span class="space" />
        <span class="small faint wide-only">{hintOf(view, tileSize, shown)}</span>
        {isCells ? null : (
          <Segments
            label="How instances are shown"
            options={[
              ['map', 'Map'],
              ['list', 'List'],
            ]}
            value={isList ? 'list' : 'map'}
            onChange={(value) => props.onList(value === 'list')}
          />
        )}
        {isCells && hasTiles && tile !== undefined ? <Steps {...props} tile={tile} /> : null}
      </header>
      {shown ? (
        <SegmentList {...props} count={Math.ceil(whole / tileSize)} />
      ) : (
        <PixelMap
          view={view}
          lit={props.lit}
          tileSize={tileSize}
          label={
            isCells
              ? `Instances ${count(view.from)} to ${count(Math.max(view.from, view.to - 1))}. Arrow keys move, Enter opens, Escape goes back.`
              : `Map of ${count(whole)} instances in the order of their keys, in tiles of ${count(tileSize)}. Arrow keys move, Enter opens a tile.`
          }
          textOf={textOf}
          onOpen={(square) => (isCells ? props.onInstance(view.from + square) : props.onTile(square))}
          chosen={props.chosen !== undefined && isCells ? props.chosen - view.from : undefined}
          line={<Line {...props} isCells={isCells} />}
          rowText={isCells ? count : shortCount}
        />
      )}
    </section>
  )
}

/** Axes may shorten. */
function shortCount(n: number): string {
  if (n === 0) return '0'
  return n >= 1_000_000 && n % 100_000 === 0 ? `${n / 1_000_000} M` : `${count(n / 1000)} k`
}

function hintOf(view: MapView, tileSize: number, isList: boolean): string {
  if (isList) return 'Most failures first'
  if (view.kind === 'cells' || view.kind === 'range') return 'Choose an instance to see its attempts'
  if (view.kind === 'summaries') return `Each tile is ${count(tileSize)} instances, by shares`
  return `Each tile is ${count(tileSize)} instances. Where they share a pixel, the worst shows`
}

function Where(props: MapCardProps & { isCells: boolean }): JSX.Element {
  const { view, tile, hasTiles, onTile, isCells } = props
  if (!isCells || !hasTiles || tile === undefined || !('from' in view))
    return (
      <>
        <h2>All instances</h2>
        <span class="small faint cut wide-only">in the order of their keys</span>
      </>
    )
  return (
    <>
      <button type="button" class="button small" onClick={() => onTile(undefined)}>
        <Icon name="left" />
        All
      </button>
      <h2>Segment {tile}</h2>
      <span class="small faint cut wide-only">{keysText(view.from, view.to)}</span>
    </>
  )
}

function Steps({ tile, whole, tileSize, onTile }: MapCardProps & { tile: number }): JSX.Element {
  const last = Math.ceil(whole / tileSize) - 1
  return (
    <span class="line steps">
      <button type="button" class="button small" disabled={tile <= 0} onClick={() => onTile(tile - 1)}>
        Previous
      </button>
      <button type="button" class="button small" disabled={tile >= last} onClick={() => onTile(tile + 1)}>
        Next
      </button>
    </span>
  )
}

function Line(props: MapCardProps & { isCells: boolean }): JSX.Element {
  const { isCells, tile, rowOf, tileSize, isFiltered, onClear, hasTiles } = props
  const texts = isCells && hasTiles && tile !== undefined ? countTexts(rowOf(tile).counts) : []
  return (
    <>
      {texts.map(({ state, text }) => (
        <span class={state === 3 ? 'tone-fail strong' : ''}>{text}</span>
      ))}
      {texts.length === 0 ? (
        <span>
          {isCells
            ? 'Left to right, top to bottom. Choose an instance to see its attempts.'
            : `Left to right, top to bottom. Choose a tile to see its ${count(tileSize)} instances.`}
        </span>
      ) : null}
      {isFiltered ? (
        <button type="button" class="button small" onClick={onClear}>
          Show all states
        </button>
      ) : null}
    </>
  )
}

/** Rows keep their order while they are looked at. */
function SegmentList(props: {
  count: number
  isKnown: boolean
  rowOf: (tile: number) => SegmentRow
  onTile: (tile: number) => void
}): JSX.Element {
  const { rowOf, isKnown } = props
  const order = useRef<readonly number[]>([])
  const rows = useMemo(() => Array.from({ length: props.count }, (_, tile) => tile), [props.count])
  if (order.current.length === 0 && isKnown) order.current = worstFirst(rows.map(rowOf))
  // Tiles of keys that came later stand at the end.
  const known = new Set(order.current)
  const tiles = [...order.current.filter((tile) => tile < props.count), ...rows.filter((tile) => !known.has(tile))]
  return (
    <VirtualList
      label="Segments, most failures first"
      class="segment-list"
      rows={tiles}
      rowHeight={matchMedia(PHONE).matches ? PHONE_ROW : ROW}
      keyOf={String}
      row={(tile, place) => <SegmentLine row={rowOf(tile)} place={place} onTile={props.onTile} />}
    />
  )
}

function SegmentLine(props: {
  row: SegmentRow
  place: { readonly top: string; readonly height: string }
  onTile: (tile: number) => void
}): JSX.Element {
  const { row } = props
  const at = (state: number): number => row.counts[state] ?? 0
  return (
    <button
      type="button"
      class="list-row segment-row"
      style={{ ...props.place }}
      data-nav
      onClick={() => props.onTile(row.tile)}
    >
      <span class="strong">Segment {row.tile}</span>
      <span class="small faint cut wide-only">{keysText(row.from, row.to)}</span>
      <Bar parts={barOf(row.counts)} />
      {[3, 4, 0].map((state) => (
        <span
          class={`small number ${state === 3 && at(state) > 0 ? 'tone-fail strong' : 'dimmed'} segment-${UI_STATES[state]}`}
        >
          {count(at(state))} {wordOf(state)}
        </span>
      ))}
    </button>
  )
}
