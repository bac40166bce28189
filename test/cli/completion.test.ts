/** What the shells complete. Bash is run; of the others, the script is read. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { namesOf } from '../../src/cli/completion/names.ts'
import { SHELLS } from '../../src/cli/completion/shells.ts'
import { placesOf } from '../../src/cli/completion/tree.ts'
import { program } from '../../src/cli/program.ts'
import { asset, type Flow, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { runCommand } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()
const report = asset('report', { execute: () => 1 })
let stage: Stage
beforeAll(async () => {
  stage = await openStage(server.url, pipeline('weather', [report]))
  const main = join(inject('command'), 'src', 'cli', 'main.js')
  writeFileSync(join(scratch.path, 'flowstone'), `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`, {
    mode: 0o755,
  })
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

/** What bash offers for the last of these words. */
async function offered(...words: string[]): Promise<string[]> {
  const typed = `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _flowstone; printf '%s\\n' "\${COMPREPLY[@]}"`
  const script = `${SHELLS.bash(placesOf(program()))}\n${typed}`
  const env = { ...process.env, NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace }
  const args = ['-c', script, 'bash', join(scratch.path, 'flowstone'), ...words]
  const { stdout } = await promisify(execFile)('bash', args, { env })
  return stdout.split('\n').filter(Boolean)
}

it('bash completes commands and options, and knows which command is meant', async () => {
  expect(await offered('gat')).toEqual(['gate'])
  expect(await offered('gate', 's')).toEqual(['show', 'signal'])
  expect(await offered('--namespace', 'x', 'gate', 'show', '--js')).toEqual(['--js-domain', '--json'])
  expect(await offered('run', '--upstr')).toEqual(['--upstream'])
  // Then bash offers files.
  expect(await offered('run', '--file', '')).toEqual([])
})

it('bash completes names of runs and assets that are on the server', async () => {
  const run = await stage.flow.materialize(report)
  await run.result()
  // The state lags the log a little.
  await until('the pipeline is known', async () => (await offered('run', 'wea')).includes('weather/report'))
  expect(await offered('run', 'x', '--pipeline', '')).toEqual(['weather'])
  expect(await offered('log', 'show', '')).toEqual([run.id])
})

it('a name that a shell would expand is offered to none', async () => {
  const names = ['report', '$(touch x)', '`id`', 'a b', "'q'", '-rf', '~', '*', 'a;b', '_x-1', 'a\nb', '']
  const list = async () => names.map((name) => ({ name }))
  const flow = { schedules: { list }, inspect: { pipelines: list } } as unknown as Flow
  for (const kind of ['schedule', 'pipeline'] as const) expect(await namesOf(flow, kind)).toEqual(['report', '_x-1'])
})

it('without a server there are no names, and that is no error', async () => {
  const env = { NATS_URL: 'nats://127.0.0.1:1' }
  const asked = await runCommand(['completion', '--names', 'run'], { cwd: scratch.path, env })
  expect(asked).toMatchObject({ code: 0, stdout: '' })
})

it('flowstone completion names the shells and the kinds of names that there are', async () => {
  const where = { cwd: scratch.path }
  expect((await runCommand(['completion', 'tcsh'], where)).stderr).toContain('bash, zsh or fish, not tcsh')
  expect((await runCommand(['completion', '--names', 'x'], where)).stderr).toContain(
    '--names must be one of run, asset',
  )
  for (const shell of ['zsh', 'fish'] as const) {
    const { stdout } = await runCommand(['completion', shell], where)
    const missing = program().commands.filter((one) => !stdout.includes(one.description().replaceAll("'", "'\\''")))
    expect(missing.map((one) => one.name())).toEqual([])
  }
})
