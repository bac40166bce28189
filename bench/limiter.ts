/**
 * `limiter`: grants a second of one bucket (a lone caller, 32 of them, four processes), of 10,000
 * buckets, slots taken and given back, and how late who waits is woken. Raw: compare-and-set
 * updates of one key, one after the other; where it says so, the same with one process.
 */
import { connect, type Flow, type RateOption } from '../src/index.ts'
import { publish } from '../src/log/nats.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import { startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { withNamespace, withRaw } from './rig.ts'
import { median, quantile } from './stats.ts'

/** Never full, and with a cell like any. */
export const WIDE: RateOption = { limit: 1_000_000, per: 'minute' }
const CALLERS = 32
const PROCESSES = 4
const BUCKETS = 10_000

export const limiter: Bench = {
  about: 'rate limits and slots: grants and slots per second, and how late waiters are woken',
  sizes: [2000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

async function measure(job: Job, n: number): Promise<Figure[]> {
  const { rig, fsync, say } = job
  const found = new Map<string, { values: number[]; raws: number[] }>()
  const note = (unit: string, value: number, raw?: number): void => {
    const { values, raws } = found.get(unit) ?? { values: [], raws: [] }
    values.push(value)
    if (raw !== undefined) raws.push(raw)
    found.set(unit, { values, raws })
  }
  const late: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const cas = await withRaw(rig.url, async ({ nc }, { names }) => {
      const subject = names.kvSubject(names.limitsBucket, 'rate.raw')
      const payload = new Uint8Array(150)
      let seq = 0
      return await perSecond(n, 1, async () => {
        seq = (await publish(nc, { subject, payload, expect: { seq } }, undefined, 5000)).seq
      })
    })
    await withNamespace(rig.url, async (namespace) => {
      await using flow = await connect({ servers: rig.url, namespace })
      const { limiter } = flow
      const lone = await perSecond(n, 1, () => limiter.check('lone', WIDE))
      const many = await perSecond(n * 16, CALLERS, () => limiter.check('many', WIDE))
      const one = await processes(rig.url, namespace, 1, CALLERS, n * 16)
      const four = await processes(rig.url, namespace, PROCESSES, CALLERS, n * 16)
      const oneLone = await processes(rig.url, namespace, 1, 1, n)
      const fourLone = await processes(rig.url, namespace, PROCESSES, 1, n)
      let bucket = 0
      const first = await perSecond(BUCKETS, CALLERS, () => limiter.check(`b${bucket++ % BUCKETS}`, WIDE))
      const again = await perSecond(BUCKETS, CALLERS, () => limiter.check(`b${bucket++ % BUCKETS}`, WIDE))
      const slot = await perSecond(n / 4, 1, () => slotCycle(flow))
      const slots = await perSecond(n, CALLERS, () => slotCycle(flow))
      const waits = await overshoots(flow, Math.min(n, 400))
      say(
        `limiter n=${n} fsync=${fsync} ${label}: CAS ${round(cas)}/s, lone ${round(lone)}/s, ${CALLERS} callers ${round(many)}/s, ` +
          `1 process ${round(one)}/s, ${PROCESSES} processes ${round(four)}/s, buckets ${round(first)}/s, slots ${round(slots)}/s`,
      )
      if (!measured) return
      note('grants/s (lone caller)', lone, cas)
      note(`grants/s (${CALLERS} callers)`, many, cas)
      note(`grants/s (${PROCESSES} processes of ${CALLERS}; raw: 1 process)`, four, one)
      note(`grants/s (${PROCESSES} processes of 1; raw: 1 process)`, fourLone, oneLone)
      note(`grants/s (${BUCKETS} buckets, first time)`, first)
      note(`grants/s (${BUCKETS} buckets, again)`, again)
      note('slots/s (taken and given back, lone caller)', slot, cas)
      note(`slots/s (taken and given back, ${CALLERS} callers)`, slots, cas)
      late.push(...waits)
    })
  })
  const figures: Figure[] = [...found].map(([unit, { values, raws }]) => {
    const value = median(values)
    const raw = raws.length > 0 ? median(raws) : null
    return { bench: 'limiter', n, fsync, value, unit, raw, ratio: raw === null ? null : value / raw }
  })
  for (const q of [0.5, 0.99]) {
    const unit = `ms (woken after its time, p${q * 100})`
    figures.push({ bench: 'limiter', n, fsync, value: quantile(late, q), unit, raw: null, ratio: null })
  }
  return figures
}

/** `n` calls in all, so many at a time. */
export async function perSecond(n: number, callers: number, call: () => Promise<unknown>): Promise<number> {
  let left = Math.ceil(n)
  const startedMs = performance.now()
  const loop = async (): Promise<void> => {
    while (left-- > 0) await call()
  }
  await Promise.all(Array.from({ length: callers }, loop))
  return (Math.ceil(n) / (performance.now() - startedMs)) * 1000
}

async function slotCycle(flow: Flow): Promise<void> {
  const slot = await flow.limiter.acquireSlot('slots', CALLERS)
  if (slot === 'at_capacity') throw new Error('no slot for a caller that has one to itself')
  await slot.release()
}

async function overshoots(flow: Flow, n: number): Promise<number[]> {
  const late: number[] = []
  const rate: RateOption = { limit: 200, per: 'second', shape: 'smooth' }
  const wait = async (): Promise<void> => {
    let dueMs: number | undefined
    await flow.limiter.take('waits', rate, {
      onWait: (waitMs) => {
        dueMs = performance.now() + waitMs
      },
    })
    if (dueMs !== undefined) late.push(performance.now() - dueMs)
  }
  let left = n
  const loop = async (): Promise<void> => {
    while (left-- > 0) await wait()
  }
  await Promise.all(Array.from({ length: 10 }, loop))
  return late
}

/**
 * Grants a second of processes together, on one bucket: from the first one's start to the last
 * one's end.
 */
async function processes(url: string, namespace: string, count: number, callers: number, n: number): Promise<number> {
  const each = Math.ceil(n / count)
  const settings = JSON.stringify({ url, namespace, bucket: `of-${count}-${callers}`, callers, n: each })
  const children = Array.from({ length: count }, () => startChild('limiter-child.ts', settings))
  try {
    await Promise.all(children.map((child) => child.line()))
    const startedMs = performance.now()
    for (const child of children) child.say('go')
    await Promise.all(children.map((child) => child.line()))
    return ((each * count) / (performance.now() - startedMs)) * 1000
  } finally {
    await Promise.all(children.map((child) => child.end()))
  }
}

function round(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}
