// Builds dist/ from nothing, so that a file deleted from the sources is not published for ever.
//
// dist/console: the web console, for browsers.
//
// dist/src: the package and the command, for Node, beside the types of each source. They are in few
// files: to load each source from a file of its own takes Node twice as long.
//
// dist/bundle: the package for bundlers (the condition `module` of package.json), with the NATS
// client inside. That client is CommonJS: a bundle of ES modules would fail at its first
// `require('net')` unless its maker adds a banner. Here Node's own modules are asked for in a way
// that works in both formats.
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { build } from 'esbuild'
import { buildConsole } from './build-console.mjs'

rmSync('dist', { recursive: true, force: true })
// The file behind `tsc` is run with this Node: a .cmd shim on Windows cannot be spawned without a
// shell.
const result = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
  stdio: 'inherit',
})
if (result.status !== 0) process.exit(result.status ?? 1)

const { dependencies, peerDependencies, exports } = JSON.parse(readFileSync('package.json', 'utf8'))
const entries = Object.values(exports).flatMap((entry) => (entry.module ? [entry.module] : []))
const common = {
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node22',
  logLevel: 'warning',
}
await build({
  ...common,
  entryPoints: [...entries.map(sourceOf), 'src/cli/main.ts'],
  outdir: 'dist',
  outbase: '.',
  // As deep as the command, from where it looks for package.json.
  chunkNames: 'src/cli/[name]-[hash]',
  packages: 'external',
  keepNames: true,
})
await build({
  ...common,
  entryPoints: entries.map((path) => ({
    in: sourceOf(path),
    out: path.replace('./dist/bundle/', '').replace(/\.js$/, ''),
  })),
  outdir: 'dist/bundle',
  external: Object.keys({ ...dependencies, ...peerDependencies }).filter((name) => !name.startsWith('@nats-io/')),
  banner: { js: 'const require = (name) => process.getBuiltinModule(name);' },
})
await buildConsole({ force: true })

function sourceOf(entry) {
  return entry.replace('./dist/bundle/', 'src/').replace(/\.js$/, '.ts')
}
