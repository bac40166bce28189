/** `flowstone worker` ends when it is asked to, whatever its code does. No process stays behind. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isAlive } from '../../src/server/processes.ts'
import { useServer } from '../kit/fixture.ts'
import { type ScratchFolder, scratchFolder } from '../kit/scratch.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { type Running, runCommand, startCommand, writeModule } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
let stage: Stage

beforeAll(async () => {
  stage = await openStage(server.url, [], { worker: false })
})
afterAll(() => stage[Symbol.asyncDispose]())

const NOTE = "import { writeFileSync } from 'node:fs'\nconst note = () => writeFileSync('note', String(process.pid))\n"
const pipelineOf = (name: string, body: string): string => `${NOTE}
import { asset, pipeline } from 'flowstone'
export default pipeline('${name}', [asset('${name}', { execute: async () => { note(); ${body} } })])
`

interface Worker extends Running {
  /** The process that runs the code. It is known once the code runs. */
  readonly inner: () => Promise<number>
  readonly start: (asset: string) => Promise<string>
}

/** A worker in a process group of its own, as a service has it. */
function startWorker(scratch: ScratchFolder, source: string): Worker {
  const where = {
    cwd: scratch.path,
    env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace },
    group: true,
  }
  writeModule(scratch.path, 'pipeline.ts', source)
  const note = join(scratch.path, 'note')
  return Object.assign(startCommand(['worker', 'pipeline.ts', '--drain', '1s'], where), {
    inner: async () => {
      await until('its code runs', () => existsSync(note) && readFileSync(note, 'utf8') !== '')
      return Number(readFileSync(note, 'utf8'))
    },
    start: async (asset: string) => {
      const { stdout } = await runCommand(['run', asset, '--file', 'pipeline.ts', '--no-wait'], where)
      return stdout.trim()
    },
  })
}

it.each(['SIGTERM', 'SIGINT'] as const)(
  'a worker whose code blocks its event loop ends soon after drainTimeout at %s',
  async (signal) => {
    using scratch = scratchFolder()
    await using worker = startWorker(scratch, pipelineOf('blocks', 'for (;;);'))
    await worker.says('active')
    await worker.start('blocks')
    const inner = await worker.inner()
    const askedMs = performance.now()
    worker.child.kill(signal)
    const { code, stderr } = await worker.ended
    // Of the code there was no sign for 3 s.
    expect(performance.now() - askedMs).toBeLessThan(10_000)
    expect(code).toBe(137)
    expect(stderr).toContain('asked to stop, and its event loop is blocked')
    expect(isAlive(inner)).toBe(false)
  },
)

it('a worker whose file blocks while it is loaded ends when it is asked to', async () => {
  using scratch = scratchFolder()
  await using worker = startWorker(scratch, `${NOTE}note()\nfor (;;);\n`)
  const inner = await worker.inner()
  worker.child.kill('SIGTERM')
  expect((await worker.ended).code).toBe(137)
  expect(isAlive(inner)).toBe(false)
})

it('a worker whose code blocks its event loop ends at once at a second signal', async () => {
  using scratch = scratchFolder()
  await using worker = startWorker(scratch, pipelineOf('blocks_again', 'for (;;);'))
  await worker.says('active')
  await worker.start('blocks_again')
  const inner = await worker.inner()
  worker.child.kill('SIGTERM')
  worker.child.kill('SIGINT')
  expect((await worker.ended).code).toBe(130)
  expect(isAlive(inner)).toBe(false)
})

it('a worker that gets a signal together with its child finishes in order', async () => {
  using scratch = scratchFolder()
  const body = "await new Promise((done) => setTimeout(done, 500)); return 'done'"
  await using worker = startWorker(scratch, pipelineOf('slow', body))
  await worker.says('active')
  const run = stage.flow.run(await worker.start('slow'))
  const inner = await worker.inner()
  // As a terminal and systemd do it.
  process.kill(-(worker.child.pid ?? Number.NaN), 'SIGTERM')
  expect(await worker.ended).toMatchObject({ code: 0, stderr: '' })
  expect(await run.result()).toBe('done')
  expect(isAlive(inner)).toBe(false)
})

it('a second signal ends a worker at once, and its task is known to be lost', async () => {
  using scratch = scratchFolder()
  const endless = 'setInterval(() => undefined, 1000); await new Promise(() => undefined)'
  await using worker = startWorker(scratch, pipelineOf('endless', endless))
  await worker.says('active')
  const run = stage.flow.run(await worker.start('endless'))
  const inner = await worker.inner()
  worker.child.kill('SIGTERM')
  await worker.says('finishing 1 task')
  worker.child.kill('SIGTERM')
  expect((await worker.ended).code).toBe(130)
  expect(isAlive(inner)).toBe(false)
  // Far below the 30 s of ackWait: its last words are stored.
  await until('the attempt is over', async () => (await run.status())?.assets.endless?.attempt === 2)
})

it('a worker ends with its supervisor, although its code blocks its event loop', async () => {
  using scratch = scratchFolder()
  await using worker = startWorker(scratch, pipelineOf('orphan', 'for (;;);'))
  await worker.says('active')
  await worker.start('orphan')
  const inner = await worker.inner()
  worker.child.kill('SIGKILL')
  await until('the process that ran the code has ended', () => !isAlive(inner))
})

it.each([
  ['process.exit(7)', 7],
  ["process.kill(process.pid, 'SIGKILL')", 137],
])('a worker whose code calls %s ends with exit code %i', async (body, code) => {
  using scratch = scratchFolder()
  const name = `ends_${code}`
  await using worker = startWorker(scratch, pipelineOf(name, body))
  await worker.says('active')
  await worker.start(name)
  expect((await worker.ended).code).toBe(code)
})
