import stringWidth from 'string-width'
import { expect, it } from 'vitest'
import { fields, table } from '../../src/cli/table.ts'

const NOW = Date.UTC(2026, 10, 29, 14, 0, 0)
const RUN = '0-mx0mlsqq-50652902e3ea876f'
const HEAD = ['run', 'status', 'asset', 'partition', 'requested', 'error']
const ROWS = [
  [RUN, 'running', 'report', undefined, new Date(NOW - 720_000), undefined],
  [
    RUN,
    'failed',
    '東京の天気予報を毎日まとめる資産',
    undefined,
    new Date(NOW - 5_000),
    'it was 🔥 and \u001b[2J\nnothing else',
  ],
]

const at = (width: number | undefined): string[] => table(HEAD, ROWS, 'none', { width, nowMs: NOW })

it('a table in a pipe has all columns and cuts nothing; control characters are escaped', () => {
  expect(at(undefined)).toMatchInlineSnapshot(`
    [
      "RUN                          STATUS   ASSET                             PARTITION  REQUESTED                 ERROR",
      "0-mx0mlsqq-50652902e3ea876f  running  report                            -          2026-11-29T13:48:00.000Z  -",
      "0-mx0mlsqq-50652902e3ea876f  failed   東京の天気予報を毎日まとめる資産  -          2026-11-29T13:59:55.000Z  it was 🔥 and \\u001b[2J\\nnothing else",
    ]
  `)
})

it('a table on a wide terminal is the same as in a pipe', () => {
  expect(at(200)).toEqual(at(undefined))
})

it('a table on a narrower terminal leaves out empty columns, then shows ages, then cuts long cells but no id', () => {
  expect(at(145)).toMatchInlineSnapshot(`
    [
      "RUN                          STATUS   ASSET                             REQUESTED                 ERROR",
      "0-mx0mlsqq-50652902e3ea876f  running  report                            2026-11-29T13:48:00.000Z  -",
      "0-mx0mlsqq-50652902e3ea876f  failed   東京の天気予報を毎日まとめる資産  2026-11-29T13:59:55.000Z  it was 🔥 and \\u001b[2J\\nnothing else",
    ]
  `)
  expect(at(110)).toMatchInlineSnapshot(`
    [
      "RUN                          STATUS   ASSET                          REQUESTED   ERROR",
      "0-mx0mlsqq-50652902e3ea876f  running  report                         12 min ago  -",
      "0-mx0mlsqq-50652902e3ea876f  failed   東京の天気予報を毎日まとめる…  5 s ago     it was 🔥 and \\u001b[2J\\nnot…",
    ]
  `)
  expect(at(80)).toMatchInlineSnapshot(`
    [
      "RUN                          STATUS   ASSET          REQUESTED   ERROR",
      "0-mx0mlsqq-50652902e3ea876f  running  report         12 min ago  -",
      "0-mx0mlsqq-50652902e3ea876f  failed   東京の天気予…  5 s ago     it was 🔥 and…",
    ]
  `)
})

it('a table on a terminal that is too narrow for it becomes a list of fields', () => {
  expect(at(50)).toMatchInlineSnapshot(`
    [
      "run        0-mx0mlsqq-50652902e3ea876f",
      "status     running",
      "asset      report",
      "requested  2026-11-29T13:48:00.000Z",
      "",
      "run        0-mx0mlsqq-50652902e3ea876f",
      "status     failed",
      "asset      東京の天気予報を毎日まとめる資産",
      "requested  2026-11-29T13:59:55.000Z",
      "error      it was 🔥 and \\u001b[2J\\nnothing else",
    ]
  `)
})

it('a table is never wider than the terminal, and its columns stand below each other', () => {
  for (let width = 68; width <= 200; width++) {
    const lines = at(width)
    expect(Math.max(...lines.map((line) => stringWidth(line)))).toBeLessThanOrEqual(width)
    expect(lines).toHaveLength(3)
  }
})

it('a list of fields puts all values below each other, however wide the names are', () => {
  expect(fields({ id: RUN, 名前: 'x', left: undefined })).toEqual([`id    ${RUN}`, '名前  x'])
})

it('a table without rows is a line that says so', () => {
  expect(table(HEAD, [], 'no runs')).toEqual(['no runs'])
})
