/** What people see on a terminal, and that a pipe gets plain lines of the same. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { printable } from '../../streams/text.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { startCommand } from './kit.ts'
import { type OnTerminalOptions, onTerminal } from './terminal.ts'

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()

let release: () => void = () => undefined
let held: Promise<void> = Promise.resolve()
const hold = (): void => {
  held = new Promise((resolve) => {
    release = resolve
  })
}
const HALF = 5
const cities = asset('cities', { execute: () => Array.from({ length: 2 * HALF }, (_, i) => i) })
const forecasts = asset('forecasts', {
  dependsOn: [cities],
  scatter: ({ cities }) => cities,
  execute: async ({ scatterKey }) => {
    if (scatterKey >= HALF) await held
    return scatterKey
  },
})
const report = asset('report', { dependsOn: [forecasts], execute: (_ctx, { forecasts }) => forecasts.length })
const weather = pipeline('weather', [cities, forecasts, report])

let stage: Stage
let where: OnTerminalOptions
beforeAll(async () => {
  stage = await openStage(server.url, weather)
  where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

/** No escape is left open: the cursor is there again. */
function cursorIsBack(raw: string): boolean {
  return raw.lastIndexOf('\u001b[?25h') > raw.lastIndexOf('\u001b[?25l')
}

it('flowstone run draws a bar for each scatter, leaves the last picture, and prints the value to standard output', async () => {
  hold()
  const stdout = join(scratch.path, 'value.json')
  await using command = onTerminal(['run', 'weather/report'], { ...where, stdout })
  await command.shows(/forecasts +█+░+ +50\.0 % {2}5 of 10/)
  release()
  expect(await command.ended).toBe(0)
  expect(readFileSync(stdout, 'utf8')).toBe('10\n')
  const lines = await command.lines()
  expect(lines.map((line) => line.replace(/0-\w+-\w+/, 'RUN').replace(/[\d.]+ (ms|s)$/, 'TIME'))).toEqual([
    'run RUN',
    'succeeded: 3 of 3 assets, TIME',
    '  cities     materialized',
    '  forecasts  materialized, 10 instances',
    '  report     materialized',
  ])
  expect(cursorIsBack(command.raw())).toBe(true)
  expect(command.raw()).toContain('\u001b[32msucceeded\u001b[39m: 3 of 3 assets')
})

it('flowstone status --watch draws the table anew until Ctrl-C, and cuts no line of a narrow terminal in two', async () => {
  hold()
  await using watching = onTerminal(['status', '--watch'], { ...where, columns: 72 })
  await watching.shows('0 open runs at')
  const run = await stage.flow.materialize(report)
  await watching.shows(new RegExp(`^${run.id} +running +weather +report +\\d+ m?s ago`))
  release()
  await run.result()
  await watching.shows('no open runs')
  watching.type('\u0003')
  expect(await watching.ended).toBe(0)
  const lines = await watching.lines()
  expect(lines.map((line) => line.replace(/\d\d:\d\d:\d\d/, 'TIME'))).toEqual([
    '0 open runs at TIME; Ctrl-C ends',
    '',
    'no open runs (--all shows those that ended too)',
  ])
  expect(cursorIsBack(watching.raw())).toBe(true)
})

it('flowstone status --watch in a pipe appends a line for each change, without control characters', async () => {
  hold()
  await using list = startCommand(['status', '--watch'], where)
  await using json = startCommand(['status', '--watch', '--json'], where)
  const run = await stage.flow.materialize(report)
  await list.says(`${run.id}  running  weather/report\n`)
  await json.says(`"status":"running"`)
  await using one = startCommand(['status', run.id, '--watch'], where)
  await using scatter = startCommand(['scatter', 'show', `${run.id}.forecasts`, '--watch'], where)
  await one.says(`running: cities materialized, forecasts scattering 5/10, report waiting\n`)
  await scatter.says(`${run.id}.forecasts open 5/10\n`)
  release()
  await run.result()
  const [ofRun, ofScatter] = await Promise.all([one.ended, scatter.ended])
  expect(ofRun.code).toBe(0)
  expect(ofRun.stdout).toMatch(/succeeded: cities materialized, forecasts materialized, report materialized\n$/)
  expect(ofScatter).toMatchObject({ code: 0, stdout: expect.stringMatching(/completed 10\/10\n$/) })
  await list.says(`${run.id}  succeeded  weather/report\n`)
  await json.says(`"status":"succeeded"`)
  for (const { child, ended } of [list, json]) {
    child.kill('SIGINT')
    const { code, stdout, stderr } = await ended
    expect(code).toBe(0)
    expect(printable(stdout + stderr, { lines: true })).toBe(stdout + stderr)
  }
  const events = json
    .stdout()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(new Set(events.map(({ event, id }) => `${event} ${id}`))).toEqual(new Set([`run ${run.id}`]))
})

it('flowstone scatter show --watch draws the bar, and is interrupted by Ctrl-C', async () => {
  hold()
  const run = await stage.flow.materialize(report)
  await using watching = onTerminal(['scatter', 'show', `${run.id}.forecasts`, '--watch'], where)
  await watching.shows(/^█+░+ +50\.0 % {2}5 of 10/)
  watching.type('\u0003')
  expect(await watching.ended).toBe(130)
  expect(cursorIsBack(watching.raw())).toBe(true)
  release()
  await run.result()
})

it.each(['NO_COLOR', 'CI'])('flowstone run with %s says plain lines, also on a terminal', async (name) => {
  await using command = onTerminal(['run', 'weather/cities'], { ...where, env: { ...where.env, [name]: '1' } })
  expect(await command.ended).toBe(0)
  expect(await command.lines()).toContain('  succeeded: cities materialized')
  expect(command.raw()).not.toContain('\u001b')
})

it('flowstone ui starts a console that only shows, opens it in the browser, and ends by Ctrl-C', async () => {
  const opened = join(scratch.path, 'opened')
  writeFileSync(join(scratch.path, 'xdg-open'), `#!/bin/sh\necho "$1" > ${opened}\n`, { mode: 0o755 })
  const env = {
    ...where.env,
    PATH: `${scratch.path}:${process.env.PATH}`,
    // That of gates, which are reached from outside.
    FLOWSTONE_BASE_URL: 'https://gates.example.com',
  }
  await using command = onTerminal(['ui', '--port', '0'], { ...where, env })
  await command.shows('Stop with Ctrl-C')
  const url = /console {2}(http:\/\/127\.0\.0\.1:\d+)\//.exec(command.raw())?.[1] ?? ''
  expect((await fetch(url)).headers.get('content-type')).toContain('text/html')
  expect((await fetch(`${url}/api/v1/runs`)).status).toBe(200)
  const asked = await fetch(`${url}/api/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ pipeline: 'weather', asset: 'report' }),
  })
  expect(asked.status).toBe(403)
  await until('the browser is opened', () => existsSync(opened) && readFileSync(opened, 'utf8') === `${url}\n`)
  command.type('\u0003')
  expect(await command.ended).toBe(0)
})
