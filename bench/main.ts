/**
 * `npm run bench`: how fast the engine is, beside what the server gives with nothing in between
 * (the raw ceiling), in the same run on the same server.
 *
 *   npm run bench                                  all, as a table
 *   npm run --silent bench -- scatter --json       one JSON line a figure on standard output, nothing else
 *
 * Absolute numbers are this machine's; compare ratios.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { InvalidError, messageOf } from '../streams/errors.ts'
import { asset } from './asset.ts'
import { at } from './at.ts'
import type { Bench } from './bench.ts'
import { consolePage } from './console.ts'
import { cost } from './cost.ts'
import { events } from './events.ts'
import { type Figure, type Fsync, jsonLine, table } from './figures.ts'
import { flat } from './flat.ts'
import { gates } from './gates.ts'
import { graphPage } from './graph.ts'
import { history } from './history.ts'
import { limitedQueues } from './limited-queues.ts'
import { limiter } from './limiter.ts'
import { load } from './load.ts'
import { logs } from './logs.ts'
import { million } from './million.ts'
import { mixed } from './mixed.ts'
import { proof } from './proof.ts'
import { prune } from './prune.ts'
import { replay } from './replay.ts'
import { endOnSignals, startRig } from './rig.ts'
import { runs } from './runs.ts'
import { scatter } from './scatter.ts'
import { start } from './start.ts'
import { telemetry } from './telemetry.ts'
import { verify } from './verify.ts'
import { writes } from './writes.ts'

const BENCHES: Readonly<Record<string, Bench>> = {
  scatter,
  asset,
  limited: limitedQueues,
  mixed,
  million,
  limiter,
  gates,
  events,
  runs,
  flat,
  history,
  prune,
  proof,
  at,
  replay,
  start,
  verify,
  load,
  console: consolePage,
  graph: graphPage,
  cost,
  logs,
  writes,
  telemetry,
}
const FSYNCS = ['always', 'default'] as const satisfies readonly Fsync[]

const HELP = `npm run bench -- [NAME ...] [options]

${Object.entries(BENCHES)
  .map(([name, { about, sizes }]) => `  ${name.padEnd(10)} ${about} (n = ${sizes.join(', ')})`)
  .join('\n')}

  --json            one JSON line a figure, and nothing else on standard output
  --n N[,N]         other sizes
  --repeats N       measured repeats of raw and engine in turn, after two to warm up (default 5)
  --fsync WHICH     always or default: one of the two (default: both)
`

interface Wish {
  readonly names: readonly string[]
  readonly json: boolean
  readonly sizes: readonly number[] | undefined
  readonly repeats: number
  readonly fsyncs: readonly Fsync[]
}

function parseWish(args: string[]): Wish | 'help' {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      n: { type: 'string' },
      repeats: { type: 'string', default: '5' },
      fsync: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  for (const name of positionals) {
    if (!Object.hasOwn(BENCHES, name))
      throw new InvalidError(`there is no bench ${name}; there are ${Object.keys(BENCHES).join(', ')}`)
  }
  const fsyncs = FSYNCS.filter((fsync) => values.fsync === undefined || values.fsync === fsync)
  if (fsyncs.length === 0) throw new InvalidError(`--fsync must be ${FSYNCS.join(' or ')}, not ${values.fsync}`)
  return {
    names: positionals.length > 0 ? positionals : Object.keys(BENCHES),
    json: values.json,
    sizes: values.n?.split(',').map((text) => wholeNumber('--n', text)),
    repeats: wholeNumber('--repeats', values.repeats),
    fsyncs,
  }
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidError(`${option} must be a whole number from 1, not ${text}`)
  return value
}

/** Figures come as soon as they are known. */
async function* measure({ names, sizes, repeats, fsyncs }: Wish): AsyncGenerator<Figure> {
  const say = (line: string): void => console.error(line)
  for (const fsync of fsyncs) {
    await using rig = await startRig(fsync)
    const ignoreSignals = endOnSignals(rig)
    say(
      `nats-server ${rig.serverVersion} with fsync ${fsync}, node ${process.version}, ${availableParallelism()} cores`,
    )
    for (const name of names) {
      const bench = BENCHES[name]
      if (bench) yield* await bench.run({ rig, fsync, sizes: sizes ?? bench.sizes, repeats, say })
    }
    ignoreSignals()
  }
}

async function main(): Promise<void> {
  const wish = parseWish(process.argv.slice(2))
  if (wish === 'help') {
    console.log(HELP)
    return
  }
  const figures: Figure[] = []
  for await (const figure of measure(wish)) {
    figures.push(figure)
    if (wish.json) console.log(jsonLine(figure))
  }
  if (!wish.json) console.log(`\n${table(figures)}`)
}

try {
  await main()
} catch (error) {
  console.error(`bench: ${messageOf(error)}`)
  process.exitCode = 1
}
