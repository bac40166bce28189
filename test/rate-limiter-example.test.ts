import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { scratchFolder } from './kit/scratch.ts'

const run = promisify(execFile)

it('npm run example:limits: three processes share a limit, hosts do not hold each other up, a killed holder is replaced', async () => {
  using scratch = scratchFolder()
  const { stdout } = await run(process.execPath, ['examples/rate-limiter.ts', '--dir', scratch.path])
  expect(stdout).toContain('the API saw 60 calls; the bucket: 60 of 60, 0 left')
  const made = [...stdout.matchAll(/made (\d+) calls/g)].map(([, calls]) => Number(calls))
  expect(made).toHaveLength(3)
  expect(made.reduce((sum, calls) => sum + calls, 0)).toBe(60)
  // The host with most pages, whose keys come first, is done last.
  const seconds = (host: string): number => Number(new RegExp(`${host}: \\d+ pages in ([\\d.]+) s`).exec(stdout)?.[1])
  for (const host of ['blog.example', 'shop.example', 'wiki.example']) {
    expect(seconds(host)).toBeGreaterThan(0)
    expect(seconds(host)).toBeLessThan(seconds('docs.example'))
  }
  expect(stdout).toContain('4 of 4 held, 2 waiting')
  expect(stdout).toMatch(/s later its slot is another's, with fence \d+/)
})
