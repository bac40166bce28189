/** Bundles the command and the package for the tests that start it, beside the console. Once. */
import type { TestProject } from 'vitest/node'
import { bundle } from './bundle.ts'

declare module 'vitest' {
  interface ProvidedContext {
    command: string
  }
}

const CONSOLE = new URL('../../scripts/build-console.mjs', import.meta.url).href

export default async function setup(project: TestProject): Promise<void> {
  // `flowstone dev` serves it, and builds it only where it runs from the sources.
  const { buildConsole }: { buildConsole: () => Promise<string> } = await import(CONSOLE)
  await buildConsole()
  project.provide('command', await bundle(['src/cli/main.ts', 'src/cli/outcome.ts', 'src/index.ts']))
}
