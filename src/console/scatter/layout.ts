/**
 * Where instances lie: tiles on the map, cells in a tile. Pure, in pixels of the device, so that
 * nothing is blurred; `scale` of them are a pixel of the page.
 */

export interface Room {
  /** Of the page. */
  readonly width: number
  readonly scale: number
  readonly isPhone: boolean
}

export interface Place {
  readonly x: number
  readonly y: number
}

/** A grid of squares: tiles of many instances each, or cells of one. */
export interface Grid {
  readonly kind: 'tiles' | 'cells'
  readonly count: number
  readonly columns: number
  readonly rows: number
  /** Of a square, without the gap behind it. */
  readonly side: number
  readonly lefts: readonly number[]
  readonly rowPitch: number
  readonly width: number
  readonly height: number
  readonly scale: number
}

const COLUMNS = 20
const PHONE_COLUMNS = 10
/** An instance has a pixel of the page of its own then: more shows nothing more. */
const SIDE_MAX = 100
const CELL_PITCH = 5
const DENSE_PITCH = 3
const WIDE = 1700
/** So many fill the room of a tile by larger cells. */
const FEW = 2000
const FEW_HEIGHT = 220
const PITCH_MAX = 24

export function tileGrid(count: number, { width, scale, isPhone }: Room): Grid {
  const room = Math.max(1, Math.floor(width * scale))
  const gap = Math.round((isPhone ? 2 : 4) * scale)
  const columns = isPhone ? PHONE_COLUMNS : Math.max(PHONE_COLUMNS, Math.min(COLUMNS, count))
  const fitting = Math.max(1, Math.floor((room + gap) / columns) - gap)
  const side = Math.min(fitting, Math.round(SIDE_MAX * scale))
  // Tiles fill the row, unless they are as large as they may be.
  const pitch = side < fitting ? side + gap : (room - side) / Math.max(1, columns - 1)
  const rows = Math.ceil(count / columns)
  const rowPitch = Math.round(pitch)
  return {
    kind: 'tiles',
    count,
    columns,
    rows,
    side,
    lefts: Array.from({ length: columns }, (_, i) => Math.round(i * pitch)),
    rowPitch,
    width: room,
    height: Math.max(0, rows - 1) * rowPitch + (rows > 0 ? side : 0),
    scale,
  }
}

export function cellGrid(count: number, { width, scale, isPhone }: Room): Grid {
  const pitch = Math.max(1, Math.round(cellPitch(count, width, isPhone) * scale))
  const room = Math.max(pitch, Math.floor(width * scale))
  const fitting = Math.max(1, Math.floor(room / pitch))
  // Round numbers begin the rows.
  const round = count <= FEW ? 10 : isPhone ? 50 : 20
  const columns = fitting >= round ? Math.floor(fitting / round) * round : fitting
  const rows = Math.ceil(count / columns)
  return {
    kind: 'cells',
    count,
    columns,
    rows,
    side: pitch - (pitch > 3 ? Math.max(1, Math.floor(scale)) : 0),
    lefts: Array.from({ length: columns }, (_, i) => i * pitch),
    rowPitch: pitch,
    width: columns * pitch,
    height: rows * pitch,
    scale,
  }
}

function cellPitch(count: number, width: number, isPhone: boolean): number {
  if (count > 0 && count <= FEW) {
    const filling = Math.floor(Math.sqrt((width * FEW_HEIGHT) / count))
    return Math.max(CELL_PITCH, Math.min(PITCH_MAX, filling))
  }
  if (isPhone || count > 10_000) return DENSE_PITCH
  return width > WIDE ? CELL_PITCH + 1 : CELL_PITCH
}

export function placeOf(grid: Grid, i: number): Place {
  return { x: grid.lefts[i % grid.columns] ?? 0, y: Math.floor(i / grid.columns) * grid.rowPitch }
}

/** Which square is at a place of the page; undefined beside all of them. */
export function squareAt(grid: Grid, x: number, y: number): number | undefined {
  const [left, top] = [x * grid.scale, y * grid.scale]
  if (left < 0 || top < 0) return undefined
  const column = grid.lefts.findLastIndex((one) => one <= left)
  const row = Math.floor(top / grid.rowPitch)
  const i = row * grid.columns + column
  const isBeside = grid.kind === 'tiles' && left - (grid.lefts[column] ?? 0) >= grid.side
  if (column < 0 || isBeside || i >= grid.count) return undefined
  if (grid.kind === 'cells' && left >= grid.width) return undefined
  return grid.kind === 'tiles' && top - row * grid.rowPitch >= grid.side ? undefined : i
}

/** Where an arrow key leads. Undefined: it is none. */
export function moved(grid: Grid, from: number, key: string): number | undefined {
  const by: Readonly<Record<string, number>> = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: grid.columns,
    ArrowUp: -grid.columns,
    Home: -from,
    End: grid.count - 1 - from,
  }
  const step = by[key]
  if (step === undefined) return undefined
  const to = from + step
  if (key === 'ArrowUp' && to < 0) return from
  if (key === 'ArrowDown' && to >= grid.count) return from
  return Math.max(0, Math.min(grid.count - 1, to))
}

export interface RowLabel {
  readonly row: number
  readonly text: string
}

/** At the left of rows: which instance they begin with. Not closer than a line of text. */
export function rowLabels(grid: Grid, perSquare: number, first: number, text: (n: number) => string): RowLabel[] {
  const pitch = grid.rowPitch / grid.scale
  const every = Math.max(1, Math.ceil((grid.kind === 'tiles' ? 16 : 24) / pitch))
  const labels: RowLabel[] = []
  for (let row = 0; row < grid.rows; row += every)
    labels.push({ row, text: text(first + row * grid.columns * perSquare) })
  return labels
}
