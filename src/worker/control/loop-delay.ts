/** How late this process answers: its code may hold up the event loop. */
import { monitorEventLoopDelay } from 'node:perf_hooks'

const RESOLUTION_MS = 20
const PERIOD_MS = 10_000
const NS_PER_MS = 1e6

type Histogram = ReturnType<typeof monitorEventLoopDelay>

let histogram: Histogram | undefined
let beforeMs = 0

/** Measures from now on. Nothing of it keeps the process alive. */
export function measureLoopDelay(): void {
  if (histogram) return
  const measured = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  measured.enable()
  histogram = measured
  setInterval(() => {
    beforeMs = longest(measured)
    measured.reset()
  }, PERIOD_MS).unref()
}

/** The longest of the last 10 to 20 seconds. */
export function loopDelayMs(): number {
  return histogram ? Math.round(Math.max(beforeMs, longest(histogram))) : 0
}

function longest({ max }: Pick<Histogram, 'max'>): number {
  return Math.max(0, max / NS_PER_MS - RESOLUTION_MS)
}
