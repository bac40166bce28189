import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These need a Docker daemon: `npm run test:container`.
    exclude: ['test/container/**', '**/node_modules/**'],
    globalSetup: ['test/kit/programs.ts'],
    // A file starts servers and child processes of its own: real processes, so that signals and
    // exits are theirs alone.
    pool: 'forks',
    // Most of them wait for servers and processes most of the time; the default leaves one core
    // out.
    maxWorkers: '100%',
    // What they start is many times the same code: Node need not compile it each time.
    env: { NODE_COMPILE_CACHE: fileURLToPath(new URL('node_modules/.cache/node', import.meta.url)) },
    testTimeout: 90_000,
    hookTimeout: 120_000,
  },
})
