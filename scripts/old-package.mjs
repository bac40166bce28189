// Keeps the package of this checkout as one file, for tests of versions side by side: `node
// scripts/old-package.mjs NAME` writes test/fixtures/versions/NAME.mjs.br. CONTRIBUTING.md says
// when. Names of functions stay: code of helper threads is sent as text.
import { readFileSync, writeFileSync } from 'node:fs'
import { brotliCompressSync, constants } from 'node:zlib'
import { build } from 'esbuild'

const [name, source = 'src/index.ts'] = process.argv.slice(2)
if (name === undefined || !/^[0-9a-z.-]+$/.test(name)) {
  console.error('node scripts/old-package.mjs NAME [FILE]: a name of a-z 0-9 . -, such as 0.2.0')
  process.exit(2)
}
const { peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
const { outputFiles } = await build({
  entryPoints: [source],
  write: false,
  bundle: true,
  minifyWhitespace: true,
  minifySyntax: true,
  format: 'esm',
  platform: 'node',
  target: 'node22',
  external: Object.keys(peerDependencies ?? {}),
  banner: { js: 'const require = (name) => process.getBuiltinModule(name);' },
  logLevel: 'warning',
})
const bytes = outputFiles[0]?.contents ?? new Uint8Array()
const params = { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length, [constants.BROTLI_PARAM_LGWIN]: 24 }
const packed = brotliCompressSync(bytes, { params })
writeFileSync(new URL(`../test/fixtures/versions/${name}.mjs.br`, import.meta.url), packed)
console.log(`${name}: ${packed.length} bytes`)
