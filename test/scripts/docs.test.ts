import { expect, it } from 'vitest'
import { shown, withSnippets } from '../../scripts/docs.ts'
import { brokenLinks } from '../../scripts/links.ts'

const FILES: Readonly<Record<string, string>> = {
  'examples/docs/a/b.ts': `import { asset } from '../../../src/index.ts'
import { readLines } from '../../../src/items/index.ts'

function main() {
  // #region inner
  if (asset) {
    // #region deep
    readLines('x')
    // #endregion
  }
  // #endregion
}
`,
}
const read = (path: string): string | undefined => FILES[path]
const INNER = "if (asset) {\n  readLines('x')\n}"

it('a page shows a region without its indentation and its markers', () => {
  expect(shown(FILES['examples/docs/a/b.ts'] ?? '', 'inner').join('\n')).toBe(INNER)
})

it('a page shows the names of the package in place of relative imports', () => {
  expect(shown(FILES['examples/docs/a/b.ts'] ?? '').slice(0, 2)).toEqual([
    "import { asset } from 'flowstone'",
    "import { readLines } from 'flowstone/items'",
  ])
})

it.each([
  ['is old', 'x\n<!-- snippet: examples/docs/a/b.ts#inner -->\n```ts\nold\n```\ny\n'],
  ['is missing', 'x\n<!-- snippet: examples/docs/a/b.ts#inner -->\ny\n'],
])('a block that %s is written', (_, page) => {
  const text = `x\n<!-- snippet: examples/docs/a/b.ts#inner -->\n\`\`\`ts\n${INNER}\n\`\`\`\ny\n`
  expect(withSnippets(page, read)).toEqual({ text, problems: [] })
  expect(withSnippets(text, read).text).toBe(text)
})

it.each([
  ['is no snippet', '\n```ts\nx\n```\n', /^line 2: a block of ts is no snippet/],
  ['has no file', '<!-- snippet: examples/docs/no.ts -->\n```ts\nx\n```\n', /^line 1: there is no file examples\/docs/],
  ['has no region', '<!-- snippet: examples/docs/a/b.ts#no -->\n```ts\nx\n```\n', /^line 1: there is no region no/],
])('a block that %s is a problem, and stays as it is', (_, page, problem) => {
  const found = withSnippets(page, read)
  expect(found.text).toBe(page)
  expect(found.problems).toEqual([expect.stringMatching(problem)])
})

it('blocks of other languages are left alone', () => {
  const page = '```sh\n<!-- snippet: no.ts -->\n```\n'
  expect(withSnippets(page, read)).toEqual({ text: page, problems: [] })
})

it('links to files and headings that are not there are found', () => {
  const pages: Readonly<Record<string, string>> = {
    'README.md': '[a](docs/a.md#why-is-it-so) [b](docs/b.md) [c](docs/a.md#no) [d](https://example.org)',
    'docs/a.md': '# A\n\n## Why is it `so`?\n\n```sh\n[x](no.md)\n```\n[self](#a) [up](../README.md) [no](#b)\n',
  }
  const names = Object.keys(pages)
  const broken = brokenLinks(
    names,
    (path) => pages[path],
    (path) => names.includes(path),
  )
  expect(broken).toEqual([
    'README.md: the link docs/b.md leads nowhere',
    'README.md: the link docs/a.md#no leads nowhere',
    'docs/a.md: the link #b leads nowhere',
  ])
})
