import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/**
 * These need a Docker daemon: the one that DOCKER_HOST names, or see daemon.sh. Ports 4222 to 4225
 * must be free.
 */
export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/container/*.test.ts'],
    globalSetup: ['test/container/image.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
