/**
 * Bundles each program that the kill tests start into one file. The tests start them some four
 * hundred times. Reading two hundred files each time took half of the processor time. This runs
 * once for a whole run of the tests.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  interface ProvidedContext {
    programs: string
  }
}

const SOURCES = fileURLToPath(new URL('../kill/programs/', import.meta.url))
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/flowstone-programs/', import.meta.url))

export default async function setup(project: TestProject): Promise<void> {
  const { outputFiles } = await build({
    entryPoints: readdirSync(SOURCES).map((name) => join(SOURCES, name)),
    outdir: CACHE,
    outExtension: { '.js': '.mjs' },
    write: false,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    keepNames: true,
    // No source map inside: each of some four hundred processes would read it, and none uses it.
    sourcemap: false,
    // Clients that few of them load.
    external: ['pg', '@aws-sdk/*', 'hyparquet', 'csv-parse', 'msgpackr-extract'],
    banner: {
      js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
    },
    logLevel: 'warning',
  })
  const hash = createHash('sha256')
  for (const { path, contents } of outputFiles) hash.update(path).update(contents)
  const folder = join(CACHE, hash.digest('hex').slice(0, 16))
  if (!existsSync(folder)) {
    // Another run of the tests may do the same at this moment.
    const draft = `${folder}.${process.pid}`
    mkdirSync(draft, { recursive: true })
    for (const { path, contents } of outputFiles) writeFileSync(join(draft, basename(path)), contents)
    try {
      renameSync(draft, folder)
    } catch (error) {
      rmSync(draft, { recursive: true, force: true })
      if (!existsSync(folder)) throw error
    }
  }
  project.provide('programs', folder)
}
