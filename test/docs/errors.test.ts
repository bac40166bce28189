import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { ERROR_CODES } from '../../streams/error-codes.ts'

const root = new URL('../..', import.meta.url)
const page = readFileSync(new URL('docs/errors.md', root), 'utf8')

it('the page of errors lists each code once, and no other', () => {
  const rows = page.split('\n').filter((line) => line.startsWith('| `'))
  const listed = rows.flatMap((row) =>
    [...(row.split('|')[1] ?? '').matchAll(/`([a-z_0-9]+)`/g)].map(([, code]) => code),
  )
  expect(listed.toSorted()).toEqual([...ERROR_CODES].toSorted())
})

const files = execFileSync('git', ['ls-files', 'src', 'streams', 'projections'], { cwd: root, encoding: 'utf8' })
const text = files
  .split('\n')
  .filter((file) => file.endsWith('.ts') && file !== 'streams/error-codes.ts')
  .map((file) => readFileSync(new URL(file, root), 'utf8'))
  .join('\n')

it('each error code is used in the code', () => {
  expect(ERROR_CODES.filter((code) => !text.includes(`'${code}'`))).toEqual([])
})

it('each error that the code makes has a code of the list', () => {
  const made = [...text.matchAll(/(?:new FlowStoneError|super)\(\s*'([a-z_]+)'|\bcode: '([a-z_]+)'/g)]
  const codes = new Set(made.map(([, thrown, stored]) => thrown ?? stored))
  expect(codes.size).toBeGreaterThan(60)
  expect([...codes].filter((code) => !ERROR_CODES.some((known) => known === code))).toEqual([])
})
