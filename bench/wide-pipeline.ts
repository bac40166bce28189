/** The pipeline of the bench `console`: a scatter of `BENCH_WIDE` instances, at a steady rate. */
import { asset, pipeline } from '../src/index.ts'

const RATE = 20_000

export const wide = asset('wide', {
  *scatter() {
    const n = Number(process.env.BENCH_WIDE)
    for (let i = 0; i < n; i++) yield i
  },
  scatterOptions: { rateLimit: { bucket: 'wide', limit: RATE, per: 'second' } },
  execute: (ctx) => ctx.index,
  gather: () => null,
})
export const widePipeline = pipeline('wide', [wide])
