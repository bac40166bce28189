/**
 * Runs every file in examples/docs against a real server, each in a namespace of its own.
 *
 * - A file with `export default pipeline(…)` is loaded as `flowstone dev` loads it, and its last
 *   asset is materialized.
 * - A file with the line `// runs: as a process` is run by Node in a process of its own.
 * - Any other file is imported, and has done its work when the import resolves.
 * - Lines `// prints: …` at the end of a file are what it prints; `…` in them stands for any text.
 *   Of a pipeline, the value is the last line.
 * - A line `// answers: JSON` answers the gates of a pipeline's run.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { format, promisify } from 'node:util'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { loadFile } from '../../src/cli/load.ts'
import { connect, type Flow, type Pipeline } from '../../src/index.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const FOLDER = fileURLToPath(new URL('../../examples/docs/', import.meta.url))
const ANSWERS = /^\/\/ answers: (.*)$/m
const PRINTS = /^\/\/ prints: ?(.*)$/gm
const LIMIT_MS = 30_000

const files = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))

const server = useServer()
beforeAll(async () => {
  vi.stubEnv('NATS_URL', server.url)
  vi.stubEnv('FLOWSTONE_GATE_SECRETS', `docs:${'s'.repeat(32)}`)
  vi.stubEnv('FLOWSTONE_BASE_URL', 'http://127.0.0.1:8080')
})
afterAll(async () => {
  vi.unstubAllEnvs()
})

it.each(files.sort())('%s runs, and leaves no connection open', { timeout: LIMIT_MS }, async (name) => {
  const file = join(FOLDER, name)
  const source = readFileSync(file, 'utf8')
  const isProcess = /^\/\/ runs: as a process$/m.test(source)
  if (isProcess || /\b(connect|pipeline)\(/.test(source)) await ownNamespace()
  const open = sockets()
  const printed = isProcess ? await runAsProcess(file) : await runHere(file, source)
  await until(`${name} has closed its connections and servers`, () => sockets() <= open, 5_000)
  const expected = [...source.matchAll(PRINTS)].map(([, line = '']) => line)
  if (expected.length > 0)
    expect(printed).toEqual(
      expected.map((line) => (line.includes('…') ? expect.stringMatching(patternOf(line)) : line)),
    )
})

async function ownNamespace(): Promise<void> {
  vi.stubEnv('FLOWSTONE_NAMESPACE', freshNamespace())
  await using flow = await connect()
  await flow.setup()
}

async function runHere(file: string, source: string): Promise<string[]> {
  const lines: string[] = []
  const keep = (...args: unknown[]): void => void lines.push(...format(...args).split('\n'))
  using _log = vi.spyOn(console, 'log').mockImplementation(keep)
  using _info = vi.spyOn(console, 'info').mockImplementation(keep)
  if (/^export default pipeline\(/m.test(source))
    for (const one of (await loadFile(file)).pipelines) lines.push(...(await runPipeline(one, source, file)))
  else await import(pathToFileURL(file).href)
  return lines
}

async function runPipeline(pipeline: Pipeline, source: string, file: string): Promise<string[]> {
  const last = pipeline.assets.at(-1)
  if (!last) return []
  const { io = {}, logger, ...config } = (await loadFile(file)).config
  await using flow = await connect({ io, ...(logger ? { logger } : {}) })
  await flow.engine()
  await flow.worker(pipeline, config)
  const run = await flow.materialize(last)
  const [, answer] = ANSWERS.exec(source) ?? []
  if (answer !== undefined) await answerGates(flow, run.id, JSON.parse(answer))
  return jsonOf(await run.result(), 2).split('\n')
}

async function answerGates(flow: Flow, run: string, answer: unknown): Promise<void> {
  await until('a gate waits', async () => (await flow.gates.list(run)).length > 0, LIMIT_MS)
  for (const { id } of await flow.gates.list(run)) await flow.gates.signalById(id, answer)
}

async function runAsProcess(file: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: LIMIT_MS - 1000 })
  return stdout.trimEnd().split('\n')
}

/** Connections and servers of this process, whoever opened them. */
function sockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => /^(TCPSocket|TCPServer)Wrap$/.test(kind)).length
}

function patternOf(line: string): RegExp {
  return new RegExp(`^${line.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&').replaceAll('…', '.*')}$`)
}
