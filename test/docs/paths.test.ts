/** Pages name files of this repository. A file that was moved must be corrected there, too. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Page, pages, pathOf } from './pages.ts'

const FOLDERS = 'streams|projections|src|test|examples|scripts|bench|docs'
const CODE = new RegExp(`\`((?:${FOLDERS})/[\\w./-]+\\.(?:ts|mjs|json|md))\``, 'g')
const LINK = /\]\(([^)#\s]+)(?:#[^)]*)?\)/g

function missingOf({ path, text }: Page): string[] {
  const named = [...text.matchAll(CODE)].map(([, file = '']) => file)
  const linked = [...text.matchAll(LINK)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => join(dirname(path), target))
  return [...new Set([...named, ...linked])].filter((file) => !existsSync(pathOf(file)))
}

describe('a page of the documentation', () => {
  it.each(pages())('names only files that exist: $path', (page) => {
    expect(missingOf(page), `${page.path} names files that do not exist. Correct their paths there`).toEqual([])
  })
})
