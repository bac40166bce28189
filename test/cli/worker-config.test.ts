/** `export const worker` of a file with pipelines. */
import { expect, it } from 'vitest'
import { onlyConfig, workerConfigOf } from '../../src/cli/worker-config.ts'
import type { PipelineHooks } from '../../src/define/hooks.ts'
import { giveHooks } from '../../src/define/pipeline.ts'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage } from '../kit/stage.ts'
import { runCommand, startCommand, writeModule } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const FILE = `import { asset, pipeline } from 'flowstone'
import { readFileSync, writeFileSync } from 'node:fs'

export const worker = {
  resources: { greeting: 'hello' },
  concurrency: 3,
  logger: { debug() {}, info: (message) => console.log('logged ' + message), warn() {}, error() {} },
  io: {
    files: {
      store: async (value) => (writeFileSync('value', value), { path: 'value' }),
      load: async ({ path }) => readFileSync(path, 'utf8') + ' from a file',
    },
  },
}
const greeting = asset('greeting', {
  io: 'files',
  execute: ({ resources, log }) => (log.info('greets'), resources.greeting),
})
export default pipeline('p', [greeting])
`

it('flowstone worker takes resources, io, logger and options out of the file, and flowstone run reads with its io', async () => {
  using scratch = scratchFolder()
  await using stage = await openStage(server.url, [], { worker: false })
  writeModule(scratch.path, 'p.ts', FILE)
  const where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  await using worker = startCommand(['worker', 'p.ts'], where)
  await worker.says(/worker-\w+ active/)
  const { stdout } = await runCommand(['run', 'greeting', '--file', 'p.ts'], where)
  expect(stdout).toBe('"hello from a file"\n')
  expect(worker.stdout()).toContain('logged greets')
  const [view] = await stage.flow.inspect.workers()
  expect(view?.slots).toBe(3)
})

it.each([
  [{ resource: {} }, /p\.ts: export const worker: there is no option resource; did you mean resources\?; allowed are/],
  [{ handleSignals: true }, /there is no option handleSignals/],
  [{ io: 'files' }, /io must be an object, got string/],
  [{ logger: { warn: () => undefined } }, /logger must have the functions debug, info, warn, error/],
  [() => ({}), /must be an object, such as .*, got function/],
  [null, /must be an object, such as .*, got null/],
  [[], /must be an object, got a list/],
  [{ resources: [] }, /resources must be an object, got a list/],
  [Promise.resolve({ concurrency: 3 }), /must be an object, got a promise: await it/],
  [new Map([['concurrency', 3]]), /must be an object, got a Map/],
])('a configuration %j is refused, and the error says what to do', (worker, message) => {
  expect(() => workerConfigOf('p.ts', { worker })).toThrow(message)
})

const HOOKED = `import { asset, pipeline } from 'flowstone'

export const worker = {
  hooks: { onRunFinished: (ctx, { pipeline, status }) => console.log('the hook of the file: ' + pipeline + ' ' + status) },
}
const own = asset('own', { execute: () => 1 })
const none = asset('none', { execute: () => 2 })
export const has = pipeline('has', [own], {
  hooks: { onRunFinished: (ctx, { status }) => console.log('its own hook: ' + status) },
})
export const lacks = pipeline('lacks', [none])
`

it('hooks of a configuration are those of the pipelines of the file that have none', async () => {
  using scratch = scratchFolder()
  await using stage = await openStage(server.url, [], { worker: false })
  writeModule(scratch.path, 'p.ts', HOOKED)
  const where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  await using worker = startCommand(['worker', 'p.ts'], where)
  await worker.says(/worker-\w+ active/)
  // With the code, and without: both start a run of the version that the worker has.
  await runCommand(['run', 'none', '--file', 'p.ts'], where)
  await worker.says(/the hook of the file: lacks succeeded/)
  await runCommand(['run', 'has/own'], where)
  await worker.says(/its own hook: succeeded/)
  expect(worker.stdout()).not.toContain('the hook of the file: has')
})

it.each([
  [{}, /p\.ts: export const worker: hooks: name at least one of onRunFailed/],
  [{ onRunFaild: () => undefined }, /export const worker: hooks: .*did you mean onRunFailed\?/],
  ['x', /export const worker: hooks must be an object such as/],
  [{ onRunFailed: 5 }, /export const worker: hooks.*onRunFailed/],
])('hooks %j of a configuration are refused', (hooks, message) => {
  const one = pipeline('p', [asset('a', { execute: () => 1 })])
  const before = { ...one }
  expect(() => giveHooks('p.ts: export const worker: hooks', one, hooks as PipelineHooks)).toThrow(message)
  expect(one).toEqual(before)
})

it('an asset or a pipeline with the name worker is no configuration', () => {
  const worker = asset('worker', { execute: () => 1 })
  expect(workerConfigOf('p.ts', { worker })).toBeUndefined()
  expect(workerConfigOf('p.ts', { worker: pipeline('w', [worker]) })).toBeUndefined()
  expect(workerConfigOf('p.ts', {})).toBeUndefined()
})

it('two files may export the same configuration, and no two of them', () => {
  const config = { concurrency: 2 }
  const none = { file: 'c.ts', config: {} }
  expect(onlyConfig([{ file: 'a.ts', config }, none, { file: 'b.ts', config }])).toBe(config)
  expect(onlyConfig([none])).toEqual({})
  expect(() =>
    onlyConfig([
      { file: 'a.ts', config },
      { file: 'b.ts', config: { ...config } },
    ]),
  ).toThrow(/a\.ts and b\.ts both export worker/)
})
