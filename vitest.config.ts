import { fileURLToPath } from 'node:url'
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config'

/** What needs neither a nats-server nor a process of its own. */
const UNIT = [
  'test/{define,options,projections,scripts,streams}/**/*.test.ts',
  'test/worker/!(acknowledge|puller).test.ts',
  'test/docs/!(snippets).test.ts',
  'test/items/!(postgres).test.ts',
  'test/http/{address,api-keys,body,form,metadata,rate,signatures}.test.ts',
  'test/gates/{payload,token}.test.ts',
  'test/cli/output.test.ts',
  'test/server/{compose,version}.test.ts',
  'test/kill/history.test.ts',
]
const KILL = ['test/kill/**/*.test.ts']
// The tests in test/container need a Docker daemon: `npm run test:container`.
const NEVER = ['test/container/**', '**/node_modules/**']

/** A file starts servers and child processes of its own, so it runs in a process and no thread. */
const REAL: TestProjectInlineConfiguration['test'] = {
  pool: 'forks',
  // What they start is many times the same code: Node need not compile it each time.
  env: { NODE_COMPILE_CACHE: fileURLToPath(new URL('node_modules/.cache/node', import.meta.url)) },
}

export default defineConfig({
  test: {
    // Most tests wait for servers and processes. The default leaves one core out.
    maxWorkers: '100%',
    exclude: NEVER,
    testTimeout: 90_000,
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
          exclude: [...UNIT, ...KILL],
          isolate: false,
          globalSetup: ['test/kit/command.ts'],
          ...REAL,
        },
      },
      {
        extends: true,
        test: { name: 'kill', include: KILL, exclude: UNIT, globalSetup: ['test/kit/programs.ts'], ...REAL },
      },
    ],
  },
})
