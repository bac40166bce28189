/**
 * `console`: the page of a scatter of n instances, which runs meanwhile, in headless Chromium: the
 * time from the opening of the page to its first map, and the frames while it moves. Engine and
 * worker have a process each. This one serves the console.
 */
import { serveGates } from '../src/http/index.ts'
import { connect } from '../src/index.ts'
import { openBrowser } from '../test/kit/browser.ts'
import { until } from '../test/kit/until.ts'
import type { Bench, Job } from './bench.ts'
import { startChild } from './child.ts'
import { type Figure, rowsOf } from './figures.ts'
import { withNamespace } from './rig.ts'
import { median, quantile } from './stats.ts'
import { wide, widePipeline } from './wide-pipeline.ts'

/** The page is opened when so much of the scatter has ended. */
const BEGUN = 0.05
const PAGES = 3
const FRAMES = 300

export const consolePage: Bench = {
  about: 'the page of a scatter of n instances that runs: time to its first map, and frames',
  sizes: [1_000_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

interface Seen {
  readonly mapMs: number
  /** Milliseconds from each frame to the next. */
  readonly gaps: readonly number[]
}

async function measure({ rig, fsync, say }: Job, n: number): Promise<Figure[]> {
  process.env.BENCH_WIDE = String(n)
  const children = ['engine-child.ts', 'wide-worker-child.ts'].map((program) => startChild(program, rig.url))
  try {
    return await withNamespace(rig.url, async (namespace) => {
      const everyone = async (line: string): Promise<void> => {
        for (const child of children) {
          child.say(line)
          await child.line()
        }
      }
      await everyone(namespace)
      await using flow = await connect({ servers: rig.url, namespace })
      await flow.register(widePipeline)
      const http = await serveGates(flow, { port: 0, console: true })
      await using chromium = await openBrowser()
      try {
        const run = await flow.materialize(wide)
        const id = `${run.id}.wide`
        await until('some of it has ended', async () => {
          const status = await flow.scatter.status(id).catch(() => undefined)
          return (status?.succeeded ?? 0) >= n * BEGUN
        })
        const pages: Seen[] = []
        for (let i = 0; i <= PAGES; i++) {
          const before = (await flow.scatter.status(id)).succeeded
          const seen = await see(chromium.browser, `${http.url}/#/runs/${run.id}/wide`)
          const { succeeded } = await flow.scatter.status(id)
          if (succeeded >= n) throw new Error('the scatter ended before it was seen: choose a larger one')
          say(
            `console n=${n} fsync=${fsync} ${i}: map after ${Math.round(seen.mapMs)} ms, frames ${median(seen.gaps).toFixed(1)} ms; ${(succeeded - before).toLocaleString('en-US')} instances ended meanwhile`,
          )
          // The first one only warms up.
          if (i > 0) pages.push(seen)
        }
        await run.cancel()
        const gaps = pages.flatMap((page) => page.gaps)
        const row = rowsOf({ bench: 'console', n, fsync })
        return [
          row('ms to the first map', median(pages.map(({ mapMs }) => mapMs))),
          row('ms a frame (p50)', median(gaps)),
          row('ms a frame (p95)', quantile(gaps, 0.95)),
          row('ms a frame (longest)', Math.max(...gaps)),
        ]
      } finally {
        await http.close()
        await everyone('')
      }
    })
  } finally {
    for (const child of children) await child.end()
  }
}

async function see(browser: Awaited<ReturnType<typeof openBrowser>>['browser'], url: string): Promise<Seen> {
  const page = await browser.newPage()
  try {
    await page.setViewport({ width: 1440, height: 900 })
    await page.goto(url)
    const mapMs = `performance.getEntriesByName('flowstone.map')[0]?.startTime`
    await page.waitForFunction(mapMs)
    const times = await page.evaluate(`new Promise((resolve) => {
      const all = []
      const step = (now) => { all.push(now); if (all.length <= ${FRAMES}) requestAnimationFrame(step); else resolve(all) }
      requestAnimationFrame(step)
    })`)
    const all = times as number[]
    const first = await page.evaluate(mapMs)
    return { mapMs: Number(first), gaps: all.slice(1).map((now, i) => now - (all[i] ?? now)) }
  } finally {
    await page.close()
  }
}
