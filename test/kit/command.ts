/** Bundles the command and the package for the tests that start it, beside the console. Once. */
import type { TestProject } from 'vitest/node'
import { bundle } from './bundle.ts'
import buildConsole from './console.ts'

declare module 'vitest' {
  interface ProvidedContext {
    command: string
  }
}

export default async function setup(project: TestProject): Promise<void> {
  // `flowstone dev` serves it, and builds it only where it runs from the sources.
  await buildConsole()
  project.provide('command', await bundle(['src/cli/main.ts', 'src/cli/outcome.ts', 'src/index.ts']))
}
