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
    // Real processes, clocks and kills on a machine that others may load: in CI what fails is tried once more, and the report says so. At a desk it fails.
    retry: process.env.CI ? 1 : 0,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
