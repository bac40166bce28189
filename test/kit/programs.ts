/** Bundles the programs that the kill tests start some four hundred times. Runs once for all. */
import { readdirSync } from 'node:fs'
import type { TestProject } from 'vitest/node'
import { bundle } from './bundle.ts'

declare module 'vitest' {
  interface ProvidedContext {
    programs: string
  }
}

const FOLDER = 'test/kill/programs'

export default async function setup(project: TestProject): Promise<void> {
  const files = readdirSync(new URL(`../../${FOLDER}`, import.meta.url)).map((name) => `${FOLDER}/${name}`)
  project.provide('programs', `${await bundle(files)}/${FOLDER}`)
}
