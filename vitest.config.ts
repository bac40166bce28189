import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These need a Docker daemon: `npm run test:container`.
    exclude: ['test/container/**', '**/node_modules/**'],
    // A file starts servers and child processes of its own: real processes, so that signals and exits are theirs alone.
    pool: 'forks',
    // Most of them wait for servers and processes most of the time; the default leaves one core out.
    maxWorkers: '100%',
    testTimeout: 90_000,
    hookTimeout: 120_000,
  },
})
