/** What a bench is: `main.ts` knows them by name, starts the server and prints. */
import type { Figure, Fsync } from './figures.ts'
import type { Rig } from './rig.ts'

export interface Bench {
  /** One line for `--help`. */
  readonly about: string
  /** Sizes when `--n` does not say others. */
  readonly sizes: readonly number[]
  run(job: Job): Promise<Figure[]>
}

export interface Job {
  readonly rig: Rig
  readonly fsync: Fsync
  readonly sizes: readonly number[]
  /** Measured repeats of raw and engine in turn, after those that only warm up. */
  readonly repeats: number
  /** Progress, for people: it goes to standard error. */
  say(line: string): void
}

/** One repeat of a measurement: with nothing in between, and then with the engine. */
export interface Pair {
  readonly raw: number
  readonly value: number
}

/** Repeats before the measured ones: Node compiles the engine's hot paths in the first two. */
export const WARM_UPS = 2

/**
 * Calls back for each repeat; `measured` tells whether its figures count, and `label` which one it
 * is.
 */
export async function repeated(
  { repeats }: Job,
  each: (at: { readonly measured: boolean; readonly label: string }) => Promise<void>,
): Promise<void> {
  for (let i = 1; i <= WARM_UPS; i++) await each({ measured: false, label: `warm-up ${i}/${WARM_UPS}` })
  for (let i = 1; i <= repeats; i++) await each({ measured: true, label: `${i}/${repeats}` })
}
