/**
 * `npm run bench:guard`: fails when the engine has become slower, beside raw, than two thirds of
 * what was recorded. `npm run bench:guard -- --record` records what it measures.
 *
 * It is a part of the CI, so it is short: small sizes, few repeats. Where the median of those is
 * too low it measures more of them, and judges all.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, platform } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { messageOf } from '../../streams/errors.ts'
import type { Pair } from '../bench.ts'
import { type Child, startChild } from '../child.ts'
import { gatePairs } from '../gates.ts'
import { endOnSignals, type Rig, startRig } from '../rig.ts'
import { runsPair } from '../runs.ts'
import { scatterPair } from '../scatter.ts'
import { judge, type Recorded, recordOf, type Verdict } from './judge.ts'

const INSTANCES = 20_000
const CALLERS = 50
const RUNS = 200
const GATES = 600
const REPEATS = 2
/** More of them where the first are too low, and all of them where they are to be recorded. */
const MORE_REPEATS = 6

const FILE = fileURLToPath(new URL('recorded.json', import.meta.url))

/** Measured together; each pair has a name. */
type Measurement = () => Promise<Readonly<Record<string, Pair>>>

function measurementsOf({ url }: Rig, engine: Child, worker: Child): Measurement[] {
  return [
    async () => ({ [`scatter of ${INSTANCES}`]: await scatterPair(url, INSTANCES) }),
    async () => ({ [`small runs, ${CALLERS} callers`]: await runsPair(url, [engine, worker], CALLERS, RUNS) }),
    async () => {
      const { created, signals } = await gatePairs(url, engine, GATES)
      return { 'gates created': created, 'gates signalled': signals }
    },
  ]
}

/** Adds the ratios of so many repeats to those before. */
async function repeat(measurement: Measurement, times: number, into: Map<string, number[]>): Promise<void> {
  for (let i = 0; i < times; i++) {
    for (const [name, { raw, value }] of Object.entries(await measurement())) {
      const ratios = into.get(name) ?? []
      ratios.push(value / raw)
      into.set(name, ratios)
    }
  }
}

async function check(measurement: Measurement, recorded: Recorded): Promise<Verdict[]> {
  const ratios = new Map<string, number[]>()
  const judged = (isLast: boolean): Verdict[] =>
    [...ratios].map(([name, values]) => judge(name, values, recorded, isLast))
  await measurement() // Node compiles what is hot.
  await repeat(measurement, REPEATS, ratios)
  const verdicts = judged(false)
  const unsure = verdicts.filter(({ status }) => status === 'unsure')
  for (const { message } of unsure) console.log(message)
  if (unsure.length === 0) return verdicts
  await repeat(measurement, MORE_REPEATS, ratios)
  return judged(true)
}

async function withMeasurements<T>(use: (measurements: Measurement[]) => Promise<T>): Promise<T> {
  await using rig = await startRig('always')
  const ignoreSignals = endOnSignals(rig)
  const children = ['engine-child.ts', 'worker-child.ts'].map((program) => startChild(program, rig.url))
  const [engine, worker] = children
  if (!engine || !worker) throw new Error('two processes')
  try {
    return await use(measurementsOf(rig, engine, worker))
  } finally {
    for (const child of children) await child.end()
    ignoreSignals()
  }
}

async function record(): Promise<void> {
  const ratios = new Map<string, number[]>()
  await withMeasurements(async (measurements) => {
    for (const measurement of measurements) {
      await measurement()
      await repeat(measurement, REPEATS + MORE_REPEATS, ratios)
    }
  })
  const machine = `${availableParallelism()} cores, ${platform()}, node ${process.version}`
  const recorded = recordOf(ratios, new Date().toISOString().slice(0, 10), machine)
  writeFileSync(FILE, `${JSON.stringify(recorded, undefined, 2)}\n`)
  console.log(`recorded: ${JSON.stringify(recorded.ratios)}`)
}

async function guard(): Promise<void> {
  const recorded: Recorded = JSON.parse(readFileSync(FILE, 'utf8'))
  const verdicts = await withMeasurements(async (measurements) => {
    const found: Verdict[] = []
    for (const measurement of measurements) found.push(...(await check(measurement, recorded)))
    return found
  })
  for (const { status, message } of verdicts) {
    if (status === 'fell') console.error(`bench:guard: ${message}`)
    else console.log(message)
  }
  if (verdicts.some(({ status }) => status === 'fell')) process.exitCode = 1
}

try {
  const { values } = parseArgs({ options: { record: { type: 'boolean', default: false } } })
  await (values.record ? record() : guard())
} catch (error) {
  console.error(`bench:guard: ${messageOf(error)}`)
  process.exitCode = 1
}
