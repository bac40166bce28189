import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const run = promisify(execFile)

async function bench(...args: string[]): Promise<Record<string, unknown>[]> {
  const { stdout } = await run(process.execPath, [
    'bench/main.ts',
    ...args,
    '--json',
    '--repeats',
    '1',
    '--fsync',
    'default',
  ])
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

describe('npm run bench -- NAME --json', { timeout: 120_000 }, () => {
  it('prints a JSON line for the speed of a scatter, with the raw ceiling and the ratio, and for its peak memory', async () => {
    const figures = await bench('scatter', '--n', '60,120')
    for (const figure of figures)
      expect(Object.keys(figure)).toEqual(['bench', 'n', 'fsync', 'value', 'unit', 'raw', 'ratio'])
    const speeds = figures.filter(({ unit }) => unit === 'instances/s')
    expect(speeds).toMatchObject([
      { bench: 'scatter', n: 60, fsync: 'default' },
      { bench: 'scatter', n: 120, fsync: 'default' },
    ])
    for (const { value, raw, ratio } of speeds) {
      expect(value).toBeGreaterThan(0)
      expect(raw).toBeGreaterThan(0)
      expect(ratio).toBeCloseTo(Number(value) / Number(raw), 2)
    }
    const memory = figures.filter(({ unit }) => String(unit).startsWith('MB'))
    expect(memory.map(({ n, unit, raw, ratio }) => ({ n, unit, raw, ratio }))).toEqual([
      { n: 60, unit: 'MB (peak RSS)', raw: null, ratio: null },
      { n: 60, unit: 'MB (peak live heap)', raw: null, ratio: null },
      { n: 120, unit: 'MB (peak RSS)', raw: null, ratio: null },
      { n: 120, unit: 'MB (peak live heap)', raw: null, ratio: null },
      { n: 120, unit: 'MB (live heap growth since n=60)', raw: null, ratio: null },
    ])
    for (const { value } of memory.slice(0, 4)) expect(value).toBeGreaterThan(1)
  })

  it('names the benches there are when asked for another one', async () => {
    await expect(bench('scater')).rejects.toMatchObject({
      stdout: '',
      stderr: expect.stringContaining('there are scatter, asset, limited, mixed, million, limiter'),
    })
  })

  it('prints what each feature writes: a run of three assets has one task', async () => {
    const figures = await bench('cost', '--n', '3')
    const ofRow = figures.filter(({ unit }) => /three assets in a row/.test(String(unit)))
    expect(ofRow.map(({ unit, value }) => [unit, value])).toEqual([
      ['messages on LOG: run of three assets in a row', 5],
      ['messages on WORK: run of three assets in a row', 1],
      ['messages on state: run of three assets in a row', expect.any(Number)],
      ['messages on FEED: run of three assets in a row', expect.any(Number)],
      ['bytes that stay: run of three assets in a row', expect.any(Number)],
    ])
    // Four, and a position for each batch.
    expect(ofRow[3]?.value).toBeGreaterThan(4)
    expect(ofRow[3]?.value).toBeLessThanOrEqual(5.5)
  })

  it('prints what messages cost side by side and as a batch', async () => {
    const figures = await bench('writes', '--n', '20')
    expect(figures.map(({ unit }) => unit)).toEqual([
      'ms side by side',
      'ms side by side (CPU of the server)',
      'ms as a batch',
      'ms as a batch (CPU of the server)',
    ])
    for (const { unit, value } of figures) if (!/CPU/.test(String(unit))) expect(value).toBeGreaterThan(0)
  })
})
