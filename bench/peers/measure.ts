/** The two works, and how they are measured: the same for each peer. */
import { byCallers } from '../runs.ts'
import { median } from '../stats.ts'
import type { Works } from './peer.ts'

export const CALLERS = [1, 50, 200] as const
/** Runs of a repeat for each caller, and of all. */
const RUNS_EACH = 60
const RUNS_MAX = 2000
/** Before anything is measured: a language that compiles as it runs needs some hundred. */
const RUNS_WARM = 1000

export interface Measured {
  readonly n: number
  readonly value: number
  readonly unit: string
}

export async function measure(
  works: Works,
  { n, repeats }: { readonly n: number; readonly repeats: number },
  say: (line: string) => void,
): Promise<Measured[]> {
  const found: Measured[] = []
  const add = async (at: number, unit: string, once: (isWarmUp: boolean) => Promise<number>): Promise<void> => {
    const values: number[] = []
    // The first only warms up.
    for (let i = 0; i <= repeats; i++) {
      const value = await once(i === 0)
      say(`${unit} at ${at}, ${i === 0 ? 'warm-up' : `${i}/${repeats}`}: ${value.toPrecision(4)}`)
      if (i > 0) values.push(value)
    }
    found.push({ n: at, value: median(values), unit })
  }
  await add(n, 'instances/s', async () => {
    const startedMs = performance.now()
    const seen = await works.fanOut(n)
    if (seen !== n) throw new Error(`the gather has seen ${seen} of ${n} instances`)
    return n / ((performance.now() - startedMs) / 1000)
  })
  for (const callers of CALLERS)
    await add(callers, callers === 1 ? 'ms (p50)' : 'runs/s', async (isWarmUp) => {
      const all = Math.max(isWarmUp ? RUNS_WARM : 0, Math.min(RUNS_MAX, callers * RUNS_EACH))
      const { ms, perSecond } = await byCallers(callers, all, () => works.threeSteps())
      return callers === 1 ? ms : perSecond
    })
  return found
}
