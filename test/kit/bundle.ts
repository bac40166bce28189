/**
 * Bundles programs that tests start. Reading two hundred source files at each start took half of
 * the processor time.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const CACHE = join(ROOT, 'node_modules', '.cache', 'flowstone-programs')

/**
 * A folder with each of the files as JavaScript, at its path in the repository. What they share is
 * there once, so a program and a module that it loads meet the same instance of FlowStone.
 * `files`: paths from the root of the repository.
 */
export async function bundle(files: readonly string[]): Promise<string> {
  const { outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: [...files],
    outdir: CACHE,
    outbase: ROOT,
    // As deep as src/cli, from where the command looks for package.json.
    chunkNames: 'src/cli/[name]-[hash]',
    write: false,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    keepNames: true,
    // No source map inside: each of some five hundred processes would read it, and none uses it.
    sourcemap: false,
    // Clients that few of them load.
    external: ['pg', '@aws-sdk/*', 'hyparquet', 'csv-parse', 'msgpackr-extract'],
    banner: {
      js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
    },
    logLevel: 'warning',
  })
  const contentOf = new Map<string, string | Uint8Array>([
    ['package.json', JSON.stringify({ type: 'module', version: '0.0.0-bundle' })],
    ...outputFiles.map(({ path, contents }) => [relative(CACHE, path), contents] as const),
  ])
  const hash = createHash('sha256')
  for (const [path, content] of contentOf) hash.update(path).update(content)
  const folder = join(CACHE, hash.digest('hex').slice(0, 16))
  if (existsSync(folder)) return folder
  // Another run of the tests may do the same at this moment.
  const draft = `${folder}.${process.pid}`
  for (const [path, content] of contentOf) {
    mkdirSync(dirname(join(draft, path)), { recursive: true })
    writeFileSync(join(draft, path), content)
  }
  try {
    renameSync(draft, folder)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(folder)) throw error
  }
  return folder
}
