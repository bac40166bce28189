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

  it('prints p50 and p99 of a plain asset, in plain publishes', async () => {
    const figures = await bench('asset', '--n', '10')
    expect(figures).toMatchObject([
      { bench: 'asset', n: 10, fsync: 'default', unit: 'ms (p50; ratio in plain publishes, p50)' },
      { bench: 'asset', n: 10, fsync: 'default', unit: 'ms (p99; ratio in plain publishes, p50)' },
    ])
    for (const { value, raw, ratio } of figures) {
      expect(raw).toBeGreaterThan(0)
      expect(ratio).toBeCloseTo(Number(value) / Number(raw), 0)
    }
  })

  it.each([
    ['limited', '200', ['instances/s']],
    ['mixed', '40', ['ms (ratio to the ideal schedule)']],
  ])('prints the speed of %s beside what could be', async (name, n, units) => {
    const figures = await bench(name, '--n', n)
    expect(figures.map(({ unit }) => unit)).toEqual(units)
    for (const { value, raw, ratio } of figures) {
      expect(value).toBeGreaterThan(0)
      expect(ratio).toBeCloseTo(Number(value) / Number(raw), 1)
    }
  })

  it('prints speed and peak memory of a million, and what it leaves on disk for each instance', async () => {
    const figures = await bench('million', '--n', '300')
    expect(figures.map(({ unit }) => unit)).toEqual([
      'instances/s',
      'MB (peak RSS of engine, worker and client)',
      'B of log an instance',
      'B of state an instance',
    ])
    for (const { value } of figures) expect(value).toBeGreaterThan(0)
  })

  it('prints how many runs messages start a second, and how long each takes', async () => {
    const figures = await bench('events', '--n', '10')
    expect(figures.map(({ unit }) => unit)).toEqual([
      'runs of three assets/s',
      'ms publish to finished (p50; ratio in plain publishes, p50)',
      'ms publish to finished (p99; ratio in plain publishes, p50)',
    ])
    for (const { value } of figures) expect(value).toBeGreaterThan(0)
  })

  it('names the benches there are when asked for another one', async () => {
    await expect(bench('scater')).rejects.toMatchObject({
      stdout: '',
      stderr: expect.stringContaining('there are scatter, asset, limited, mixed, million, limiter'),
    })
  })

  it('prints how fast runs of three assets are beside the same messages', async () => {
    const figures = await bench('runs', '--n', '2')
    expect(figures).toMatchObject([{ bench: 'runs', n: 2, unit: 'runs/s' }])
    for (const { value, raw } of figures) {
      expect(value).toBeGreaterThan(0)
      expect(raw).toBeGreaterThan(0)
    }
  })

  it('prints what each feature writes: a run of three assets has one task', async () => {
    const figures = await bench('cost', '--n', '3')
    const ofRow = figures.filter(({ unit }) => /three assets in a row/.test(String(unit)))
    expect(ofRow.map(({ unit, value }) => [unit, value])).toEqual([
      ['messages on LOG: run of three assets in a row', 5],
      ['messages on WORK: run of three assets in a row', 1],
      ['messages on state: run of three assets in a row', expect.any(Number)],
      ['messages on FEED: run of three assets in a row', 4],
      ['bytes that stay: run of three assets in a row', expect.any(Number)],
    ])
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

  it('prints how fast gates are created and signalled beside raw appends, and how long it takes to go on', async () => {
    const figures = await bench('gates', '--n', '40')
    expect(figures.map(({ unit }) => unit)).toEqual([
      'gates created/s',
      'signals accepted/s',
      'ms signal to resumed (p50; ratio in plain publishes, p50)',
      'ms signal to resumed (p99; ratio in plain publishes, p50)',
    ])
    for (const { value, raw, ratio } of figures) {
      expect(raw).toBeGreaterThan(0)
      expect(Math.abs(Number(ratio) - Number(value) / Number(raw)) / Number(ratio)).toBeLessThan(0.01)
    }
  })
})
