/**
 * `graph`: the page of n assets in headless Chromium: the time from the opening of the page to its
 * first nodes, and what moving costs. The view is moved and zoomed once a frame. How long frames
 * are depends on the machine; the processor time of the page's thread does so less.
 */

import { serveGates } from '../src/http/index.ts'
import { type Asset, asset, connect, pipeline } from '../src/index.ts'
import { openBrowser } from '../test/kit/browser.ts'
import type { Bench, Job } from './bench.ts'
import type { Figure } from './figures.ts'
import { withNamespace } from './rig.ts'
import { median, quantile } from './stats.ts'

const LANES = 4
const FRAMES = 240
const PAGES = 3

export const graphPage: Bench = {
  about: 'the page of n assets: time to its first nodes, and frames while it is moved and zoomed',
  sizes: [1000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

/** Each depends on up to three of those before it. */
function laneOf(lane: number, n: number) {
  const made: Asset<string, number>[] = []
  for (let i = 0; i < n; i++) {
    const dependsOn = [1, 7, 31].flatMap((back, k) => (i % (k + 1) === 0 ? (made[i - back * (k + 1)] ?? []) : []))
    made.push(asset(`asset_${lane}_${i}`, { dependsOn, execute: () => i }))
  }
  return pipeline(`lane_${lane}`, made)
}

interface Seen {
  readonly nodesMs: number
  readonly gaps: readonly number[]
  /** Of the page's thread, for a frame. */
  readonly cpuMs: number
  readonly elements: number
}

async function measure({ rig, fsync, say }: Job, n: number): Promise<Figure[]> {
  return await withNamespace(rig.url, async (namespace) => {
    await using flow = await connect({ servers: rig.url, namespace })
    await (await flow.engine()).active
    for (let lane = 0; lane < LANES; lane++) await flow.register(laneOf(lane, Math.ceil(n / LANES)))
    const http = await serveGates(flow, { port: 0, console: true })
    await using chromium = await openBrowser()
    try {
      const pages: Seen[] = []
      for (let i = 0; i <= PAGES; i++) {
        const seen = await see(chromium.browser, `${http.url}/#/assets`)
        say(
          `graph n=${n} fsync=${fsync} ${i}: nodes after ${Math.round(seen.nodesMs)} ms, frames ${median(seen.gaps).toFixed(1)} ms, ${seen.cpuMs.toFixed(2)} ms of the thread for each, ${seen.elements} elements`,
        )
        // The first one only warms up.
        if (i > 0) pages.push(seen)
      }
      const gaps = pages.flatMap((page) => page.gaps)
      const row = (value: number, unit: string): Figure => ({
        bench: 'graph',
        n,
        fsync,
        value,
        unit,
        raw: null,
        ratio: null,
      })
      return [
        row(median(pages.map(({ nodesMs }) => nodesMs)), 'ms to the first nodes'),
        row(median(gaps), 'ms a frame (p50)'),
        row(quantile(gaps, 0.95), 'ms a frame (p95)'),
        row(median(pages.map(({ cpuMs }) => cpuMs)), "ms of the page's thread a frame"),
      ]
    } finally {
      await http.close()
    }
  })
}

async function see(browser: Awaited<ReturnType<typeof openBrowser>>['browser'], url: string): Promise<Seen> {
  const page = await browser.newPage()
  try {
    await page.setViewport({ width: 1440, height: 900 })
    const session = await page.createCDPSession()
    await session.send('Performance.enable', { timeDomain: 'threadTicks' })
    await page.goto(url)
    await page.waitForSelector('.graph .dot, .graph .node', { timeout: 60_000 })
    const nodesMs = Number(await page.evaluate('performance.now()'))
    const busyMs = async (): Promise<number> => {
      const { metrics } = await session.send('Performance.getMetrics')
      return (metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0) * 1000
    }
    const before = await busyMs()
    // To and fro, nearer and farther, through names and dots.
    const times = (await page.evaluate(`new Promise((resolve) => {
      const graph = document.querySelector('.graph')
      const all = []
      const step = (now) => {
        all.push(now)
        if (all.length > ${FRAMES}) return resolve(all)
        const turn = all.length / 20
        const wheel = { bubbles: true, cancelable: true, clientX: 700, clientY: 450 }
        graph.dispatchEvent(new WheelEvent('wheel', { ...wheel, deltaX: 60 * Math.sin(turn), deltaY: 60 * Math.cos(turn / 2) }))
        graph.dispatchEvent(new WheelEvent('wheel', { ...wheel, ctrlKey: true, deltaY: 12 * Math.sin(turn / 2) - 1 }))
        requestAnimationFrame(step)
      }
      requestAnimationFrame(step)
    })`)) as number[]
    const cpuMs = ((await busyMs()) - before) / FRAMES
    const elements = Number(await page.evaluate(`document.querySelectorAll('.graph *').length`))
    return { nodesMs, gaps: times.slice(1).map((now, i) => now - (times[i] ?? now)), cpuMs, elements }
  } finally {
    await page.close()
  }
}
