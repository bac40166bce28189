/** The pages of this repository, as the tests of the documentation read them. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))

export function pathOf(path: string): string {
  return join(ROOT, path)
}

export interface Page {
  /** From the root of the repository. */
  readonly path: string
  readonly text: string
}

/** All Markdown of the root, docs/ and .github/. */
export function pages(): Page[] {
  const below = (folder: string): string[] =>
    readdirSync(pathOf(folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`)
  return [...readdirSync(ROOT), ...below('docs'), ...below('.github')]
    .filter((path) => path.endsWith('.md'))
    .toSorted()
    .map((path) => ({ path, text: readFileSync(pathOf(path), 'utf8') }))
}
