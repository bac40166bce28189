/**
 * Every command on a terminal and in a pipe: it ends the same, what others wrote moves no cursor,
 * and tables fit. Those that go on until they are stopped have tests of their own.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Command } from 'commander'
import stringWidth from 'string-width'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { program } from '../../src/cli/program.ts'
import { asset, pipeline, schedule, sensor } from '../../src/index.ts'
import { printable } from '../../streams/text.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { startCommand } from './kit.ts'
import { onTerminal } from './terminal.ts'

const HOSTILE = '東京 🔥 \u001b[2J\u202e\r\nred'
const SECRET = 's'.repeat(32)
const WIDTH = 110
const UNTIL_STOPPED = ['dev', 'ui', 'worker', 'engine', 'http']
/** As "1 copies", or "2 run(s)". */
const MISCOUNTED = /\(s\)|(?<![\w.,:/-])1 (?!(?:is|was|has)\b)[a-z]{2,}s\b/
/** A mark of the test between two commands. */
const MARK = '@@'

const cities = asset('cities', { execute: () => ['Lima', 'Oslo'] })
const forecasts = asset('forecasts', {
  dependsOn: [cities],
  scatter: ({ cities }) => cities,
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
  execute: ({ scatterKey }) => {
    if (scatterKey === 'Oslo') throw new Error(HOSTILE)
    return scatterKey
  },
})
const report = asset('report', {
  dependsOn: [forecasts],
  execute: ({ log }) => {
    log.warn(HOSTILE)
    return HOSTILE
  },
})
const broken = asset('broken', {
  execute: () => {
    throw new Error(HOSTILE)
  },
})
const published = asset('published', { execute: (ctx) => ctx.approval({ message: HOSTILE }), onSignal: () => 1 })
const yearly = schedule('yearly', { cron: '0 0 1 1 *', run: report })
const watching = sensor('watching', { every: '1d', run: report, evaluate: () => ({ cursor: 1, runs: [] }) })
const weather = pipeline('weather', [cities, forecasts, report, broken, published], {
  schedules: [yearly],
  sensors: [watching],
})

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()
let stage: Stage
let commands: (readonly string[])[]
beforeAll(async () => {
  stage = await openStage(server.url, weather, { gates: { secrets: [{ id: 'k1', secret: SECRET }] } })
  const { flow } = stage
  const run = await flow.materialize(report, { partition: 'today' })
  await run.result()
  const failed = await flow.materialize(broken)
  await failed.result().catch(() => undefined)
  const waiting = await flow.materialize(published)
  await until('a gate waits', async () => (await flow.gates.waiting()).length === 1)
  await until('the sensor was evaluated', async () => (await flow.sensors.get('watching')).evaluations === 1)
  await flow.limiter.take('api', { limit: 5, per: 'hour' })
  const gate = (await flow.gates.waiting())[0]?.id ?? ''
  const scatter = `${run.id}.forecasts`
  const none = `${run.id}.report.a1n1`
  commands = [
    ['init', 'new'],
    ['completion', 'bash'],
    ['http', 'key', '--id', 'shop', '--assets', 'weather/*'],
    ['run', 'weather/cities', '--key', 'one'],
    ['status'],
    ['status', '--all'],
    ['status', run.id],
    ['status', failed.id],
    ['value', 'weather/report', '--partition', 'today'],
    ['why', failed.id],
    ['logs', run.id],
    ['log', 'show', failed.id],
    ['retry', failed.id, '--no-wait'],
    ['cancel', run.id, '--reason', HOSTILE],
    ['adopt', waiting.id],
    ['diff', '1h'],
    ['audit'],
    ['doctor'],
    ['setup'],
    ['trigger', 'ls'],
    ['trigger', 'retry', '1-1'],
    ['event', 'ls'],
    ['event', 'refused'],
    ['event', 'retry', '7'],
    ['event', 'test', 'none'],
    ['gate', 'ls'],
    ['gate', 'show', gate],
    ['gate', 'signal', none],
    ['gate', 'approve', none],
    ['gate', 'reject', none],
    ['gate', 'cancel', none],
    ['gate', 'extend', gate, '2d'],
    ['gate', 'url', gate],
    ['schedule', 'ls'],
    ['schedule', 'preview', 'yearly'],
    ['schedule', 'log', 'yearly'],
    ['schedule', 'pause', 'yearly', '--reason', HOSTILE],
    ['schedule', 'resume', 'yearly'],
    ['schedule', 'trigger', 'yearly', '--key', 'one'],
    ['schedule', 'backfill', 'yearly', '--from', '2025-02-01', '--to', '2025-03-01'],
    ['sensor', 'ls'],
    ['sensor', 'pause', 'watching', '--reason', HOSTILE],
    ['sensor', 'resume', 'watching'],
    ['sensor', 'trigger', 'watching'],
    ['scatter', 'ls', run.id],
    ['scatter', 'show', scatter],
    ['scatter', 'failures', scatter],
    ['scatter', 'pause', scatter],
    ['scatter', 'resume', scatter],
    ['scatter', 'cancel', scatter],
    ['scatter', 'redrive', scatter],
    ['limit', 'ls'],
    ['limit', 'show', 'api'],
    ['limit', 'reset', 'other'],
    ['prune', '--dry-run'],
    ['prune', 'ls'],
    ['gc', '--dry-run'],
    ['verify', '--only', 'state'],
    ['proof', 'verify'],
    ['proof', 'checkpoint'],
    ['proof', 'export', 'blocks'],
    ['proof', 'key'],
    ['export', run.id, '--to', 'archive.jsonl'],
    ['import', 'archive.jsonl'],
    ['rebuild'],
  ]
  // All in one process: half a second goes into the start of one.
  const outcome = pathToFileURL(join(inject('command'), 'src', 'cli', 'outcome.js')).href
  writeFileSync(
    join(scratch.path, 'all.mjs'),
    `import { outcomeOf } from '${outcome}'
for (const args of ${JSON.stringify(commands)}) {
  process.exitCode = undefined
  const code = (await outcomeOf(args)) ?? process.exitCode ?? 0
  console.log('${MARK}' + code)
}
process.exit(0)`,
  )
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

/** Paths of the commands that do something. */
function leaves(command: Command, path: readonly string[] = []): string[] {
  if (command.commands.length === 0) return [path.join(' ')]
  return [
    ...(path[0] === 'prune' ? [path.join(' ')] : []),
    ...command.commands.flatMap((inner) => leaves(inner, [...path, inner.name()])),
  ]
}

/** What each command said, and its exit code. */
function byCommand(text: string): Map<string, { readonly said: string; readonly code: string }> {
  const parts = text.replaceAll('\r\n', '\n').split(new RegExp(`^${MARK}(\\d+)\n`, 'm'))
  return new Map(
    commands.map((args, at) => [args.join(' '), { said: parts[2 * at] ?? '', code: parts[2 * at + 1] ?? '' }]),
  )
}

it('every command ends the same on a terminal and in a pipe, and prints no control characters of others', async () => {
  const known = new Set(commands.flatMap(([one, two]) => [`${one}`, `${one} ${two}`]))
  expect(leaves(program()).filter((path) => !known.has(path) && !UNTIL_STOPPED.includes(path))).toEqual([])

  const main = join(scratch.path, 'all.mjs')
  const env = {
    NATS_URL: server.url,
    FLOWSTONE_NAMESPACE: stage.namespace,
    FLOWSTONE_GATE_SECRETS: `k1:${SECRET}`,
    FLOWSTONE_BASE_URL: 'https://gates.example.com',
  }
  const piped = await startCommand([], { cwd: scratch.path, env, main }).ended
  expect(piped.code).toBe(0)
  await using command = onTerminal([], { cwd: scratch.path, env, main, columns: WIDTH })
  expect(await command.ended).toBe(0)
  const pipe = byCommand(piped.stdout)
  const terminal = byCommand(command.raw())

  for (const [name, { said, code }] of pipe) {
    expect(printable(said, { lines: true }), name).toBe(said)
    expect(said, name).not.toMatch(MISCOUNTED)
    // What sensors and schedules are made of is nobody's to name.
    expect(said, name).not.toContain('sensor__')
    const shown = terminal.get(name)
    // At the second time there is a file to overwrite; and how the machine is may change.
    if (!/^(init|proof export|export|doctor)/.test(name)) expect(`${name}: ${shown?.code}`).toBe(`${name}: ${code}`)
    // These draw.
    if (!/^(run|verify)/.test(name)) expect(printable(shown?.said ?? '', { lines: true }), name).toBe(shown?.said)
    const head = said.split('\n')[0] ?? ''
    if (/^[A-Z ]+$/.test(head))
      for (const line of shown?.said.split('\n') ?? []) expect(stringWidth(line), line).toBeLessThanOrEqual(WIDTH)
  }
  expect(printable(piped.stderr, { lines: true })).toBe(piped.stderr)
  const failing = [...pipe].filter(([name, { code }]) => code !== '0' && name !== 'doctor')
  expect(failing.map(([name, { code }]) => `${code}  ${stable(name)}`)).toMatchInlineSnapshot(`
    [
      "1  trigger retry 1-1",
      "1  event retry 7",
      "2  event test none",
      "1  gate signal 0-xxxxxxxx-xxxxxxxxxxxxxxxx.report.a1n1",
      "1  gate approve 0-xxxxxxxx-xxxxxxxxxxxxxxxx.report.a1n1",
      "1  gate reject 0-xxxxxxxx-xxxxxxxxxxxxxxxx.report.a1n1",
      "1  gate cancel 0-xxxxxxxx-xxxxxxxxxxxxxxxx.report.a1n1",
      "2  proof key",
      "1  import archive.jsonl",
      "1  rebuild",
    ]
  `)
  expect(
    ['status', 'gate ls', 'schedule ls', 'sensor ls', 'limit ls'].map((name) => stable(pipe.get(name)?.said)),
  ).toMatchInlineSnapshot(`
    [
      [
        "RUN                          STATUS   PIPELINE  ASSET      PARTITION  REQUESTED                 FINISHED",
        "0-xxxxxxxx-xxxxxxxxxxxxxxxx  running  weather   published  -          2026-01-01T00:00:00.000Z  -",
      ],
      [
        "GATE                                        STATUS   KIND      OPENED                    DEADLINE                  TIMEOUTS  METADATA",
        "0-xxxxxxxx-xxxxxxxxxxxxxxxx.published.a1n1  waiting  approval  2026-01-01T00:00:00.000Z  2026-01-01T00:00:00.000Z  0         {"message":"東京 🔥 \\u001b[2J\\u202e\\r\\nred"}",
      ],
      [
        "SCHEDULE        STATE   WHEN           LAST  NEXT                      OPEN  WAITING  FIRED  SKIPPED  MISSED",
        "weather/yearly  active  0 0 1 1 * UTC  -     2026-01-01T00:00:00.000Z  0     0        0      0        0",
      ],
      [
        "SENSOR            STATE    LAST                      NEXT                      EVALUATIONS  FAILURES  ERROR",
        "weather/watching  waiting  2026-01-01T00:00:00.000Z  2026-01-01T00:00:00.000Z  1            0         -",
      ],
      [
        "LIMIT  KIND  COUNT  OF  WAITING  NEXT TURN                 RESERVED UNTIL",
        "api    rate  1      5   0        2026-01-01T00:00:00.000Z  -",
      ],
    ]
  `)
})

/** Ids and times have the same width in every run. */
function stable(text: string | undefined): string[] | undefined {
  return text
    ?.replaceAll(/0-\w{8}-\w{16}/g, '0-xxxxxxxx-xxxxxxxxxxxxxxxx')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '2026-01-01T00:00:00.000Z')
    .trimEnd()
    .split('\n')
}
