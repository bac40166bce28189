import fc from 'fast-check'
import { expect, it } from 'vitest'
import { changedStates, encodeStates } from '../../projections/scatter/map.ts'
import { Cells, type MapPart, TILE, writeRuns } from '../../src/console/scatter/cells.ts'
import { cellGrid, type Grid, moved, placeOf, rowLabels, squareAt, tileGrid } from '../../src/console/scatter/layout.ts'
import {
  ALL_LIT,
  colourOf,
  mixed,
  type Palette,
  paintSummary,
  paintTile,
  shareOut,
} from '../../src/console/scatter/pixels.ts'
import { segmentText, worstFirst } from '../../src/console/scatter/segments.ts'

const [WAITING, RUNNING, DONE, FAILED, RETRYING, GATE] = [0, 1, 2, 3, 4, 5] as const
const WIDE = { width: 1100, scale: 1, isPhone: false }
const PHONE = { width: 340, scale: 2, isPhone: true }
/** Colours that say which state they are of: dim ones are negative in the tests' words. */
const PALETTE: Palette = {
  full: Uint32Array.from({ length: 7 }, (_, state) => 100 + state),
  dim: Uint32Array.from({ length: 7 }, (_, state) => 200 + state),
}

function part(states: Uint8Array, from = 0): MapPart {
  return { from, length: states.length, runs: Buffer.from(encodeStates(states)).toString('base64') }
}

const anyStates = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 1, max: 400 })), { maxLength: 40 })
  .map((runs) => Uint8Array.from(runs.flatMap(([state, length]) => new Array<number>(length).fill(state))))

it('a map and all of its changes give the states that the server has', () => {
  fc.assert(
    fc.property(fc.array(anyStates, { minLength: 1, maxLength: 5 }), (all) => {
      const cells = new Cells()
      let before = new Uint8Array()
      for (const [i, next] of all.entries()) {
        // Keys are never fewer than before.
        const states = new Uint8Array(Math.max(before.length, next.length))
        states.set(before)
        states.set(next)
        if (i === 0) cells.load(part(states))
        else {
          const change = changedStates(before, states)
          if (change) cells.apply(part(change.states, change.from))
        }
        before = states
        expect(cells.states).toEqual(states)
      }
    }),
  )
})

it('runs beyond the end are left out, and one of many millions is read', () => {
  const states = new Uint8Array(5)
  expect(writeRuns(encodeStates(new Uint8Array(9).fill(DONE)), states, 2, () => {})).toBe(5)
  expect(states).toEqual(Uint8Array.of(0, 0, DONE, DONE, DONE))
  const many = new Uint8Array(20_000_000)
  expect(writeRuns(encodeStates(new Uint8Array(20_000_000).fill(DONE)), many, 0, () => {})).toBe(20_000_000)
})

it('only tiles in which something changed are drawn anew', () => {
  const cells = new Cells()
  const states = new Uint8Array(5 * TILE)
  cells.load(part(states))
  expect(cells.takeDirty()).toBe('all')
  expect(cells.takeDirty()).toEqual(new Set())
  const after = states.slice()
  after[TILE] = FAILED
  after.fill(DONE, 3 * TILE - 1, 3 * TILE + 1)
  const change = changedStates(states, after)
  if (change) cells.apply(part(change.states, change.from))
  expect(cells.takeDirty()).toEqual(new Set([1, 2, 3]))
  expect(cells.countsOf(2 * TILE, 3 * TILE)).toEqual([TILE - 1, 0, 1, 0, 0, 0, 0])
})

it('a million instances are 5 rows of 20 tiles, on a phone 10 rows of 10', () => {
  const wide = tileGrid(100, WIDE)
  expect(wide).toMatchObject({ columns: 20, rows: 5, side: 51, width: 1100 })
  expect(placeOf(wide, 19).x + wide.side).toBe(1100)
  const phone = tileGrid(100, PHONE)
  expect(phone).toMatchObject({ columns: 10, rows: 10, width: 680 })
  expect(rowLabels(wide, TILE, 0, String).map(({ text }) => text)).toEqual([
    '0',
    '200000',
    '400000',
    '600000',
    '800000',
  ])
})

it('fewer tiles are larger, and never larger than a pixel an instance', () => {
  expect(tileGrid(10, WIDE)).toMatchObject({ columns: 10, side: 100 })
  expect(tileGrid(10, { width: 3000, scale: 2, isPhone: false }).side).toBe(200)
})

it('a tile opens at 5 pixels a cell, few instances are larger, and very many smaller', () => {
  expect(cellGrid(10_000, WIDE)).toMatchObject({ columns: 220, rows: 46, rowPitch: 5, side: 4, width: 1100 })
  expect(cellGrid(10_000, PHONE)).toMatchObject({ columns: 100, rowPitch: 6 })
  expect(cellGrid(40, WIDE).rowPitch).toBe(24)
  expect(cellGrid(2000, WIDE)).toMatchObject({ rowPitch: 11, columns: 100, rows: 20 })
  expect(cellGrid(100_000, WIDE).rowPitch).toBe(3)
})

it.each([
  ['tiles', tileGrid(57, WIDE)],
  ['tiles of a phone', tileGrid(57, PHONE)],
  ['cells', cellGrid(9_990, PHONE)],
])('each of %s is found where it lies', (_, grid: Grid) => {
  for (let i = 0; i < grid.count; i += 7) {
    const { x, y } = placeOf(grid, i)
    expect(squareAt(grid, (x + grid.side / 2) / grid.scale, (y + grid.side / 2) / grid.scale)).toBe(i)
  }
  expect(squareAt(grid, -1, 1)).toBeUndefined()
  expect(squareAt(grid, grid.width / grid.scale - 1, (grid.rows * grid.rowPitch) / grid.scale - 1)).toBeUndefined()
})

it('arrows move by one and by a row, and stay on the map', () => {
  const grid = tileGrid(45, WIDE)
  expect([moved(grid, 3, 'ArrowRight'), moved(grid, 3, 'ArrowDown'), moved(grid, 23, 'ArrowUp')]).toEqual([4, 23, 3])
  expect([moved(grid, 0, 'ArrowLeft'), moved(grid, 3, 'ArrowUp'), moved(grid, 30, 'ArrowDown')]).toEqual([0, 3, 30])
  expect([moved(grid, 7, 'Home'), moved(grid, 7, 'End'), moved(grid, 7, 'x')]).toEqual([0, 44, undefined])
})

function pixelsOf(grid: Grid): Uint32Array {
  return new Uint32Array(grid.width * grid.height)
}

it('instances that share a pixel show the worst: failed, retrying, gate, running, waiting, done', () => {
  const worst = [FAILED, RETRYING, GATE, RUNNING, WAITING, DONE]
  for (const [i, state] of worst.entries()) {
    const grid = { ...tileGrid(100, WIDE), side: 50 }
    const states = new Uint8Array(TILE).fill(DONE)
    // Of the four instances of the first pixel.
    states[0] = worst[i + 1] ?? DONE
    states[101] = state
    const pixels = pixelsOf(grid)
    paintTile(pixels, grid, 0, { states, limit: TILE }, PALETTE, ALL_LIT)
    expect(pixels[0]).toBe(100 + state)
    expect(pixels[1]).toBe(100 + DONE)
  }
})

it('one that failed among a million has a pixel, whatever the size of a tile', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: TILE - 1 }), fc.integer({ min: 12, max: 200 }), (failed, side) => {
      const grid: Grid = { ...tileGrid(1, { ...WIDE, width: 200 }), side, width: side, height: side }
      const states = new Uint8Array(TILE).fill(DONE)
      states[failed] = FAILED
      const pixels = pixelsOf(grid)
      paintTile(pixels, grid, 0, { states, limit: TILE }, PALETTE, ALL_LIT)
      expect(pixels.includes(100 + FAILED)).toBe(true)
      expect(pixels.every((colour) => colour === 100 + FAILED || colour === 100 + DONE)).toBe(true)
    }),
  )
})

it('a filter dims all others, also where what it shows is not the worst', () => {
  const grid = { ...tileGrid(100, WIDE), side: 50 }
  const states = new Uint8Array(TILE).fill(DONE)
  states[0] = FAILED
  states[1] = RUNNING
  states[2] = FAILED
  const pixels = pixelsOf(grid)
  paintTile(pixels, grid, 0, { states, limit: TILE }, PALETTE, { state: RUNNING, marked: undefined })
  expect([...pixels.subarray(0, 3)]).toEqual([100 + RUNNING, 200 + FAILED, 200 + DONE])
  const marked = new Uint8Array(TILE)
  marked[2] = 1
  paintTile(pixels, grid, 0, { states, limit: TILE }, PALETTE, { state: undefined, marked })
  expect([...pixels.subarray(0, 3)]).toEqual([200 + FAILED, 100 + FAILED, 200 + DONE])
})

it('instances whose keys are not stored wait, and beyond the last one nothing is', () => {
  const grid = { ...tileGrid(100, WIDE), side: 100, width: 100, height: 100 }
  const pixels = pixelsOf(grid)
  paintTile(pixels, grid, 0, { states: new Uint8Array(100).fill(DONE), limit: 250 }, PALETTE, ALL_LIT)
  expect([pixels[99], pixels[100], pixels[249], pixels[250]]).toEqual([100 + DONE, 100 + WAITING, 100 + WAITING, 0])
})

it('a tile of counts shows whatever there is, and is full', () => {
  const shares = shareOut([0, 0, 99_999, 1, 0, 0, 0], 2500)
  expect(shares[FAILED]).toBe(1)
  expect(shares.reduce((sum, n) => sum + n)).toBe(2500)
  const grid = tileGrid(200, WIDE)
  const pixels = pixelsOf(grid)
  paintSummary(pixels, grid, 3, [0, 0, 99_999, 1, 0, 0, 0], PALETTE, ALL_LIT)
  const { x } = placeOf(grid, 3)
  expect([pixels[x], pixels[x + 1], pixels[x - 1]]).toEqual([100 + FAILED, 100 + DONE, 0])
})

it('colours of the page become those of a canvas', () => {
  expect(colourOf('rgb(34, 104, 82)')).toBe(0xff526822)
  expect(mixed(0xff000000, 0xffffffff, 0.5)).toBe(0xff808080)
})

it('segments stand with most failures first, and are read as words', () => {
  const row = (tile: number, failed: number, retrying = 0) => ({
    tile,
    from: tile * TILE,
    to: (tile + 1) * TILE,
    counts: [0, 0, TILE - failed - retrying, failed, retrying, 0, 0],
  })
  expect(worstFirst([row(0, 0), row(1, 5), row(2, 0, 1), row(3, 9)])).toEqual([3, 1, 2, 0])
  expect(segmentText(row(28, 1764))).toBe('Segment 28, keys 280,000 to 289,999: 1,764 failed, 8,236 succeeded')
})
