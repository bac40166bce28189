/**
 * `npm run bench:curves`: how rate and memory go with size, payload, workers, open barriers, and so
 * on. It keeps the points in docs/curves/points.json and draws docs/curves/*.svg.
 *
 * A point that is there is not measured again, so a campaign that was ended goes on. Each point has
 * a new server, and a process of its own.
 */
import { execFile, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { availableParallelism, platform } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { peakRssOf } from '../processes.ts'
import { endOnSignals, startRig } from '../rig.ts'
import { chartOf } from './chart.ts'
import { CURVES, type Curve } from './curves.ts'
import { type Point, readPoints, withPoint, writePoints } from './points.ts'
import type { Values } from './works.ts'

const FOLDER = fileURLToPath(new URL('../../docs/curves/', import.meta.url))
const RENDER = fileURLToPath(new URL('../plot/render.mjs', import.meta.url))
const POINT = fileURLToPath(new URL('point.ts', import.meta.url))

const HELP = `npm run bench:curves -- [options]

${Object.entries(CURVES)
  .map(([name, { title, max }]) => `  ${name.padEnd(10)} ${title} (up to ${max})`)
  .join('\n')}

  --only NAME[,NAME]  these curves (default: all)
  --max X             no point beyond X: more than by default, or less
  --again             measures points that are there, too
  --plot              draws what is there, and measures nothing
  --timeout MINUTES   the longest time for one point (default 10)
  --note TEXT         a word on the machine for the drawings: what else it does
  --out FOLDER        where points and drawings are (default docs/curves)
`

interface Wish {
  readonly curves: readonly (readonly [name: string, curve: Curve])[]
  readonly max: number | undefined
  readonly isAgain: boolean
  readonly isPlot: boolean
  readonly timeoutMs: number
  readonly note: string | undefined
  readonly folder: string
}

function parseWish(): Wish | 'help' {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      max: { type: 'string' },
      again: { type: 'boolean', default: false },
      plot: { type: 'boolean', default: false },
      timeout: { type: 'string', default: '10' },
      note: { type: 'string' },
      out: { type: 'string', default: FOLDER },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  const names = values.only?.split(',') ?? Object.keys(CURVES)
  const curves = names.map((name) => {
    const found = Object.entries(CURVES).find(([known]) => known === name)
    if (!found) throw new InvalidError(`there is no curve ${name}; there are ${Object.keys(CURVES).join(', ')}`)
    return found
  })
  return {
    curves,
    max: values.max === undefined ? undefined : positive('--max', values.max),
    isAgain: values.again,
    isPlot: values.plot,
    timeoutMs: positive('--timeout', values.timeout) * 60_000,
    note: values.note,
    folder: values.out,
  }
}

function positive(option: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidError(`${option} must be a number above 0, not ${text}`)
  return value
}

async function measure(name: string, { raw }: Curve, x: number, { timeoutMs: timeout, note }: Wish): Promise<Point> {
  await using rig = await startRig('always')
  const ended = new AbortController()
  const ignoreSignals = endOnSignals(rig, () => ended.abort())
  // A point that takes too long is ended, and its server with it.
  const limits = { timeout, signal: ended.signal }
  const { stdout } = await promisify(execFile)(process.execPath, [POINT, name, String(x), rig.url], limits)
  const measured: Values = JSON.parse(stdout)
  // Before raw, which is not FlowStone's.
  const serverMb = peakRssOf(rig.serverPid) / 1e6
  const values = { ...measured, serverMb, ...(raw ? { raw: await raw(rig.url, x) } : {}) }
  ignoreSignals()
  const short = Object.entries(values).map(([key, value]) => [key, Number(value.toPrecision(4))])
  const machine = `${availableParallelism()} cores, ${platform()}, node ${process.version}, nats-server ${rig.serverVersion}, fsync always${note === undefined ? '' : `, ${note}`}`
  return { x, values: Object.fromEntries(short), date: new Date().toISOString().slice(0, 10), machine }
}

function draw(name: string, curve: Curve, points: readonly Point[], folder: string): void {
  if (points.length === 0) return
  const { stdout, stderr, status } = spawnSync(process.execPath, [RENDER], {
    input: JSON.stringify(chartOf(curve, points)),
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`curve ${name} could not be drawn: ${stderr}`)
  writeFileSync(join(folder, `${name}.svg`), stdout)
}

async function main(): Promise<void> {
  const wish = parseWish()
  if (wish === 'help') return console.log(HELP)
  const { curves, isAgain, isPlot, folder } = wish
  const file = join(folder, 'points.json')
  for (const [name, curve] of curves) {
    const known = new Set((readPoints(file)[name] ?? []).map(({ x }) => x))
    const xs = isPlot ? [] : curve.xs.filter((x) => x <= (wish.max ?? curve.max) && (isAgain || !known.has(x)))
    try {
      for (const x of xs) {
        const startedMs = performance.now()
        const point = await measure(name, curve, x, wish)
        writePoints(file, withPoint(readPoints(file), name, point))
        const seconds = Math.round((performance.now() - startedMs) / 1000)
        console.log(`${name} ${x}: ${JSON.stringify(point.values)} (${seconds} s)`)
      }
    } catch (error) {
      // What is known of it is drawn, and the other curves are measured.
      console.error(`bench:curves: ${name}: ${messageOf(error)}`)
      process.exitCode = 1
    }
    draw(name, curve, readPoints(file)[name] ?? [], folder)
  }
}

try {
  await main()
} catch (error) {
  console.error(`bench:curves: ${messageOf(error)}`)
  process.exitCode = 1
}
