/** docs/glossary.md has each term once, in order, in two sentences at most. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { pathOf } from './pages.ts'

const rows = [...readFileSync(pathOf('docs/glossary.md'), 'utf8').matchAll(/^\| \*\*(.+?)\*\* \| (.+) \|$/gm)].map(
  ([, term = '', meaning = '']) => ({ term, meaning }),
)
/** As a reader looks for it: `I/O manager` under `io`. */
const key = (term: string): string => term.toLowerCase().replaceAll(/[^a-z ]/g, '')

it('docs/glossary.md has its terms in order, each once', () => {
  const terms = rows.map(({ term }) => key(term))
  expect(terms.length).toBeGreaterThan(50)
  expect(terms).toEqual([...new Set(terms)].toSorted())
})

it.each(rows)('docs/glossary.md explains "$term" in two sentences at most', ({ meaning }) => {
  expect(meaning.replaceAll(/`[^`]*`/g, 'x').match(/\.(?=\s|$)/g)?.length).toBeLessThanOrEqual(2)
})
