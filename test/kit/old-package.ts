/**
 * An older package, as one file: test/fixtures/versions/NAME.mjs.br. It is made by
 * scripts/old-package.mjs of the commit that it is named after.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { brotliDecompressSync } from 'node:zlib'
import type * as Package from '../../src/index.ts'
import { scratchFolder } from './scratch.ts'

/** Its code runs in this process, beside that of the repository. */
export async function oldPackage(name: string): Promise<typeof Package & Disposable> {
  const scratch = scratchFolder()
  const file = join(scratch.path, 'old', `${name}.mjs`)
  mkdirSync(join(scratch.path, 'old'), { recursive: true })
  const packed = readFileSync(new URL(`../fixtures/versions/${name}.mjs.br`, import.meta.url))
  writeFileSync(file, brotliDecompressSync(packed))
  const old = (await import(pathToFileURL(file).href)) as typeof Package
  return Object.assign(Object.create(old) as typeof Package, { [Symbol.dispose]: () => scratch[Symbol.dispose]() })
}
