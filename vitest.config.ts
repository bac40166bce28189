import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config'
import { memoryFolder } from './test/kit/scratch-root.ts'

/** What needs neither a nats-server nor a process of its own. */
const UNIT = [
  'test/log/{headers,last-lines,stored-ms}.test.ts',
  'test/{define,engine,metrics,options,projections,scripts,streams}/**/*.test.ts',
  'test/console/!(browser*).test.ts',
  'test/worker/!(acknowledge|puller).test.ts',
  'test/docs/!(snippets).test.ts',
  'test/items/!(postgres).test.ts',
  'test/http/{access,address,api-keys,body,bounded-server,flow-at,form,live,metadata,problems,rate,signatures}.test.ts',
  'test/gates/{payload,token}.test.ts',
  'test/cli/{colour,init,node-version,output,progress,shells,table}.test.ts',
  'test/server/{compose,version}.test.ts',
  'test/kill/history.test.ts',
  'test/bench-guard.test.ts',
]
const KILL = ['test/kill/**/*.test.ts']
/** They measure how long something takes, so little else may run beside them. */
const TIMED = [
  'test/integration/late-slots.test.ts',
  'test/integration/limited-scatter.test.ts',
  'test/integration/limiter.test.ts',
  'test/examples/scatter.test.ts',
  'test/gates/deadline.test.ts',
  'test/gates/timeout.test.ts',
  'test/rate-limiter-example.test.ts',
]
// The tests in test/container need a Docker daemon: `npm run test:container`.
const NEVER = ['test/container/**', '**/node_modules/**']

const memory = memoryFolder()

/** A file starts servers and child processes of its own, so it runs in a process and no thread. */
const REAL: TestProjectInlineConfiguration['test'] = {
  pool: 'forks',
  // They mostly wait for servers and processes, so there may be more of them than processors.
  maxWorkers: Math.ceil(availableParallelism() * 1.5),
  sequence: { groupOrder: 2 },
  env: {
    // What they start is many times the same code: Node need not compile it each time.
    NODE_COMPILE_CACHE: fileURLToPath(new URL('node_modules/.cache/node', import.meta.url)),
    ...(memory === undefined ? {} : { TMPDIR: memory }),
  },
}

export default defineConfig({
  test: {
    // The default leaves one processor out.
    maxWorkers: '100%',
    exclude: NEVER,
    // `until` and `within` of test/kit say before that what did not come.
    testTimeout: 300_000,
    hookTimeout: 120_000,
    projects: [
      // Pure code: the files share the modules that they load. Property tests may take a while.
      {
        extends: true,
        test: { name: 'unit', include: UNIT, pool: 'threads', isolate: false },
      },
      // Files share a process, one after the other: each would load the same modules again, for
      // more than a second of processor time. So a file takes back what it changes of its process,
      // such as listeners and variables of the environment.
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['test/**/*.test.ts'],
          exclude: [...UNIT, ...TIMED, ...KILL],
          isolate: false,
          globalSetup: ['test/kit/command.ts'],
          ...REAL,
        },
      },
      {
        extends: true,
        test: {
          name: 'timed',
          include: TIMED,
          isolate: false,
          ...REAL,
          maxWorkers: '100%',
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'kill',
          include: KILL,
          exclude: UNIT,
          isolate: false,
          globalSetup: ['test/kit/programs.ts'],
          ...REAL,
        },
      },
    ],
  },
})
