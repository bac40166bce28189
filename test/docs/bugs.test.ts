/** docs/bugs.md names tests: `folder/file`, and after it "a part of a title". Both must exist. */
import { existsSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { pathOf } from './pages.ts'

const PAGE = 'docs/bugs.md'
const TESTS = /`([a-z]+\/[a-z0-9-]+)`((?:\s+"[^"]+")?)/g

interface Named {
  readonly test: string
  readonly title: string | undefined
}

function namedTests(): Named[] {
  const text = readFileSync(pathOf(PAGE), 'utf8')
  return [...text.matchAll(TESTS)].map(([, test = '', title = '']) => ({
    test,
    title: title === '' ? undefined : title.trim().slice(1, -1),
  }))
}

function fileOf(test: string): string | undefined {
  return [`test/${test}.test.ts`, `test/${test}.ts`].find((path) => existsSync(pathOf(path)))
}

/** Without what a string literal escapes. */
function sourceOf(path: string): string {
  return readFileSync(pathOf(path), 'utf8').replaceAll('\\', '')
}

it('docs/bugs.md names many tests', () => {
  expect(namedTests().length).toBeGreaterThan(150)
})

it('every test file that docs/bugs.md names exists', () => {
  const missing = namedTests().filter(({ test }) => !fileOf(test))
  expect(
    missing.map(({ test }) => test),
    `${PAGE} names test files that do not exist. Was one moved? Then correct its name in ${PAGE}`,
  ).toEqual([])
})

it('every quoted part of a title in docs/bugs.md occurs in the file named before it', () => {
  const missing = namedTests().filter(({ test, title }) => {
    const path = fileOf(test)
    return path !== undefined && title !== undefined && !sourceOf(path).includes(title)
  })
  expect(
    missing.map(({ test, title }) => `${test} "${title}"`),
    `${PAGE} quotes titles that no test has. Was a test reworded? Then quote a part of its new title in ${PAGE}`,
  ).toEqual([])
})
