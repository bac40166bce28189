import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { isAlive } from '../../src/server/processes.ts'
import { parseMetrics, seriesValue } from '../kit/prometheus.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { type Running, runCommand, startCommand, writeModule } from './kit.ts'

const PIPELINE = `
import { asset, pipeline } from 'flowstone'
import { word } from './word.ts'
export default pipeline('dev', [asset('said', { execute: () => word + ' by ' + process.pid })])
`

function project(word = "'one'") {
  const scratch = scratchFolder()
  writeModule(scratch.path, 'pipeline.ts', PIPELINE)
  writeFileSync(join(scratch.path, 'word.ts'), `export const word = ${word}\n`)
  const at = { cwd: scratch.path }
  return {
    path: scratch.path,
    at,
    start: (...options: string[]) => startCommand(['dev', 'pipeline.ts', ...options], at),
    /** Where its gates are answered. */
    http: (): string => JSON.parse(readFileSync(join(scratch.path, '.flowstone', 'dev.json'), 'utf8')).http,
    /** As an editor does it: a new file in the place of the old one. */
    write(source: string) {
      writeFileSync(join(scratch.path, 'word.tmp'), source)
      renameSync(join(scratch.path, 'word.tmp'), join(scratch.path, 'word.ts'))
    },
    async said() {
      const { code, stdout, stderr } = await runCommand(['run', 'said', '--json'], at)
      if (code !== 0) throw new Error(stderr)
      const value: string = JSON.parse(stdout).value
      const [word, pid] = value.split(' by ')
      return { word, pid: Number(pid) }
    },
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  }
}

async function isReady(dev: Running): Promise<void> {
  await dev.says('active: dev (said)')
}

it('dev brings all that a pipeline needs, and its code is exchanged while it runs', async () => {
  using files = project()
  let http: string
  {
    await using dev = files.start('--metrics-port', '0', '--http-port', '0')
    await isReady(dev)
    http = files.http()
    const metrics = /^metrics {2}(\S+)$/m.exec(dev.stdout())?.[1] ?? ''
    // What the worker counted, which is a process of its own, and the one after it.
    const counts = async (times: number) => {
      const attempts = 'flowstone_attempt_duration_seconds_count'
      const isCounted = async () =>
        seriesValue(parseMetrics(await (await fetch(metrics)).text()), attempts, { flowstone_asset: 'said' }) === times
      await until(`${times} attempts are counted`, isCounted)
    }
    const one = await files.said()
    expect(one.word).toBe('one')
    await counts(1)
    expect(await runCommand(['ui'], files.at)).toMatchObject({ code: 0, stdout: `console  ${http}/\n` })
    expect(await runCommand(['ui', '--port', 'x'], files.at)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--port must be a whole number, got x'),
    })
    expect(await runCommand(['ui', '--port', '0'], files.at)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('--port is for one beside it'),
    })
    const strange = await runCommand(['status', '--creds', 'none.creds'], files.at)
    expect(strange).toMatchObject({ code: 2, stderr: expect.stringMatching(/--creds is not for .*--server/) })
    const secret = join(files.path, '.flowstone', 'gate-secret')
    expect(readFileSync(secret, 'utf8')).toMatch(/^dev:[\w-]{43}\n$/)
    expect(statSync(secret).mode & 0o777).toBe(0o600)

    files.write("export const word = 'two'\n")
    await dev.says('active: dev (said)', 2)
    await until('the old worker has ended', () => !isAlive(one.pid))
    const two = await files.said()
    expect(two).toMatchObject({ word: 'two' })
    await counts(2)

    files.write('export const word = (\n')
    await dev.says('worker   not started')
    expect(dev.stderr()).toContain('word.ts')
    // What worked still works: the run needs a file that can be loaded, so it is asked for through
    // another one.
    expect(isAlive(two.pid)).toBe(true)

    files.write("export const word = 'three'\n")
    await dev.says('active: dev (said)', 3)
    await until('the old worker has ended', () => !isAlive(two.pid))
    expect(await files.said()).toMatchObject({ word: 'three' })

    const second = await runCommand(['dev', 'pipeline.ts'], files.at)
    expect(second.code).toBe(1)
    expect(second.stderr).toContain(`flowstone dev runs in this folder already (process ${dev.child.pid})`)

    dev.child.kill('SIGINT')
    const ended = await dev.ended
    expect(ended.code).toBe(0)
    expect(existsSync(join(files.path, '.flowstone', 'dev.json'))).toBe(false)
  }
  const secret = readFileSync(join(files.path, '.flowstone', 'gate-secret'), 'utf8')
  await using again = files.start()
  await isReady(again)
  expect(readFileSync(join(files.path, '.flowstone', 'gate-secret'), 'utf8')).toBe(secret)
  // Addresses that were given out stay good.
  expect(files.http()).toBe(http)
  // What was made before is there again.
  const { stdout } = await runCommand(['status', '--all', '--json'], files.at)
  expect(JSON.parse(stdout).length).toBe(3)
}, 180_000)

it('a worker that dies is started again, and all of dev ends with the process that was started', async () => {
  using files = project()
  await using dev = files.start()
  await isReady(dev)
  const { pid } = await files.said()
  process.kill(pid, 'SIGKILL')
  await dev.says('ended by itself (SIGKILL)')
  await dev.says('active: dev (said)', 2)
  const next = await files.said()
  expect(next.pid).not.toBe(pid)
  dev.child.kill('SIGKILL')
  await until('the worker has ended too', () => !isAlive(next.pid))
})

it('a missing file, and a broken one, are reported', async () => {
  using files = project('(')
  const none = await runCommand(['dev', 'none.ts'], files.at)
  expect(none).toMatchObject({ code: 2, stderr: 'flowstone: there is no file none.ts\n' })
  await using dev = files.start()
  await dev.says('worker   not started')
  files.write("export const word = 'mended'\n")
  await isReady(dev)
  expect(await files.said()).toMatchObject({ word: 'mended' })
})

const BLOCKING = `
import { writeFileSync } from 'node:fs'
import { asset, pipeline } from 'flowstone'
const execute = () => { writeFileSync('blocked', String(process.pid)); for (;;); }
export default pipeline('dev', [asset('said', { execute })])
`

it('dev ends within seconds, whatever its code does, and leaves no process behind', async () => {
  using files = project()
  writeModule(files.path, 'pipeline.ts', BLOCKING)
  await using dev = files.start()
  await isReady(dev)
  await runCommand(['run', 'said', '--no-wait'], files.at)
  const note = join(files.path, 'blocked')
  await until('its code runs', () => existsSync(note) && readFileSync(note, 'utf8') !== '')
  const worker = Number(readFileSync(note, 'utf8'))
  dev.child.kill('SIGINT')
  await dev.ended
  expect(isAlive(worker)).toBe(false)
})

it('a worker whose file is never loaded ends when it is asked to', async () => {
  using files = project()
  writeModule(files.path, 'pipeline.ts', 'setInterval(() => undefined, 1000)\nawait new Promise(() => undefined)\n')
  await using worker = startCommand(['worker', 'pipeline.ts'], files.at)
  await worker.says('is still being loaded')
  worker.child.kill('SIGTERM')
  expect((await worker.ended).code).toBe(0)
})

it('dev stops in order when nobody reads what it says', async () => {
  using files = project()
  await using dev = files.start()
  await isReady(dev)
  dev.child.stdout?.destroy()
  files.write("export const word = 'two'\n")
  const { code, stderr } = await dev.ended
  expect(code).toBe(1)
  expect(stderr).toContain('nobody reads standard output any more')
})
