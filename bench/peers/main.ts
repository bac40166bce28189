/**
 * `npm run bench:peers`: the same two works on FlowStone and on other systems, each with its real
 * server on this machine, in one table.
 *
 *   npm run bench:peers                                 all of them
 *   npm run --silent bench:peers -- --only restate --json
 *
 * It installs the packages in this folder. Redis and PostgreSQL come from the system.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { CALLERS, type Measured, measure } from './measure.ts'
import { FOLDER, missing } from './needs.ts'
import { type Begin, PEERS, type Peer } from './peer.ts'
import { stopServers } from './servers.ts'

const SIGNALS = ['SIGINT', 'SIGTERM']
const NAMES = Object.keys(PEERS)

const HELP = `npm run bench:peers -- [options]

${Object.entries(PEERS)
  .map(([name, { how }]) => `  ${name.padEnd(16)}${how}`)
  .join('\n')}

  --only NAME[,NAME]  not all of them
  --json              one JSON line a figure, and nothing else on standard output
  --n N               instances to fan out (default 10000)
  --repeats N         measured repeats of each work, after one to warm up (default 3)
`

interface Wish {
  readonly names: readonly string[]
  readonly json: boolean
  readonly n: number
  readonly repeats: number
}

interface Row {
  readonly name: string
  readonly version: string
  readonly durability: string
  readonly measured: readonly Measured[]
}

function parseWish(args: string[]): Wish | 'help' {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string', default: NAMES.join(',') },
      json: { type: 'boolean', default: false },
      n: { type: 'string', default: '10000' },
      repeats: { type: 'string', default: '3' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  const names = values.only.split(',')
  for (const name of names)
    if (!Object.hasOwn(PEERS, name))
      throw new InvalidError(`--only: there is no peer "${name}"; there are ${NAMES.join(', ')}`)
  const { json } = values
  return { names, json, n: wholeNumber('--n', values.n), repeats: wholeNumber('--repeats', values.repeats) }
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidError(`${option} must be a whole number from 1, not ${text}`)
  return value
}

async function* measureAll(wish: Wish): AsyncGenerator<Row> {
  for (const name of wish.names) {
    const peer = peerOf(name)
    const { begin }: { begin: Begin } = await import(peer.module)
    for (const [way, durability] of Object.entries(peer.ways)) {
      await using works = await begin(way)
      const measured = await measure(works, wish, (line) => console.error(`${name} ${way}: ${line}`))
      yield { name, version: [packageVersion(peer), works.version].filter(Boolean).join(', '), durability, measured }
    }
  }
}

function peerOf(name: string): Peer {
  const peer = PEERS[name]
  if (!peer) throw new InvalidError(`there is no peer "${name}"`)
  return peer
}

function packageVersion({ packages: [name] }: Peer): string {
  if (name === undefined) return ''
  const { version }: { version: string } = JSON.parse(
    readFileSync(join(FOLDER, 'node_modules', name, 'package.json'), 'utf8'),
  )
  return version
}

/** In Markdown, because it is quoted in the documentation. */
function table(rows: readonly Row[], n: number): string {
  const head = ['system', 'on disk before the answer', `fan out of ${n.toLocaleString('en-US')} (instances/s)`]
  const callers = CALLERS.map((count) => (count === 1 ? '1 caller (ms, p50)' : `${count} callers (runs/s)`))
  const lines = rows.map(({ name, version, durability, measured }) => [
    `${name} ${version}`,
    durability,
    ...measured.map(({ value }) => Number(value.toPrecision(value < 100 ? 2 : 3)).toLocaleString('en-US')),
  ])
  const all = [[...head, ...callers], ['---', '---', '--:', '--:', '--:', '--:'], ...lines]
  return all.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

async function main(): Promise<void> {
  const wish = parseWish(process.argv.slice(2))
  if (wish === 'help') {
    console.log(HELP)
    return
  }
  const lacking = missing(wish.names.map(peerOf))
  if (lacking.length > 0) throw new InvalidError([...lacking, 'Or name the others with --only'].join('\n'))
  process.on('uncaughtException', (error) => end(1, error))
  for (const signal of SIGNALS) process.on(signal, () => end(130))
  console.error(`node ${process.version}, ${availableParallelism()} cores, ${cpus()[0]?.model ?? 'unknown'}`)
  const rows: Row[] = []
  for await (const row of measureAll(wish)) {
    rows.push(row)
    const { name, version, durability } = row
    if (wish.json)
      for (const figure of row.measured)
        console.log(JSON.stringify({ bench: 'peers', peer: name, version, durability, ...figure }))
  }
  if (!wish.json) console.log(`\n${table(rows, wish.n)}`)
}

let isEnding = false
/** Clients whose server goes away complain in many ways. Only the first error is worth a line. */
function end(code: number, error?: unknown): void {
  if (isEnding) return
  isEnding = true
  if (error !== undefined) console.error(`bench: ${messageOf(error)}`)
  void stopServers().finally(() => process.exit(code))
}

try {
  await main()
} catch (error) {
  console.error(`bench: ${messageOf(error)}`)
  process.exitCode = 1
}
