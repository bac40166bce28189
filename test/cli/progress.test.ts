import stringWidth from 'string-width'
import { expect, it, vi } from 'vitest'
import { barLine, type RunProgress, runBlock, runLine } from '../../src/cli/progress.ts'
import { isLive } from '../../src/cli/screen.ts'

const NOW = Date.UTC(2026, 10, 29, 14, 0, 0)
const COUNTS = { total: 2000, stored: 2000, succeeded: 1237, failed: 3, suspended: 0 }
const PACE = { perSecond: 31, estimatedEnd: new Date(NOW + 24_500), paused: undefined }
const PAUSED = { ...PACE, estimatedEnd: undefined, paused: { since: new Date(NOW), reason: undefined } }

it('the line of a scatter has a bar, counts, rate and what is left, and fits the width or has no bar', () => {
  expect(barLine(COUNTS, PACE, 80, NOW)).toBe(
    '██████████████████░░░░░░░░░░░░ 62.0 %  1,240 of 2,000  31/s  25 s left  3 failed',
  )
  expect(barLine(COUNTS, PACE, 55, NOW)).toBe('62.0 %  1,240 of 2,000  31/s  25 s left  3 failed')
  for (let width = 60; width < 200; width++)
    expect(stringWidth(barLine(COUNTS, PACE, width, NOW))).toBeLessThanOrEqual(width)
})

it('the line of a scatter says what is not known yet, that it is paused, and what waits at gates', () => {
  const open = { ...COUNTS, total: undefined, stored: 1500, failed: 0, suspended: 40 }
  expect(barLine(open, PAUSED, 80, NOW)).toBe('1,237 of 1,500 so far  paused  40 at gates')
  expect(barLine({ ...COUNTS, total: 0, stored: 0, succeeded: 0, failed: 0 }, undefined, 40, NOW)).toMatch(/^█+ /)
})

const view = (assets: Record<string, object>): RunProgress =>
  ({
    run: { status: 'running', requestedAt: new Date(NOW - 90_000), finishedAt: undefined, assets },
    scatters: [{ ...COUNTS, asset: 'invoices', status: 'open', run: '0-a', pending: 760, paused: false }],
    paces: new Map([['invoices', PACE]]),
    reasons: ['its limit: maxConcurrent of 5 is used up (invoices)'],
  }) as unknown as RunProgress

const ASSETS = {
  orders: { status: 'reused' },
  invoices: { status: 'scattering' },
  published: { status: 'suspended', gate: '0-a.published.a1n1' },
  report: { status: 'waiting' },
}

it('the picture of a run has a line for each asset, and why it waits', () => {
  expect(runBlock(view(ASSETS), 100, NOW)).toEqual([
    'running: 1 of 4 assets, 2 min',
    '  orders     reused',
    '  invoices   ██████████████████░░░░░░░░░░░░ 62.0 %  1,240 of 2,000  31/s  25 s left  3 failed',
    '  published  suspended at gate 0-a.published.a1n1',
    '  report     waiting',
    '  waits for its limit: maxConcurrent of 5 is used up (invoices)',
  ])
})

it('the picture of a run with many assets has those that move or failed first, and counts the others', () => {
  const many = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [
      `asset${i}`,
      { status: i === 39 ? 'failed' : i < 20 ? 'reused' : 'waiting' },
    ]),
  )
  const lines = runBlock(view(many), 100, NOW)
  expect(lines[1]).toBe('  asset39  failed')
  expect(lines).toContain('  … and 25 more assets')
})

it('the line of a run in a pipe is the same as long as nothing has changed', () => {
  expect(runLine(view(ASSETS))).toBe(
    '  running: orders reused, invoices scattering 1240/2000, published suspended at gate 0-a.published.a1n1, report waiting',
  )
})

it('pictures are drawn on a terminal that has a size, unless plain lines are wanted', () => {
  const terminal = { isTTY: true, columns: 80, rows: 24 }
  const off = { CI: '', NO_COLOR: '', TERM: 'xterm' }
  const isLiveWith = (env: Record<string, string>, stream = terminal): boolean => {
    for (const [name, value] of Object.entries({ ...off, ...env })) vi.stubEnv(name, value)
    try {
      return isLive(stream)
    } finally {
      vi.unstubAllEnvs()
    }
  }
  expect(isLiveWith({})).toBe(true)
  for (const env of [{ CI: 'true' }, { NO_COLOR: '1' }, { TERM: 'dumb' }]) expect(isLiveWith(env)).toBe(false)
  for (const other of [{ isTTY: false }, { columns: 0 }, { rows: 0 }])
    expect(isLiveWith({}, { ...terminal, ...other })).toBe(false)
})
