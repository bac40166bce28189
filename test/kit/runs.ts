/**
 * How many cases a property test tries: `fc.assert(property, runs(60))`. Each test says as many as
 * are worth their time, and half of them are run each time. `FC_RUNS` makes it a campaign, and
 * `FC_SEED` repeats one.
 */
export function runs(count: number): { numRuns: number; seed?: number } {
  const { FC_RUNS, FC_SEED } = process.env
  return { numRuns: FC_RUNS ? Number(FC_RUNS) : Math.ceil(count / 2), ...(FC_SEED ? { seed: Number(FC_SEED) } : {}) }
}
