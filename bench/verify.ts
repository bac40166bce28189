/**
 * `verify`: how long `flow.verify` needs for n facts: once for those of a log with the state that
 * was folded from it, and once for those of a history. Then the check of the proof of that log. All
 * of it is made up. It reads as fast as it can; by default it reads no more than 20,000 messages a
 * second. Raw is a plain ordered consumer that decodes each fact of the same log.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type Flow } from '../src/index.ts'
import { streamBounds } from '../src/log/nats.ts'
import type { Bench, Job } from './bench.ts'
import type { Figure } from './figures.ts'
import { makeUpPacks } from './made-up-packs.ts'
import { FACTS_EACH, fillLog } from './made-up-runs.ts'
import { rawRead } from './raw-read.ts'
import { withRaw } from './rig.ts'
import { median } from './stats.ts'
import { threeAssets } from './three-assets.ts'

const OPEN_RUNS = 200
const REPEATS = 2
const RATE = 1_000_000_000
const LOOK_MS = 50

export const verify: Bench = {
  about: 'flow.verify of n facts on a log, and in a history; and the check of the proof',
  sizes: [30_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await ofLog(job, n)), ...(await ofHistory(job, n)))
    return figures
  },
}

async function ofLog(job: Job, n: number): Promise<Figure[]> {
  return await withRaw(job.rig.url, async (connection, topology) => {
    await using flow = await connect({ servers: job.rig.url, namespace: topology.names.ns })
    await flow.register(threeAssets)
    // What is there before the first block is not proven.
    await proven(flow, 1)
    await fillLog(connection, topology, n, OPEN_RUNS)
    await flow.rebuild()
    const raws: number[] = []
    const verified = await repeatedly(job, async () => {
      raws.push(await rawRead(connection, topology))
      return await verifiedIn(flow, n)
    })
    const { last } = await streamBounds(connection.nc, topology.names.log(0))
    await proven(flow, last)
    const proofs = await repeatedly(job, async () => {
      raws.push(await rawRead(connection, topology))
      const startedMs = performance.now()
      for (const { problems, intact, findings } of await flow.proof.verify())
        if (problems > 0 || intact < n)
          throw new Error(`the proof says that ${intact} facts of ${n} are intact: ${JSON.stringify(findings)}`)
      return performance.now() - startedMs
    })
    const raw = median(raws)
    return [...rows(job, n, 'log', verified, raw), ...rows(job, n, 'proof', proofs, raw)]
  })
}

async function ofHistory(job: Job, n: number): Promise<Figure[]> {
  return await withRaw(job.rig.url, async (connection, topology) => {
    await makeUpPacks(connection, topology, Math.ceil(n / FACTS_EACH))
    await using flow = await connect({ servers: job.rig.url, namespace: topology.names.ns })
    return rows(job, n, 'history', await repeatedly(job, () => verifiedIn(flow, n)))
  })
}

/** Milliseconds. The first one only warms up. */
async function repeatedly({ repeats }: Job, once: () => Promise<number>): Promise<number> {
  const times: number[] = []
  for (let i = 0; i <= Math.min(repeats, REPEATS); i++) times.push(await once())
  return median(times.slice(1))
}

async function verifiedIn(flow: Flow, n: number): Promise<number> {
  const { ok, findings, checks, durationMs } = await flow.verify({ rate: RATE })
  if (!ok) throw new Error(`verify found something: ${JSON.stringify(findings[0])}`)
  const { onLog = 0, sealed = 0 } = checks.find(({ check }) => check === 'facts')?.looked ?? {}
  if (onLog + sealed < n) throw new Error(`verify looked at ${onLog + sealed} facts of ${n}`)
  return durationMs
}

/** Has an engine make the blocks. */
async function proven(flow: Flow, last: number): Promise<void> {
  const engine = await flow.engine()
  while (((await flow.proof.checkpoint())[0]?.to ?? 0) < last) await sleep(LOOK_MS)
  await engine.stop()
}

function rows({ fsync, say }: Job, n: number, of: string, ms: number, raw?: number): Figure[] {
  const row = { bench: 'verify', n, fsync }
  const value = n / (ms / 1000)
  say(`verify n=${n} fsync=${fsync}: ${Math.round(value)} facts/s of the ${of}`)
  return [
    { ...row, value, unit: `facts/s (${of})`, raw: raw ?? null, ratio: raw === undefined ? null : value / raw },
    { ...row, value: 1e6 / value, unit: `s for a million facts (${of})`, raw: null, ratio: null },
  ]
}
