/** Bundles the command and the package for the tests that start it. Runs once for all. */
import type { TestProject } from 'vitest/node'
import { bundle } from './bundle.ts'

declare module 'vitest' {
  interface ProvidedContext {
    command: string
  }
}

export default async function setup(project: TestProject): Promise<void> {
  project.provide('command', await bundle(['src/cli/main.ts', 'src/cli/outcome.ts', 'src/index.ts']))
}
