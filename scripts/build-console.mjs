// Builds the web console: src/console -> dist/console. Run by `npm run build`, and by whatever
// serves the console of a clone (`buildConsole`), which builds only what is missing or old.
//
// Names of files hold a hash of their content, so browsers keep them for ever. index.html names the
// files of the first view, manifest.json all of them.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const root = fileURLToPath(new URL('../', import.meta.url))
const source = join(root, 'src', 'console')
const target = join(root, 'dist', 'console')
/** What each browser has since 2024. */
const BROWSERS = ['chrome123', 'firefox120', 'safari17.5']

/** Returns the folder with the console. `force`: builds it in any case. */
export async function buildConsole({ force = false } = {}) {
  if (!force && isFresh()) return target
  const { build } = await import('esbuild')
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const common = {
    absWorkingDir: root,
    outdir: 'dist/console',
    entryNames: 'assets/[name]-[hash]',
    write: false,
    bundle: true,
    minify: true,
    target: BROWSERS,
    tsconfig: 'src/console/tsconfig.json',
    logLevel: 'warning',
  }
  // The page starts it by its name, which is known when it is built.
  const worker = await build({ ...common, entryPoints: ['src/console/layout-worker.ts'], format: 'iife' })
  const workerName = relative(target, worker.outputFiles[0]?.path ?? '')
  const { outputFiles, metafile } = await build({
    ...common,
    entryPoints: ['src/console/main.tsx', 'src/console/style/main.css'],
    chunkNames: 'assets/[name]-[hash]',
    assetNames: 'assets/[name]-[hash]',
    metafile: true,
    splitting: true,
    format: 'esm',
    define: { VERSION: JSON.stringify(version), LAYOUT_WORKER: JSON.stringify(workerName) },
  })
  const entryOf = (path) =>
    nameOf('dist/console', Object.entries(metafile.outputs).find(([, out]) => out.entryPoint === path)?.[0] ?? '')
  const icon = readFileSync(join(source, 'icon.svg'))
  const iconName = `assets/icon-${createHash('sha256').update(icon).digest('hex').slice(0, 8)}.svg`
  const index = readFileSync(join(source, 'index.html'), 'utf8')
    .replace('%SCRIPT%', entryOf('src/console/main.tsx'))
    .replace('%STYLE%', entryOf('src/console/style/main.css'))
    .replace('%ICON%', iconName)
  const files = [
    ...[...outputFiles, ...worker.outputFiles].map(({ path, contents }) => [nameOf(target, path), contents]),
    [iconName, icon],
    ['index.html', Buffer.from(index)],
  ]
  const manifest = files.map(([name, bytes]) => ({ name, bytes: bytes.length, gzipped: gzipSync(bytes).length }))
  files.push(['manifest.json', Buffer.from(`${JSON.stringify(manifest, undefined, 2)}\n`)])
  replace(files)
  return target
}

/** As addresses have it, on Windows too. */
function nameOf(folder, path) {
  return relative(folder, path).replaceAll('\\', '/')
}

/** Whoever serves it meanwhile finds all of the old one, or all of the new one. */
function replace(files) {
  const draft = `${target}.${process.pid}`
  mkdirSync(join(draft, 'assets'), { recursive: true })
  for (const [name, bytes] of files) writeFileSync(join(draft, name), bytes)
  rmSync(target, { recursive: true, force: true })
  try {
    renameSync(draft, target)
  } catch (error) {
    // Another process has put its own there.
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(join(target, 'manifest.json'))) throw error
  }
}

/** Types of the API are erased, so nothing else of the sources is in it. */
function isFresh() {
  const manifest = join(target, 'manifest.json')
  if (!existsSync(manifest)) return false
  const built = statSync(manifest).mtimeMs
  const parts = [source, join(root, 'scripts', 'build-console.mjs'), join(root, 'package.json')]
  return parts.every((path) => newest(path) <= built)
}

function newest(path) {
  const about = statSync(path)
  if (!about.isDirectory()) return about.mtimeMs
  return Math.max(about.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildConsole({ force: true })
